"""``MemoryManager``: the collections of a folder, by their names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _memory_folder as folders
from ._arguments import said
from ._memory_collection import _LOGGER, _SHARED, BaseMemoryCollection, is_opened, opened
from ._memory_graph import GraphMemoryCollection
from ._memory_kv import KVMemoryCollection
from ._memory_vdb import VDBMemoryCollection
from ._sage import StoreError

if TYPE_CHECKING:
    from typing_extensions import Self

_CLASSES: dict[str, type[BaseMemoryCollection]] = {
    "vdb": VDBMemoryCollection,
    "kv": KVMemoryCollection,
    "graph": GraphMemoryCollection,
}


class MemoryManager:
    """The collections of a folder: ``VDB``, whose texts are found by vectors, ``KV``, by words, and ``graph``.

    >>> import tempfile
    >>> from sage.middleware.components.sage_mem import MemoryManager
    >>> folder = tempfile.mkdtemp()
    >>> with MemoryManager(folder) as manager:
    ...     notes = manager.create_collection({"name": "notes", "backend_type": "VDB"})
    ...     made = notes.create_index({"name": "words", "embedding_model": "default", "dim": 384})
    ...     id = notes.insert("words", "Services stop last.", {"topic": "stopping"})
    >>> with MemoryManager(folder) as manager:
    ...     manager.get_collection("notes").retrieve("When do services stop?", "words", threshold=0.3)
    ['Services stop last.']

    What a collection was told is in its files at once, and there after a ``kill -9``; after ``store_collection`` also
    after a loss of power. One process at a time has a collection open: ``StoreLocked`` says that another has it. In a
    process, managers of the same folder share its collections. ``close``, or ``with``, lets go of all files; so does a
    manager that nobody has any more, with its collections. Without a folder it is ``data/neuromem_data``.
    """

    def __init__(self, data_dir: str | os.PathLike[str] | None = None) -> None:
        self.data_dir = os.path.abspath(folders.default_data_dir() if data_dir is None else os.fspath(data_dir))
        self.logger = _LOGGER
        #: The collections that it has opened, by their names.
        self.collections: dict[str, BaseMemoryCollection] = {}
        if os.path.exists(self.data_dir) and not os.path.isdir(self.data_dir):
            raise NotADirectoryError(f"{self.data_dir} is no folder")
        folders.tidy(self._folder)
        if os.path.exists(os.path.join(self.data_dir, "manager.json")):
            self.logger.warning("%s has files of SAGE's own memory, which are not read", self.data_dir)

    def __repr__(self) -> str:
        return f"MemoryManager({self.data_dir!r})"

    def create_collection(self, config: Mapping[str, Any]) -> Any:
        """Makes the collection with the ``name`` and the ``description`` of the configuration, of the kind that its
        ``backend_type`` says, ``"VDB"``, ``"KV"`` or ``"graph"``, in any case. ``None``, with a warning, if the name is
        taken."""
        if not isinstance(config, Mapping):
            raise TypeError(f"`create_collection` takes its configuration as a mapping, not {said(config)}")
        name, kind = config.get("name"), str(config.get("backend_type") or "").lower()
        if kind not in _CLASSES:
            raise ValueError(f"`backend_type` is VDB, KV or graph, not {said(config.get('backend_type'))}")
        folder = folders.folder_of(self._folder, kind, name)
        with _SHARED:
            if folders.found(self._folder, name) is not None:
                self.logger.warning("%s has a collection %r already", self.data_dir, name)
                return None
            made = opened(_CLASSES[kind], folder, new_description=str(config.get("description", "")))
            return self._has(str(name), made)

    def has_collection(self, name: str) -> bool:
        """Whether there is a collection of this name."""
        return folders.found(self._folder, name) is not None

    def get_collection(self, name: str) -> Any:
        """The collection of this name; ``None``, with a warning, if there is none."""
        with _SHARED:
            there = folders.found(self._folder, name)
            if there is None:
                self.logger.warning("%s has no collection %r", self.data_dir, name)
                return None
            kind, folder = there
            return self._has(name, opened(_CLASSES[kind], folder))

    def delete_collection(self, name: str) -> bool:
        """Deletes a collection with all its files, and says whether it was there. Whoever has it finds it closed."""
        with _SHARED:
            there = folders.found(self._folder, name)
            if there is None:
                self.logger.warning("%s has no collection %r", self.data_dir, name)
                return False
            _, folder = there
            self.collections.pop(name, None)
            self._close_in(folder)
            folders.delete(self._folder, folder)
        return True

    def store_collection(self, name: str | None = None) -> None:
        """Has what this collection was told, or all that this manager has opened, survive a loss of power, and leaves
        nothing of what was deleted in the files."""
        with _SHARED:
            wanted = list(self.collections) if name is None else [name]
            if name is not None and not self.has_collection(name):
                raise ValueError(f"{self.data_dir} has no collection {said(name)}")
            for each in wanted:
                collection = self.get_collection(each)
                if collection is not None:
                    collection.store(self.data_dir)

    def list_collection(self, name: str | None = None) -> Any:
        """What all collections are, or this one: ``name``, ``status``, ``"loaded"``, ``"on_disk"`` or ``"damaged"``,
        ``description`` and ``backend_type``. ``None``, with a warning, if there is no collection of this name."""
        if name is None:
            return [self._listed(kind, folder) for kind, folder in folders.all_of(self._folder)]
        there = folders.found(self._folder, name)
        if there is None:
            self.logger.warning("%s has no collection %r", self.data_dir, name)
            return None
        return self._listed(*there)

    def rename(self, former_name: str, new_name: str, new_description: str | None = None) -> bool:
        """Gives a collection another name, and another description. False, with a warning, if it is not there or the
        name is taken."""
        with _SHARED:
            there = folders.found(self._folder, former_name)
            if there is None or folders.found(self._folder, new_name) is not None:
                why = "no collection" if there is None else "already a collection"
                self.logger.warning("%s has %s %r", self.data_dir, why, former_name if there is None else new_name)
                return False
            collection = self.get_collection(former_name)
            collection._rename(new_name, new_description)
            self.collections.pop(former_name, None)
            self._has(new_name, collection)
        return True

    def close(self) -> None:
        """Lets go of all files: closes the collections that it has opened and that no other manager has."""
        with _SHARED:
            collections, self.collections = list(self.collections.values()), {}
            for collection in collections:
                collection._holders.discard(self)
                if not collection._holders:
                    collection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _folder(self) -> Path:
        return Path(self.data_dir)

    def _has(self, name: str, collection: BaseMemoryCollection) -> BaseMemoryCollection:
        self.collections[name] = collection
        collection._holders.add(self)
        return collection

    def _close_in(self, folder: Path) -> None:
        collection = is_opened(folder)
        if collection is not None:
            collection.close()

    def _listed(self, kind: str, folder: Path) -> dict[str, Any]:
        status, description = "on_disk" if is_opened(folder) is None else "loaded", ""
        try:
            description = folders.read(folder, kind)["description"]
        except StoreError:
            # The others are to be seen; whoever opens it is told.
            status = "damaged"
        name = folders.name_of(folder)
        return {"name": name, "status": status, "description": description, "backend_type": kind}
