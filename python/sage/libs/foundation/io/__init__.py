"""The sources and sinks of files, sockets and the terminal, as SAGE programs import them."""

from sage._functions import KafkaSourceFunction as KafkaSource
from sage._io import FileSink, FileSource, MemWriteSink, PrintSink, RetriveSink, TerminalSink
from sage._sockets import SocketSource

__all__ = [
    "FileSink",
    "FileSource",
    "KafkaSource",
    "MemWriteSink",
    "PrintSink",
    "RetriveSink",
    "SocketSource",
    "TerminalSink",
]
