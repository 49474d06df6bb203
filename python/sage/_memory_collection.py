"""``BaseMemoryCollection``: what the collections of SAGE's memory have in common.

A collection is in memory, or in a folder, where everything is kept at once. In a process a folder is open once: whoever
opens it again gets the same collection.

Lock order: ``_SHARED``, then the lock of a collection.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from . import _memory_folder as folders
from ._arguments import said
from ._memory_items import Item, Items, checked_metadata, checked_text, hash_of, meets
from ._memory_storages import MetadataStorage, TextStorage
from ._sage import StoreClosed, VectorStore

if TYPE_CHECKING:
    from typing_extensions import Self

_LOGGER = logging.getLogger("sage.memory")

#: The collections that are open in this process, by their folders.
_OPEN: weakref.WeakValueDictionary[Path, BaseMemoryCollection] = weakref.WeakValueDictionary()
_SHARED = threading.RLock()


class BaseMemoryCollection:
    """Texts with metadata. SAGE programs use one of the collections that also find texts; this one finds them by their
    metadata.

    >>> from sage.middleware.components.sage_mem import BaseMemoryCollection
    >>> collection = BaseMemoryCollection("notes")
    >>> id = collection.insert("Services stop last.", {"topic": "stopping"})
    >>> collection.retrieve(topic="stopping")
    ['Services stop last.']
    """

    #: The kind of the collection, of those that a manager keeps.
    kind: ClassVar[str] = ""
    _has_words = False

    def __init__(self, config: str | Mapping[str, Any]) -> None:
        name = config.get("name") if isinstance(config, Mapping) else config
        if not isinstance(name, str) or not name:
            raise ValueError(f"a collection needs its `name`, a text that is not empty: {said(config)}")
        self.name = name
        self.description = str(config.get("description", "")) if isinstance(config, Mapping) else ""
        self.logger = _LOGGER
        self.is_open = True
        self._folder: Path | None = None
        self._identity: tuple[int, int] | None = None
        #: Whether its files have what was deleted or replaced.
        self._has_old = False
        self._indexes: dict[str, dict[str, Any]] = {}
        self._stores: dict[str, VectorStore] = {}
        self._lock = threading.RLock()
        #: The managers that have it.
        self._holders: weakref.WeakSet[Any] = weakref.WeakSet()
        self._items = Items(None, with_words=self._has_words)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def text_storage(self) -> TextStorage:
        """The texts by their ids."""
        return TextStorage(self)

    @property
    def metadata_storage(self) -> MetadataStorage:
        """The metadata of texts by their ids."""
        return MetadataStorage(self)

    def insert(self, raw_text: str, metadata: Mapping[str, Any] | None = None) -> str:
        """Keeps a text with metadata, and gives its id. The same text with other metadata is another item; without
        metadata it stands for the one that is there."""
        return self._insert_all([(raw_text, metadata)])[0]

    def retrieve(
        self, with_metadata: bool = False, metadata_filter_func: Any = None, **metadata_conditions: Any
    ) -> list[Any]:
        """The texts whose metadata a function says yes to, and has these values; with ``with_metadata`` mappings with
        ``text``, ``metadata`` and ``id``."""
        wanted = meets(metadata_filter_func, metadata_conditions)
        with self._lock:
            found = [(id, item) for id, item in self._items.all() if wanted is None or wanted(item.metadata)]
        return [shown(id, item) if with_metadata else item.text for id, item in found]

    def delete(self, raw_text: str) -> int:
        """Deletes the items with a text, or the one with this id, also from all indexes; says how many they were."""
        with self._lock:
            return self._remove(self._meant(raw_text))

    def get_all_ids(self) -> list[str]:
        """The ids of all items, in the order in which they came first."""
        with self._lock:
            return self._items.ids()

    def filter_ids(self, ids: Iterable[str], metadata_filter_func: Any = None, **metadata_conditions: Any) -> list[str]:
        """Those of the ids whose metadata a function says yes to, and has these values."""
        wanted, ids = meets(metadata_filter_func, metadata_conditions), list(ids)
        with self._lock:
            pairs = zip(ids, self._items.get_many(ids))
            return [id for id, item in pairs if wanted is None or wanted({} if item is None else item.metadata)]

    def add_metadata_field(self, field_name: str) -> None:
        """Does nothing: metadata may have any names."""

    def get_storage_stats(self) -> dict[str, Any]:
        """How many items there are, and how many indexes."""
        with self._lock:
            return {"total_items": len(self._items), "index_count": len(self._indexes)}

    def clear(self) -> None:
        """Deletes all items."""
        with self._lock:
            self._remove(self._items.ids())

    def store(self, store_path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Has what is kept survive a loss of power, and leaves nothing of what was deleted in the files. A collection
        that is not kept in this folder of a manager is copied there, in place of what is there by its name."""
        if not self.kind:
            raise NotImplementedError(f"`{type(self).__name__}` is not kept in files: use `VDBMemoryCollection`")
        data_dir = real(store_path if store_path is not None else self._data_dir())
        folder = folders.folder_of(data_dir, self.kind, self.name)
        with _SHARED, self._lock:
            if folder == self._folder:
                for store in [self._items.store, *self._stores.values()]:
                    if self._has_old:
                        store.compact()
                    store.persist()
                self._has_old = False
            else:
                self._copy(data_dir, folder)
        return {"collection_path": str(folder)}

    @classmethod
    def load(cls, name: str, load_path: str | os.PathLike[str] | None = None) -> Self:
        """The collection that is kept in a folder of its own, or by its name in the default folder of managers."""
        folder = folders.folder_of(Path(folders.default_data_dir()), cls.kind, name)
        made: Self | None = opened(cls, folder if load_path is None else Path(load_path))
        if made is None:
            raise FileNotFoundError(f"there is no collection in {folder if load_path is None else load_path}")
        return made

    def close(self) -> None:
        """Lets go of its files. What is called afterwards raises ``StoreClosed``."""
        with _SHARED, self._lock:
            self.is_open = False
            if self._folder is not None and _OPEN.get(self._folder) is self:
                del _OPEN[self._folder]
            for store in [self._items.store, *self._stores.values()]:
                store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _insert_all(self, pairs: Iterable[tuple[str, Any]]) -> list[str]:
        """Keeps texts with their metadata, all or none; their ids in their order, one for each."""
        with self._lock:
            items = self._items
            pending: dict[str, Item] = {}
            ids = []
            for text, metadata in pairs:
                id, pending[id] = items.id_for(checked_text(text), metadata, pending)
                ids.append(id)
            items.put(pending)
            return ids

    def _meant(self, text_or_id: str) -> list[str]:
        """The ids of the items with a text, or this id."""
        checked_text(text_or_id)
        return self._items.with_text(text_or_id) or ([text_or_id] if text_or_id in self._items else [])

    def _get_stable_id(self, raw_text: str) -> str:
        """The id of the item with a text, or the one that it would get."""
        with self._lock:
            return next(iter(self._items.with_text(raw_text)), hash_of(raw_text))

    def _remove(self, ids: Iterable[str]) -> int:
        ids, self._has_old = list(ids), True
        # Of one that is found no more, something may be left if the process is killed; not the other way round.
        for store in self._stores.values():
            store.delete(ids)
        return self._items.remove(ids)

    def _edit(self, id: str, text: str | None = None, metadata: Mapping[str, Any] | None = None) -> None:
        """Changes the item with an id, or makes it."""
        with self._lock:
            item = self._items.get(id) or Item("", {})
            if metadata is not None:
                item = item._replace(metadata=checked_metadata(metadata))
            if text is not None:
                item = item._replace(text=checked_text(text))
            self._items.put({id: item})
            self._has_old = True

    def _data_dir(self) -> str | Path:
        """The folder of the manager that keeps it."""
        return folders.default_data_dir() if self._folder is None else self._folder.parents[1]

    def _index(self, name: Any) -> dict[str, Any]:
        """What an index was made with. Raises if there is none."""
        found = self._indexes.get(name) if isinstance(name, str) else None
        if found is None:
            there = ", ".join(map(repr, self._indexes)) or "none"
            raise ValueError(f"collection {self.name!r} has no index {said(name)}; it has {there}")
        return found

    def _add_index(self, name: str, says: dict[str, Any], store: VectorStore | None) -> None:
        """Has an index from now on. Its store comes first, so that it is there or not at all."""
        self._write({**self._indexes, name: says})
        self._indexes[name] = says
        if store is not None:
            self._stores[name] = store

    def _drop_index(self, name: str) -> None:
        says = self._index(name)
        self._write({other: each for other, each in self._indexes.items() if other != name})
        del self._indexes[name]
        self._end_store(self._stores.pop(name, None), says)

    def _end_store(self, store: VectorStore | None, says: Mapping[str, Any]) -> None:
        """Closes the store of an index that is no more, and removes its file."""
        if store is not None:
            store.close()
            if self._folder is not None:
                folders.remove_index(folders.index_file(self._folder, says["file"]))

    def _new_number(self) -> int:
        """Of the file of a new index."""
        return max((says.get("file", 0) for says in self._indexes.values()), default=0) + 1

    def _write(self, indexes: dict[str, dict[str, Any]]) -> None:
        if not self.is_open:
            raise StoreClosed(f"collection {self.name!r} is closed")
        if self._folder is not None:
            folders.write(self._folder, self.kind, self.description, indexes)

    def _index_store(self, says: Mapping[str, Any], folder: Path | None, must_exist: bool) -> VectorStore | None:
        """The store of an index in a folder, or in memory; ``None`` of an index that needs none."""
        return None

    def _read(self, folder: Path, is_new: bool) -> None:
        """Has its items and indexes in a folder from now on."""
        empty: dict[str, Any] = {"description": self.description, "indexes": {}}
        says = empty if is_new else folders.read(folder, self.kind)
        items = Items(folder / folders.ITEMS, must_exist=not is_new, with_words=self._has_words)
        stores: dict[str, VectorStore] = {}
        try:
            if is_new:
                folders.write(folder, self.kind, self.description, {})
            else:
                folders.sweep_indexes(folder, {each.get("file", 0) for each in says["indexes"].values()})
            for name, each in says["indexes"].items():
                store = self._index_store(each, folder, must_exist=True)
                if store is not None:
                    stores[name] = store
        except BaseException:
            for store in [items.store, *stores.values()]:
                store.close()
            raise
        self.name = folders.name_of(folder)
        self.description, self._indexes = says["description"], says["indexes"]
        self._items, self._stores, self._folder = items, stores, folder
        self._identity = folders.identity(folder)
        # What another process has deleted may be in its files.
        self._has_old = not is_new

    def _copy(self, data_dir: Path, folder: Path) -> None:
        other = _OPEN.get(folder)
        if other is not None:
            other.close()
        new = folders.begin_copy(data_dir, folder)
        self._items.store.snapshot(new / folders.ITEMS)
        for name, store in self._stores.items():
            store.snapshot(folders.index_file(new, self._indexes[name]["file"]))
        folders.write(new, self.kind, self.description, self._indexes)
        folders.end_copy(data_dir, new, folder)

    def _rename(self, name: str, description: str | None) -> None:
        """Moves its folder to that of another name."""
        assert self._folder is not None, "it is in a folder"
        old, new = self._folder, folders.folder_of(self._folder.parents[1], self.kind, name)
        with _SHARED, self._lock:
            self.close()
            try:
                folders.move(old, new)
            except BaseException:
                self._reopen(old)
                raise
            self._reopen(new)
            if description is not None:
                self.description = description
                self._write(self._indexes)

    def _reopen(self, folder: Path) -> None:
        self._read(folder, is_new=False)
        self.is_open = True
        _OPEN[folder] = self


def shown(id: str, item: Item, score: float | None = None) -> dict[str, Any]:
    """An item as programs get it with its metadata."""
    made: dict[str, Any] = {"text": item.text, "metadata": item.metadata, "id": id}
    return made if score is None else {**made, "score": score}


def opened(cls: type[Any], folder: Path, *, new_description: str | None = None) -> Any:
    """The collection in a folder: the one that is open already, or opened now; ``None`` if there is none. With a
    description, it is made."""
    folder = real(folder)
    with _SHARED:
        is_new = new_description is not None
        there = _OPEN.get(folder)
        is_there = folders.is_collection(folder)
        if there is not None:
            if is_there and there._identity == folders.identity(folder) and isinstance(there, cls):
                return there
            # Its folder was removed behind its back.
            there.close()
        if not is_new and not is_there:
            return None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = cls({"name": folders.name_of(folder), "description": new_description or ""})
        made._read(folder, is_new)
        _OPEN[folder] = made
        return made


def is_opened(folder: Path) -> BaseMemoryCollection | None:
    """The collection in a folder, if it is open in this process."""
    return _OPEN.get(real(folder))


def real(path: str | os.PathLike[str]) -> Path:
    """The one path of a folder that has several."""
    return Path(os.path.realpath(path))
