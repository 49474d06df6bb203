"""One of the names SAGE programs import."""

from sage._packet import Packet

__all__ = ["Packet"]
