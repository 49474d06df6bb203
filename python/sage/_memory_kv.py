"""``KVMemoryCollection``: texts that are found by their words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._arguments import said, whole
from ._memory_collection import BaseMemoryCollection, shown
from ._memory_items import MOST_RESULTS, Item, checked_text, meets

#: How many of the best are looked at first where a filter leaves some out.
_FIRST = 64


class KVMemoryCollection(BaseMemoryCollection):
    """Texts with metadata that are found by their words, which weigh by BM25. An index has the texts that it was made
    over, and those that were put into it later.

    >>> from sage.middleware.components.sage_mem import KVMemoryCollection
    >>> collection = KVMemoryCollection({"name": "notes"})
    >>> ids = [collection.insert("Tea is hot."), collection.insert("Services stop last.", {"topic": "stopping"})]
    >>> collection.create_index({"name": "words"})
    1
    >>> collection.retrieve("hot tea", index_name="words")
    ['Tea is hot.']
    """

    kind = "kv"
    _has_words = True

    def __init__(self, config: str | Mapping[str, Any]) -> None:
        super().__init__(config)
        settings = config if isinstance(config, Mapping) else {}
        self.default_topk = whole("`default_topk`", settings.get("default_topk", 5), 1, MOST_RESULTS)
        self.default_index_type = str(settings.get("default_index_type", "bm25s"))

    @property
    def indexes(self) -> dict[str, dict[str, Any]]:
        """What each index was made with: ``index_type`` and ``description``."""
        with self._lock:
            return {name: dict(says) for name, says in self._indexes.items()}

    def create_index(
        self, config: Mapping[str, Any], metadata_filter_func: Any = None, **metadata_conditions: Any
    ) -> int:
        """Makes an index with the ``name`` and the ``description`` of the configuration, over the texts whose metadata
        a function says yes to and has these values. 1; or 0, with a warning, if the name is taken."""
        if not isinstance(config, Mapping) or not isinstance(name := config.get("name"), str) or not name:
            raise ValueError(f"an index needs its `name`, a text that is not empty: {said(config)}")
        wanted = meets(metadata_filter_func, metadata_conditions)
        kind = str(config.get("index_type", self.default_index_type))
        if not kind.lower().startswith("bm25"):
            raise ValueError(f"the `index_type` of {name!r} is bm25s, not {said(kind)}")
        with self._lock:
            if name in self._indexes:
                self.logger.warning("collection %r has an index %r already", self.name, name)
                return 0
            # Texts of an index of this name that is gone are in none.
            self._regroup(name, lambda item: wanted is None or wanted(item.metadata))
            self._add_index(name, {"index_type": kind, "description": str(config.get("description", ""))}, None)
        return 1

    def delete_index(self, index_name: str) -> None:
        """Removes an index; the texts stay."""
        with self._lock:
            self._drop_index(index_name)

    def rebuild_index(self, index_name: str) -> bool:
        """Does nothing but say that there is such an index: an index has always what its texts are."""
        with self._lock:
            self._index(index_name)
        return True

    def list_index(self) -> list[dict[str, str]]:
        """The names and descriptions of all indexes."""
        with self._lock:
            return [{"name": name, "description": says["description"]} for name, says in self._indexes.items()]

    def insert(self, raw_text: str, metadata: Mapping[str, Any] | None = None, *index_names: str) -> str:
        """Keeps a text with metadata, puts it into indexes, and gives its id."""
        with self._lock:
            for name in index_names:
                self._index(name)
            id, item = self._items.id_for(checked_text(raw_text), metadata, {})
            self._items.put({id: item._replace(groups=tuple(dict.fromkeys([*item.groups, *index_names])))})
        return id

    def update(
        self, former_text: str, new_text: str, new_metadata: Mapping[str, Any] | None = None, *index_names: str
    ) -> str:
        """Replaces a text, or the item with this id, by another one in indexes, and gives its id. Without metadata the
        new text keeps that of the old one, without indexes it is in those of the old one."""
        with self._lock:
            old = self._meant(former_text)
            if not old or (item := self._items.get(old[0])) is None:
                raise ValueError(f"collection {self.name!r} has no text {said(former_text)}")
            metadata = item.metadata if new_metadata is None else new_metadata
            id = self.insert(
                new_text, metadata, *(index_names or [name for name in item.groups if name in self._indexes])
            )
            self._remove(other for other in old if other != id)
        return id

    def retrieve(  # type: ignore[override]
        self,
        raw_text: str,
        topk: int | None = None,
        with_metadata: bool = False,
        index_name: str | None = None,
        metadata_filter_func: Any = None,
        **metadata_conditions: Any,
    ) -> list[Any]:
        """The texts of an index whose words are most like those of a text, best first: at most ``topk``, 1 to 16,384,
        whose metadata a function says yes to and has these values. With ``with_metadata`` mappings with ``text``,
        ``metadata``, ``id`` and ``score``."""
        most = whole("`topk`", self.default_topk if topk is None else topk, 1, MOST_RESULTS)
        wanted = meets(metadata_filter_func, metadata_conditions)
        with self._lock:
            self._index(index_name)
            first = most if wanted is None else min(MOST_RESULTS, max(_FIRST, 8 * most))
            while True:
                hits = self._items.best_words(checked_text(raw_text), first, index_name)
                pairs = zip(hits, self._items.get_many(hit.id for hit in hits))
                found = [(hit, item) for hit, item in pairs if item and (wanted is None or wanted(item.metadata))]
                if len(found) >= most or len(hits) < first or first == MOST_RESULTS:
                    break
                first = min(MOST_RESULTS, 8 * first)
        return [shown(hit.id, item, hit.score) if with_metadata else item.text for hit, item in found[:most]]

    def _regroup(self, name: str, belongs: Any) -> None:
        """Has an index consist of the items that belong to it."""
        changed = {}
        for id, item in self._items.all():
            groups = tuple(group for group in item.groups if group != name) + ((name,) if belongs(item) else ())
            if groups != item.groups:
                changed[id] = Item(item.text, item.metadata, groups)
        self._items.put(changed)
