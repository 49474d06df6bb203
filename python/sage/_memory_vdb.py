"""``VDBMemoryCollection``: texts that are found by vectors, in one or several indexes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _memory_folder as folders
from ._arguments import said, whole
from ._embedding import EmbeddingModel
from ._memory_collection import BaseMemoryCollection, shown
from ._memory_items import MOST_RESULTS, Item, Meets, checked_text, in_groups, meets
from ._memory_statistics import Statistics
from ._memory_vectors import checked_vector, model_of, read_insert
from ._sage import Hit, OtherCollection, Record, VectorStore, field

#: How many texts are embedded and put into an index at once.
_AT_ONCE = 256
#: How many of the nearest are looked at first where a filter leaves some out.
_FIRST = 64

#: What programs see of an index's configuration.
_SHOWN = ("embedding_model_name", "dim", "backend_type", "description", "config")


class VDBMemoryCollection(BaseMemoryCollection):
    """Texts with metadata that are found by vectors. Each index has vectors of its own, of a model that SAGE programs
    name, as of ``EmbeddingModel``, or made by the program.

    >>> from sage.middleware.components.sage_mem import VDBMemoryCollection
    >>> collection = VDBMemoryCollection({"name": "notes"})
    >>> collection.create_index({"name": "words", "embedding_model": "default", "dim": 384})
    True
    >>> id = collection.insert("words", "Services stop last.", {"topic": "stopping"})
    >>> collection.retrieve("When do services stop?", "words", threshold=0.3)
    ['Services stop last.']

    Vectors compare by their cosine. ``insert`` and ``retrieve`` take the arguments of both of SAGE's forms: with a
    text, which the model of the index embeds, or with a vector. What would be wrong is raised: an index that is not
    there, a vector of another length.
    """

    kind = "vdb"

    def __init__(self, config: str | Mapping[str, Any]) -> None:
        super().__init__(config)
        self._models: dict[str, EmbeddingModel] = {}
        self._statistics = Statistics()

    @property
    def index_info(self) -> dict[str, dict[str, Any]]:
        """What each index was made with: ``embedding_model_name``, ``dim``, ``backend_type``, ``description`` and
        ``config``."""
        with self._lock:
            return {name: {key: says[key] for key in _SHOWN} for name, says in self._indexes.items()}

    def create_index(self, config: Mapping[str, Any]) -> bool | None:
        """Makes an index with the ``name``, the ``embedding_model``, the number ``dim`` of a vector's coordinates, 1 to
        65,536, and the ``description`` of the configuration. ``None``, with a warning, if the name is taken."""
        if not isinstance(config, Mapping) or not isinstance(name := config.get("name"), str) or not name:
            raise ValueError(f"an index needs its `name`, a text that is not empty: {said(config)}")
        model, dimensions = config.get("embedding_model"), config.get("dim")
        if model is not None and not isinstance(model, str):
            raise TypeError(f"`embedding_model` is the name of a model, not {said(model)}")
        if dimensions is None and model is None:
            raise ValueError(f"index {name!r} needs an `embedding_model` or the `dim` of its vectors")
        with self._lock:
            if name in self._indexes:
                self.logger.warning("collection %r has an index %r already", self.name, name)
                return None
            says = {
                "file": self._new_number(),
                "embedding_model_name": model,
                "dim": dimensions if dimensions is not None else model_of(str(model), None).dimensions,
                "backend_type": str(config.get("backend_type") or "FAISS"),
                "description": str(config.get("description", "")),
                "config": config.get("index_parameter") or {},
                "embedder": None,
                "created_time": time.time(),
                "last_rebuild_time": None,
            }
            whole("`dim`", says["dim"], 1, 65_536)
            self._add_index(name, says, self._index_store(says, self._folder, must_exist=False))
            self._statistics.indexes_made += 1
        return True

    def delete_index(self, index_name: str) -> None:
        """Removes an index; the texts stay."""
        with self._lock:
            self._drop_index(index_name)

    def list_index(self, *index_names: str) -> list[dict[str, str]]:
        """The names and descriptions of these indexes, or of all."""
        with self._lock:
            names = index_names or tuple(self._indexes)
            return [{"name": name, "description": self._index(name)["description"]} for name in names]

    def batch_insert_data(
        self, data: Sequence[str], metadatas: Sequence[Mapping[str, Any] | None] | None = None
    ) -> list[str]:
        """Keeps texts with their metadata, without putting them into an index; gives their ids."""
        if isinstance(data, str):
            raise TypeError(f"`data` is a list of texts, not {said(data)}")
        if metadatas is not None and len(metadatas) != len(data):
            raise ValueError(f"there are {len(data)} texts, and metadata for {len(metadatas)}")
        return self._insert_all(zip(data, metadatas if metadatas is not None else [None] * len(data)))

    def init_index(
        self,
        index_name: str,
        metadata_filter_func: Any = None,
        item_ids: Sequence[str] | None = None,
        *,
        vectors: Sequence[Any] | None = None,
        **metadata_conditions: Any,
    ) -> int:
        """Puts texts that are kept into an index, and says how many: ``init_index(name, vectors, ids)`` with vectors of
        the program's, or those that are not in it yet, embedded by the model of the index, if a function says yes to
        their metadata and it has these values."""
        if item_ids is None and vectors is None:
            wanted = meets(metadata_filter_func, metadata_conditions)
            return self._embed_missing(index_name, wanted)
        if item_ids is None:
            raise TypeError("`init_index` needs the ids of the vectors")
        given, ids = list(metadata_filter_func if vectors is None else vectors), list(item_ids)
        if len(given) != len(ids):
            raise ValueError(f"there are {len(given)} vectors for {len(ids)} ids")
        with self._lock:
            self._index(index_name)
            if unknown := [id for id in ids if id not in self._items]:
                raise ValueError(f"collection {self.name!r} has no item {said(unknown[0])}")
            self._put(index_name, dict(zip(ids, given)))
        return len(ids)

    def update_index(
        self,
        index_name: str,
        metadata_filter_func: Any = None,
        item_ids: Sequence[str] | None = None,
        *,
        vectors: Sequence[Any] | None = None,
        **metadata_conditions: Any,
    ) -> int:
        """Empties an index and fills it as ``init_index`` does."""
        with self._lock:
            old, number = self._index(index_name), self._new_number()
            says = {**old, "file": number, "embedder": None, "last_rebuild_time": time.time()}
            emptied = self._stores[index_name]
            self._add_index(index_name, says, self._index_store(says, self._folder, must_exist=False))
            self._end_store(emptied, old)
            self._statistics.indexes_rebuilt += 1
        return self.init_index(index_name, metadata_filter_func, item_ids, vectors=vectors, **metadata_conditions)

    def insert(
        self,
        *given: Any,
        index_name: str | None = None,
        raw_data: str | None = None,
        vector: Any = None,
        metadata: Mapping[str, Any] | None = None,
        content: str | None = None,
        index_names: str | Sequence[str] | None = None,
    ) -> str:
        """Keeps a text with metadata, puts it into an index, and gives its id.

        It takes ``insert(index, text, metadata)``, where the model of the index makes the vector; ``insert(index, text,
        vector, metadata)``; and SAGE's later ``insert(content=text, index_names=indexes, vector=vector,
        metadata=metadata)``, whose ``index_names`` may be several, or none.
        """
        text, names = content if raw_data is None else raw_data, index_names if index_name is None else index_name
        text, wanted, vector, metadata = read_insert(given, self._indexes, text, names, vector, metadata)
        return self._insert_with(wanted, text, vector, metadata)

    def _insert_with(self, names: list[str], text: str, vector: Any, metadata: Any) -> str:
        vectors = {}
        for name in names:
            says = self._index(name)
            given = self._embedded(name, [text])[0] if vector is None else vector
            vectors[name] = checked_vector(given, says["dim"], name)
        with self._lock:
            (id,) = self._insert_all([(text, metadata)])
            for name, given in vectors.items():
                self._put(name, {id: given})
            self._statistics.inserted += 1
        return id

    def insert_many(
        self, index_name: str, texts: Sequence[str], vectors: Sequence[Any], metadatas: Sequence[Any] | None = None
    ) -> list[str]:
        """Keeps texts with vectors of the program's, in one write each to the texts and to the index; their ids."""
        if len(texts) != len(vectors):
            raise ValueError(f"there are {len(vectors)} vectors for {len(texts)} texts")
        dimensions = self._index(index_name)["dim"]
        checked = [checked_vector(vector, dimensions, index_name) for vector in vectors]
        with self._lock:
            ids = self.batch_insert_data(texts, metadatas)
            self._put(index_name, dict(zip(ids, checked)))
            self._statistics.inserted += len(ids)
        return ids

    def retrieve(  # type: ignore[override]
        self,
        query: Any = None,
        index_name: str | None = None,
        topk: int | None = None,
        threshold: float | None = None,
        with_metadata: bool = False,
        metadata_filter_func: Any = None,
        *,
        raw_data: str | None = None,
        query_vector: Any = None,
        top_k: int | None = None,
        metadata_filter: Any = None,
        filter: Any = None,
        **metadata_conditions: Any,
    ) -> list[Any]:
        """The texts of an index that are nearest to a text or to a vector, nearest first: at most ``topk`` (5), 1 to
        16,384, with a cosine of at least ``threshold`` (0.7), whose metadata a filter, a function or a mapping of
        values, says yes to and has these values. With ``with_metadata`` mappings with ``text``, ``metadata``, ``id``
        and ``score``."""
        for other in (raw_data, query_vector):
            query = other if query is None else query
        if query is None:
            raise TypeError("`retrieve` needs a text or a vector")
        asked = top_k if topk is None else topk
        most = whole("`topk`", 5 if asked is None else asked, 1, MOST_RESULTS)
        least = 0.7 if threshold is None else float(threshold)
        if math.isnan(least):
            raise ValueError("`threshold` is a number, not nan")
        for other in (metadata_filter, filter):
            metadata_filter_func = other if metadata_filter_func is None else metadata_filter_func
        wanted = meets(metadata_filter_func, metadata_conditions, "metadata_filter")
        if index_name is None and len(self._indexes) == 1:
            (index_name,) = self._indexes
        says, began = self._index(index_name), time.perf_counter()
        vector = self._embedded(str(index_name), [query])[0] if isinstance(query, str) else query
        vector = checked_vector(vector, says["dim"], str(index_name))
        with self._lock:
            found = self._nearest(str(index_name), vector, most, least, wanted) if any(vector) else []
            self._statistics.retrieved(str(index_name), len(found), most, time.perf_counter() - began)
        return [shown(hit.id, item, hit.score) if with_metadata else item.text for hit, item in found]

    def _nearest(
        self, name: str, vector: list[float], most: int, least: float, wanted: Meets | None
    ) -> list[tuple[Hit, Item]]:
        store = self._stores[name]

        def of(hits: list[Hit]) -> list[tuple[Hit, Item]]:
            pairs = zip(hits, self._items.get_many(hit.id for hit in hits))
            there = [(hit, item) for hit, item in pairs if item is not None]
            return [(hit, item) for hit, item in there if wanted is None or wanted(item.metadata)][:most]

        first = most if wanted is None else min(MOST_RESULTS, max(_FIRST, 8 * most))
        hits = store.search(vector, first, min_score=least)
        found = of(hits)
        if wanted is None or len(found) == most or len(hits) < first:
            return found
        # Few of the nearest pass the filter: only those that do are compared.
        places = [self._items.place(id) for id, item in self._items.all() if wanted(item.metadata)]
        return of(store.search(vector, most, min_score=least, filter=field("at").is_in(places))) if places else []

    def update(
        self,
        index_name: str,
        old_data: str,
        new_data: str,
        *given: Any,
        new_metadata: Mapping[str, Any] | None = None,
        new_vector: Any = None,
    ) -> str:
        """Replaces a text, or the item with this id, by another one in an index, and gives its id. Metadata and vector
        may follow in either order; without metadata the new text keeps that of the old one."""
        for each in given:
            if isinstance(each, Mapping):
                new_metadata = each
            elif each is not None:
                new_vector = each
        with self._lock:
            self._index(index_name)
            old = self._meant(old_data)
            if not old:
                raise ValueError(f"collection {self.name!r} has no text {said(old_data)}")
            item = self._items.get(old[0])
            if new_metadata is None and item is not None:
                new_metadata = item.metadata
            id = self._insert_with([index_name], checked_text(new_data), new_vector, new_metadata)
            self._remove(other for other in old if other != id)
        return id

    def get_statistics(self) -> dict[str, Any]:
        """What it has done since it was opened: ``insert_count``, ``retrieve_count``, ``index_create_count``,
        ``index_rebuild_count`` and ``retrieve_stats``, of the last 1,000; and what it has: ``total_vectors_stored`` and
        ``index_stats``."""
        with self._lock:
            return self._statistics.all(self._index_stats())

    def get_memory_stats(self) -> dict[str, Any]:
        """The ``total_vectors``, an estimate of what they take, ``estimated_memory_mb``, and of each index."""
        with self._lock:
            return self._statistics.memory(self._index_stats())

    def get_retrieve_stats(self, last_n: int | None = None) -> dict[str, Any]:
        """How often texts were retrieved since it was opened, how long it took on average in seconds, and the last of
        these, at most 1,000."""
        with self._lock:
            return self._statistics.retrievals(last_n)

    def get_index_rebuild_stats(self) -> dict[str, Any]:
        """How often indexes were emptied and filled since it was opened, and when each was last."""
        with self._lock:
            return {"total_rebuild_count": self._statistics.indexes_rebuilt, "index_details": self._index_stats()}

    def reset_statistics(self) -> None:
        """Counts from 0 again."""
        with self._lock:
            self._statistics = Statistics()

    def close(self) -> None:
        """Lets go of its files and of the connections of its models."""
        super().close()
        with self._lock:
            models, self._models = self._models, {}
        for model in models.values():
            model.close()

    def _index_stats(self) -> dict[str, dict[str, Any]]:
        return {
            name: {
                "vector_count": self._stores[name].count(),
                "dim": says["dim"],
                "created_time": says["created_time"],
                "last_rebuild_time": says["last_rebuild_time"],
            }
            for name, says in self._indexes.items()
        }

    def _index_store(self, says: Mapping[str, Any], folder: Path | None, must_exist: bool) -> VectorStore:
        path = None if folder is None else folders.index_file(folder, says["file"])
        if path is not None and not must_exist:
            folders.remove_index(path)  # of one that was not made to its end
        return VectorStore(says["dim"], path=path, name="vectors", metric="cosine", must_exist=must_exist)

    def _put(self, name: str, vectors: Mapping[str, Any]) -> None:
        """Puts items into an index. Those whose vector is zero, such as of a text without words, cannot be found."""
        dimensions, store = self._index(name)["dim"], self._stores[name]
        made = {id: checked_vector(vector, dimensions, name) for id, vector in vectors.items()}
        for ids in in_groups((id for id, vector in made.items() if any(vector)), _AT_ONCE * 16):
            store.upsert_batch([Record(id, made[id], "", {"at": self._items.place(id)}) for id in ids])
        if zero := [id for id, vector in made.items() if not any(vector)]:
            store.delete(zero)
            self.logger.warning(
                "of %d texts, %d have a zero vector: index %r cannot find them", len(made), len(zero), name
            )

    def _embed_missing(self, name: str, wanted: Meets | None) -> int:
        with self._lock:
            self._index(name)
            there = [(id, item.text) for id, item in self._items.all() if wanted is None or wanted(item.metadata)]
            records = self._stores[name].get_many([id for id, _ in there])
            missing = [pair for pair, record in zip(there, records) if record is None]
        for at in range(0, len(missing), _AT_ONCE):
            some = missing[at : at + _AT_ONCE]
            vectors = self._embedded(name, [text for _, text in some])
            with self._lock:
                pairs = zip(some, vectors)
                self._put(name, {id: vector for (id, _), vector in pairs if id in self._items})
        return len(missing)

    def _embedded(self, name: str, texts: list[str]) -> list[list[float]]:
        """The vectors that the model of an index makes of texts."""
        says = self._index(name)
        model = says["embedding_model_name"]
        if model is None:
            raise ValueError(f"index {name!r} has no `embedding_model`: give a vector")
        with self._lock:
            key = f"{model}/{says['dim']}"
            made = self._models.get(key)
            if made is None:
                self._models[key] = made = model_of(model, says["dim"])
            if says["embedder"] is None:
                self._write({**self._indexes, name: {**says, "embedder": made.id}})
                says["embedder"] = made.id
            elif says["embedder"] != made.id:
                what = f"index {name!r} has vectors of {says['embedder']}, and its model is {made.id} now"
                raise OtherCollection(f"{what}: `update_index` makes them anew")
        return made.embed_batch(texts)

    def _edit(self, id: str, text: str | None = None, metadata: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            before = self._items.get(id)
            super()._edit(id, text, metadata)
            if text is None or before is None or before.text == text:
                return
            # A vector of another text is wrong.
            for name, store in self._stores.items():
                if store.get(id) is not None:
                    store.delete(id)
                    if self._indexes[name]["embedder"] is not None:
                        self._put(name, {id: self._embedded(name, [text])[0]})
