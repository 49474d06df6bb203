"""The streams, as SAGE programs import them."""

from sage._connected import ConnectedStreams
from sage._stream import DataStream

__all__ = ["ConnectedStreams", "DataStream"]
