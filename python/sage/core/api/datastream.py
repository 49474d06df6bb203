"""One of the names SAGE programs import."""

from sage._stream import DataStream

__all__ = ["DataStream"]
