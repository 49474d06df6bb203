"""One of the names SAGE programs import."""

from sage._connected import ConnectedStreams

__all__ = ["ConnectedStreams"]
