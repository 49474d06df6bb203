"""One of the names SAGE programs import."""

from sage._functions import Packet, StopSignal

__all__ = ["Packet", "StopSignal"]
