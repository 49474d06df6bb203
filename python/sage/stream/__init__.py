"""The streams, as SAGE programs import them."""

from sage._stream import ConnectedStreams, DataStream

__all__ = ["ConnectedStreams", "DataStream"]
