"""One of the names SAGE programs import."""

from sage._packet import Packet, StopSignal

__all__ = ["Packet", "StopSignal"]
