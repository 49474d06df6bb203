"""``GraphMemoryCollection``: texts with ways from one to another.

An index is a graph over the texts of the collection: its nodes and edges are in memory and in a store. Whoever goes
through the graph reads only memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import _memory_folder as folders
from ._arguments import said, whole
from ._memory_collection import BaseMemoryCollection, shown
from ._memory_items import Item, checked_metadata, checked_text, meets, pages
from ._sage import VectorStore

#: The most nodes that a search in a graph gives.
_MOST_NODES = 1_000_000


class SimpleGraphIndex:
    """Nodes with texts, and edges with weights from one to another.

    >>> from sage.middleware.components.sage_mem import SimpleGraphIndex
    >>> graph = SimpleGraphIndex("stops")
    >>> for node in ("tasks", "services"):
    ...     graph.add_node(node, f"{node} stop")
    >>> graph.add_edge("tasks", "services", 0.5)
    >>> graph.get_neighbors("tasks"), graph.get_neighbors("services", direction="incoming")
    ([('services', 0.5)], [('tasks', 0.5)])
    """

    def __init__(self, name: str, store: VectorStore | None = None) -> None:
        self.name = name
        # A store has vectors; these mean nothing.
        self._store = _graph_store(None, must_exist=False) if store is None else store
        self.nodes: dict[str, str] = {}
        self.adjacency: dict[str, dict[str, float]] = {}
        self._incoming: dict[str, dict[str, float]] = {}
        self._next = 0
        edges = []
        for page in pages(self._store):
            for hit in page:
                says = json.loads(hit.text)
                self._next = hit.metadata["at"] + 1
                if len(says) == 2:
                    self._have_node(*says)
                else:
                    edges.append(says)
        for from_node, to_node, weight in edges:
            self._have_edge(from_node, to_node, weight)

    def __repr__(self) -> str:
        return f"SimpleGraphIndex({self.name!r})"

    def add_node(self, node_id: str, data: str = "") -> None:
        """Adds a node, or changes its text."""
        if not isinstance(node_id, str) or not node_id:
            raise ValueError(f"a node has an id, a text that is not empty, not {said(node_id)}")
        self._keep([node_id, checked_text(data)])
        self._have_node(node_id, data)

    def add_edge(self, from_node: str, to_node: str, weight: float = 1.0) -> None:
        """Adds an edge between two nodes, or changes its weight, a finite number."""
        for node in (from_node, to_node):
            self._check(node)
        weight = float(weight)
        if not math.isfinite(weight):
            raise ValueError(f"the weight of an edge is a finite number, not {weight}")
        self._keep([from_node, to_node, weight])
        self._have_edge(from_node, to_node, weight)

    def remove_node(self, node_id: str) -> None:
        """Removes a node with its edges; nothing happens if it is not there."""
        if node_id not in self.nodes:
            return
        edges = [(node_id, other) for other in self.adjacency[node_id]]
        edges += [(other, node_id) for other in self._incoming[node_id]]
        # A node without its edges is a graph, if the process is killed; edges without a node are none.
        self._store.delete([_id(*edge) for edge in edges])
        self._store.delete(_id(node_id))
        for from_node, to_node in edges:
            self._forget_edge(from_node, to_node)
        for each in (self.nodes, self.adjacency, self._incoming):
            each.pop(node_id, None)

    def remove_edge(self, from_node: str, to_node: str) -> None:
        """Removes an edge; nothing happens if it is not there."""
        if to_node in self.adjacency.get(from_node, {}):
            self._store.delete(_id(from_node, to_node))
            self._forget_edge(from_node, to_node)

    def has_node(self, node_id: str) -> bool:
        """Whether there is such a node."""
        return node_id in self.nodes

    def get_node_data(self, node_id: str) -> str | None:
        """The text of a node; ``None`` if it is not there."""
        return self.nodes.get(node_id)

    def get_neighbors(self, node_id: str, k: int = 10, direction: str = "outgoing") -> list[tuple[str, float]]:
        """The nodes at the other ends of the edges from a node, or of those to it, ``"incoming"``, or of ``"both"``,
        with the edges' weights, heaviest first: at most ``k``, from 1 on. A node that is not there has none."""
        k = whole("`k`", k)
        sides = {"outgoing": [self.adjacency], "incoming": [self._incoming], "both": [self.adjacency, self._incoming]}
        if direction not in sides:
            raise ValueError(f"`direction` is outgoing, incoming or both, not {said(direction)}")
        found: dict[str, float] = {}
        for side in sides[direction]:
            for node, weight in side.get(node_id, {}).items():
                found[node] = max(weight, found.get(node, -math.inf))
        return sorted(found.items(), key=lambda pair: -pair[1])[:k]

    def reached_from(self, start_node: str, max_depth: int, max_nodes: int) -> list[tuple[str, int]]:
        """The nodes that are reached from a node, which is the first of them, with the number of edges on the way: by
        this number, heavier edges first."""
        whole("`max_depth`", max_depth, 0), whole("`max_nodes`", max_nodes, 1, _MOST_NODES)
        if start_node not in self.nodes:
            return []
        depths, rest = {start_node: 0}, deque([start_node])
        while rest and len(depths) < max_nodes:
            node = rest.popleft()
            if depths[node] == max_depth:
                continue
            for other, _ in sorted(self.adjacency[node].items(), key=lambda pair: -pair[1]):
                if other not in depths and len(depths) < max_nodes:
                    depths[other] = depths[node] + 1
                    rest.append(other)
        return list(depths.items())

    def _check(self, node: str) -> None:
        if node not in self.nodes:
            raise ValueError(f"graph {self.name!r} has no node {said(node)}")

    def _keep(self, says: list[Any]) -> None:
        ends = says[:1] if len(says) == 2 else says[:2]
        self._store.upsert(_id(*ends), [0.0], json.dumps(says, ensure_ascii=False), {"at": self._next})
        self._next += 1

    def _have_node(self, node: str, data: str) -> None:
        self.nodes[node] = data
        self.adjacency.setdefault(node, {})
        self._incoming.setdefault(node, {})

    def _have_edge(self, from_node: str, to_node: str, weight: float) -> None:
        if from_node in self.nodes and to_node in self.nodes:
            self.adjacency[from_node][to_node] = weight
            self._incoming[to_node][from_node] = weight

    def _forget_edge(self, from_node: str, to_node: str) -> None:
        self.adjacency[from_node].pop(to_node, None)
        self._incoming[to_node].pop(from_node, None)


def _id(*ends: str) -> str:
    """The id of a node, or of the edge between two."""
    return hashlib.sha256(json.dumps(ends).encode()).hexdigest()


def _graph_store(path: Path | None, must_exist: bool) -> VectorStore:
    return VectorStore(1, path=path, name="graph", metric="euclidean", must_exist=must_exist)


class GraphMemoryCollection(BaseMemoryCollection):
    """Texts with metadata, and graphs over them: an index is a graph. Where no index is named, the first one is meant.

    >>> from sage.middleware.components.sage_mem import GraphMemoryCollection
    >>> collection = GraphMemoryCollection({"name": "stops"})
    >>> collection.create_index({"name": "order"})
    True
    >>> for node in ("source", "task", "service"):
    ...     id = collection.add_node(node, f"A {node} stops.")
    >>> collection.add_edge("source", "task")
    >>> collection.add_edge("task", "service")
    >>> [(each["node_id"], each["depth"]) for each in collection.retrieve_by_graph("source")]
    [('source', 0), ('task', 1), ('service', 2)]
    """

    kind = "graph"
    _has_words = True

    def __init__(self, config: str | Mapping[str, Any]) -> None:
        super().__init__(config)
        self.indexes: dict[str, SimpleGraphIndex] = {}

    def create_index(self, config: Mapping[str, Any]) -> bool:
        """Makes an index with the ``name`` and the ``description`` of the configuration. False, with a warning, if the
        name is taken."""
        if not isinstance(config, Mapping) or not isinstance(name := config.get("name"), str) or not name:
            raise ValueError(f"an index needs its `name`, a text that is not empty: {said(config)}")
        with self._lock:
            if name in self._indexes:
                self.logger.warning("collection %r has an index %r already", self.name, name)
                return False
            says = {"file": self._new_number(), "description": str(config.get("description", ""))}
            store = self._index_store(says, self._folder, must_exist=False)
            self._add_index(name, says, store)
            self.indexes[name] = SimpleGraphIndex(name, store)
        return True

    def delete_index(self, index_name: str) -> None:
        """Removes an index; the texts stay."""
        with self._lock:
            self._drop_index(index_name)
            del self.indexes[index_name]

    def list_index(self) -> list[dict[str, str]]:
        """The names and descriptions of all indexes."""
        with self._lock:
            return [{"name": name, "description": says["description"]} for name, says in self._indexes.items()]

    def add_node(
        self, node_id: str, text: str, metadata: Mapping[str, Any] | None = None, index_name: str | None = None
    ) -> str:
        """Keeps a text with metadata by the id of a node, adds the node, and gives its id."""
        with self._lock:
            graph = self._graph(index_name)
            item = Item(checked_text(text), checked_metadata(metadata))
            graph.add_node(node_id, text)
            self._items.put({node_id: item})
        return node_id

    def add_edge(self, from_node: str, to_node: str, weight: float = 1.0, index_name: str | None = None) -> None:
        """Adds an edge between two nodes, or changes its weight."""
        with self._lock:
            self._graph(index_name).add_edge(from_node, to_node, weight)

    def get_neighbors(
        self, node_id: str, k: int = 10, index_name: str | None = None, direction: str = "outgoing"
    ) -> list[dict[str, Any]]:
        """The nodes at the other ends of a node's edges, heaviest first, as mappings with ``node_id``, ``data``, which
        is the text, ``weight`` and ``metadata``."""
        with self._lock:
            graph = self._graph(index_name)
            pairs = graph.get_neighbors(node_id, k, direction)
            return [{**self._node(graph, node), "weight": weight} for node, weight in pairs]

    def retrieve_by_graph(
        self, start_node: str, max_depth: int = 2, max_nodes: int = 10, index_name: str | None = None
    ) -> list[dict[str, Any]]:
        """The nodes that are reached from a node by at most so many edges, nearest first, with the node itself, as
        mappings with ``node_id``, ``data``, ``depth`` and ``metadata``; at most ``max_nodes``, 1 to 1,000,000."""
        with self._lock:
            graph = self._graph(index_name)
            reached = graph.reached_from(start_node, max_depth, max_nodes)
            return [{**self._node(graph, node), "depth": depth} for node, depth in reached]

    def retrieve(  # type: ignore[override]
        self,
        query: str | None = None,
        start_node: str | None = None,
        index_name: str | None = None,
        max_depth: int = 2,
        max_nodes: int = 10,
        with_metadata: bool = False,
        metadata_filter_func: Any = None,
        **metadata_conditions: Any,
    ) -> list[Any]:
        """The texts that are reached from a node, or from the one whose words are most like those of a text; without
        both, all texts. Their metadata is one that a function says yes to, and that has these values. With
        ``with_metadata`` mappings with ``text``, ``metadata`` and ``id``, and with ``depth`` if they were reached."""
        if query is None and start_node is None:
            return super().retrieve(with_metadata, metadata_filter_func, **metadata_conditions)
        wanted = meets(metadata_filter_func, metadata_conditions)
        with self._lock:
            graph = self._graph(index_name)
            if start_node is None:
                hits = self._items.best_words(checked_text(query), 10, None)
                start_node = next((hit.id for hit in hits if graph.has_node(hit.id)), "")
            found = []
            for node, depth in graph.reached_from(start_node, max_depth, max_nodes):
                item = self._items.get(node) or Item(graph.nodes[node], {})
                if wanted is None or wanted(item.metadata):
                    found.append({**shown(node, item), "depth": depth} if with_metadata else item.text)
        return found

    def store(self, store_path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """As of every collection."""
        # Whoever has an index may have changed it.
        self._has_old = True
        return super().store(store_path)

    def _graph(self, name: str | None) -> SimpleGraphIndex:
        if name is None and self.indexes:
            return next(iter(self.indexes.values()))
        self._index(name)
        return self.indexes[str(name)]

    def _node(self, graph: SimpleGraphIndex, node: str) -> dict[str, Any]:
        item = self._items.get(node)
        return {"node_id": node, "data": graph.nodes[node], "metadata": {} if item is None else item.metadata}

    def _remove(self, ids: Any) -> int:
        ids = list(ids)
        for graph in self.indexes.values():
            for id in ids:
                graph.remove_node(id)
        self._has_old = True
        return self._items.remove(ids)

    def _edit(self, id: str, text: str | None = None, metadata: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            super()._edit(id, text, metadata)
            for graph in self.indexes.values():
                if text is not None and graph.has_node(id):
                    graph.add_node(id, text)

    def _index_store(self, says: Mapping[str, Any], folder: Path | None, must_exist: bool) -> VectorStore:
        path = None if folder is None else folders.index_file(folder, says["file"])
        if path is not None and not must_exist:
            folders.remove_index(path)  # of one that was not made to its end
        return _graph_store(path, must_exist)

    def _read(self, folder: Path, is_new: bool) -> None:
        super()._read(folder, is_new)
        self.indexes = {name: SimpleGraphIndex(name, store) for name, store in self._stores.items()}
