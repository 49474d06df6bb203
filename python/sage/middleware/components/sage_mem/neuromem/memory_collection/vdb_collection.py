"""The collection of vectors, as SAGE programs import it."""

from sage._memory_vdb import VDBMemoryCollection

__all__ = ["VDBMemoryCollection"]
