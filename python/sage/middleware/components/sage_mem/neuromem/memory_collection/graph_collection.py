"""The collection of graphs, as SAGE programs import it."""

from sage._memory_graph import GraphMemoryCollection, SimpleGraphIndex

__all__ = ["GraphMemoryCollection", "SimpleGraphIndex"]
