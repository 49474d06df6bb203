"""The manager of collections, as SAGE programs import it."""

from sage._memory_manager import MemoryManager

__all__ = ["MemoryManager"]
