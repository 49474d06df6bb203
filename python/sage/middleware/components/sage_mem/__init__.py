"""The memory, as SAGE programs import it."""

from sage._memory_collection import BaseMemoryCollection
from sage._memory_graph import GraphMemoryCollection, SimpleGraphIndex
from sage._memory_kv import KVMemoryCollection
from sage._memory_manager import MemoryManager
from sage._memory_vdb import VDBMemoryCollection

__all__ = [
    "BaseMemoryCollection",
    "GraphMemoryCollection",
    "KVMemoryCollection",
    "MemoryManager",
    "SimpleGraphIndex",
    "VDBMemoryCollection",
]
