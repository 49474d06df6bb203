"""The sinks of files and the terminal, as SAGE programs import them."""

from sage._io import FileSink, MemWriteSink, PrintSink, RetriveSink, TerminalSink

__all__ = ["FileSink", "MemWriteSink", "PrintSink", "RetriveSink", "TerminalSink"]
