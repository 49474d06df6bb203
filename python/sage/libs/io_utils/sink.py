"""The sinks of files and the terminal, as SAGE programs import them."""

from sage._io import FileSink, PrintSink, TerminalSink

__all__ = ["FileSink", "PrintSink", "TerminalSink"]
