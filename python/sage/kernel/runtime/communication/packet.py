"""One of the names SAGE programs import."""

from sage._functions import StopSignal

__all__ = ["StopSignal"]
