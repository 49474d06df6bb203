"""Names that SAGE programs import."""

from sage._packet import Packet, StopSignal

__all__ = ["Packet", "StopSignal"]
