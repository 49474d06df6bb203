"""What collections have in common, as SAGE programs import it."""

from sage._memory_collection import BaseMemoryCollection

__all__ = ["BaseMemoryCollection"]
