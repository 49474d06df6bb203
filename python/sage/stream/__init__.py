"""The streams, as SAGE programs import them."""

from sage._stream import DataStream

__all__ = ["DataStream"]
