"""The texts and the metadata of a collection by their ids, as SAGE programs reach for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._memory_items import Item

if TYPE_CHECKING:
    from ._memory_collection import BaseMemoryCollection


class TextStorage:
    """The texts of a collection by their ids: ``collection.text_storage``."""

    def __init__(self, collection: BaseMemoryCollection) -> None:
        self._collection = collection

    def get(self, item_id: str) -> str:
        """The text with an id, or an empty one."""
        item = self._item(item_id)
        return "" if item is None else item.text

    def has(self, item_id: str) -> bool:
        """Whether there is an item with this id."""
        return self._item(item_id) is not None

    def store(self, item_id: str, text: str) -> None:
        """Changes the text with an id, or makes an item of it."""
        self._collection._edit(item_id, text=text)

    def delete(self, item_id: str) -> None:
        """Deletes the item with an id."""
        with self._collection._lock:
            self._collection._remove([item_id])

    def get_all_ids(self) -> list[str]:
        """All ids, in the order in which they came first."""
        return self._collection.get_all_ids()

    def _item(self, id: str) -> Item | None:
        with self._collection._lock:
            return self._collection._items.get(id)


class MetadataStorage:
    """The metadata of the texts of a collection by their ids: ``collection.metadata_storage``."""

    def __init__(self, collection: BaseMemoryCollection) -> None:
        self._collection = collection

    def get(self, item_id: str) -> dict[str, Any]:
        """The metadata of the item with an id, or none."""
        with self._collection._lock:
            item = self._collection._items.get(item_id)
        return {} if item is None else item.metadata

    def has(self, item_id: str) -> bool:
        """Whether the item with this id has metadata."""
        return bool(self.get(item_id))

    def store(self, item_id: str, metadata: Mapping[str, Any]) -> None:
        """Replaces the metadata of the item with an id."""
        self._collection._edit(item_id, metadata=metadata)

    def delete(self, item_id: str) -> None:
        """Takes the metadata from the item with an id."""
        if self.has(item_id):
            self._collection._edit(item_id, metadata={})

    def get_all_ids(self) -> list[str]:
        """The ids of the items that have metadata."""
        with self._collection._lock:
            return [id for id, item in self._collection._items.all() if item.metadata]

    def add_field(self, field_name: str) -> None:
        """Does nothing: metadata may have any names."""

    def has_field(self, field_name: str) -> bool:
        """Whether any item has a value of this name."""
        with self._collection._lock:
            return any(field_name in item.metadata for _, item in self._collection._items.all())

    __getitem__, __setitem__ = get, store
