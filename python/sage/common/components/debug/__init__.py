"""One of the names SAGE programs import."""

from sage._io import PrintSink

__all__ = ["PrintSink"]
