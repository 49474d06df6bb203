"""The collection of words, as SAGE programs import it."""

from sage._memory_kv import KVMemoryCollection

__all__ = ["KVMemoryCollection"]
