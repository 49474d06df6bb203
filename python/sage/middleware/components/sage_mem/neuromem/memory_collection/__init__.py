"""The collections, as SAGE programs import them."""

from sage._memory_collection import BaseMemoryCollection
from sage._memory_graph import GraphMemoryCollection, SimpleGraphIndex
from sage._memory_kv import KVMemoryCollection
from sage._memory_vdb import VDBMemoryCollection

__all__ = [
    "BaseMemoryCollection",
    "GraphMemoryCollection",
    "KVMemoryCollection",
    "SimpleGraphIndex",
    "VDBMemoryCollection",
]
