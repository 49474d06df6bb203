"""One of the names SAGE programs import."""

from sage._packet import StopSignal

__all__ = ["StopSignal"]
