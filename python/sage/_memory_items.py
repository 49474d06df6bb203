"""``Items``: the texts of a collection with their metadata, over a ``VectorStore``.

Every item has a place, a number that grows; the order of items is that of their places. Metadata is kept as JSON, as
SAGE programs give values that no store takes.

Invariants: ``_places`` has the ids that the store has, in their order. The methods are called by one thread at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple

from ._arguments import said
from ._sage import Filter, Hit, Record, VectorStore, field

#: The most results of one search.
MOST_RESULTS = 16_384
#: The most bytes of the metadata of an item, as JSON.
_MOST_BYTES = 1 << 20

#: No place is as high; whoever looks that far misses what was deleted meanwhile.
_MOST_PLACES = 1 << 62

#: Says of metadata whether an item is meant.
Meets = Callable[[dict[str, Any]], bool]


class Item(NamedTuple):
    """A text with its metadata."""

    text: str
    metadata: dict[str, Any]
    #: The indexes of words that it is in.
    groups: tuple[str, ...] = ()


def hash_of(text: str) -> str:
    """The id of a text that is there once."""
    return hashlib.sha256(text.encode()).hexdigest()


def checked_text(text: Any) -> str:
    """The text, if it is one."""
    if not isinstance(text, str):
        raise TypeError(f"a collection keeps texts, not {said(text)}")
    return text


def checked_metadata(metadata: Any) -> dict[str, Any]:
    """A copy of the metadata as it is read back: what JSON has of it."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping) or not all(isinstance(name, str) for name in metadata):
        raise TypeError(f"metadata is a mapping of names to values, not {said(metadata)}")
    try:
        written = json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata is kept as JSON, which {said(metadata)} is not: {error}") from error
    if len(written.encode()) > _MOST_BYTES:
        raise ValueError(f"metadata takes at most {_MOST_BYTES:,} bytes as JSON, not {len(written.encode()):,}")
    made: dict[str, Any] = json.loads(written)
    return made


def meets(given: Any, conditions: Mapping[str, Any], name: str = "metadata_filter_func") -> Meets | None:
    """What a filter, a function or a mapping of values that are equal, and conditions ask of metadata; ``None`` if they
    ask nothing."""
    if given is not None and not callable(given) and not isinstance(given, Mapping):
        raise TypeError(f"`{name}` is a function of metadata, or a mapping of values, not {said(given)}")
    equal = {**given, **conditions} if isinstance(given, Mapping) else dict(conditions)
    for wanted, value in equal.items():
        if callable(value):
            raise TypeError(f"`{wanted}` is a value that metadata has, not {said(value)}; a filter is `{name}`")
    if callable(given):
        return lambda metadata: bool(given(metadata)) and _has(metadata, equal)
    return (lambda metadata: _has(metadata, equal)) if equal else None


def _has(metadata: Mapping[str, Any], equal: Mapping[str, Any]) -> bool:
    return all(metadata.get(name) == value for name, value in equal.items())


class Items:
    """Texts with metadata, in a file or in memory."""

    def __init__(self, path: Path | None, *, must_exist: bool = False, with_words: bool = False) -> None:
        # A store has vectors; these mean nothing.
        self.store = VectorStore(
            1, path=path, name="items", metric="euclidean", text_search=with_words, must_exist=must_exist
        )
        self._places: dict[str, int] = {}
        for page in pages(self.store):
            self._places.update((hit.id, hit.metadata["at"]) for hit in page)
        self._next = max(self._places.values(), default=-1) + 1

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id: object) -> bool:
        return id in self._places

    def ids(self) -> list[str]:
        """All ids, in their order."""
        return list(self._places)

    def place(self, id: str) -> int:
        """The place of an item."""
        return self._places[id]

    def get(self, id: str) -> Item | None:
        """The item with an id."""
        return self.get_many([id])[0]

    def get_many(self, ids: Iterable[str]) -> list[Item | None]:
        """The items with these ids; ``None`` for one that is not there."""
        return [None if record is None else _item(record) for record in self.store.get_many(list(ids))]

    def all(self) -> Iterator[tuple[str, Item]]:
        """All items with their ids, in their order."""
        for page in pages(self.store):
            yield from ((hit.id, _item(hit)) for hit in page)

    def put(self, items: Mapping[str, Item]) -> None:
        """Keeps items, or, if one is refused, none. One that is there keeps its place."""
        made, places, following = [], {}, self._next
        for id, item in items.items():
            place = self._places.get(id)
            if place is None:
                place, following = following, following + 1
            places[id] = place
            made.append(Record(id, [0.0], item.text, _values(id, item, place)))
        if made:
            self.store.upsert_batch(made)
            self._places.update(places)
            self._next = following

    def remove(self, ids: Iterable[str]) -> int:
        """Removes items, and says how many were there."""
        ids = [id for id in dict.fromkeys(ids) if id in self._places]
        if ids:
            self.store.delete(ids)
            for id in ids:
                del self._places[id]
        return len(ids)

    def with_text(self, text: str) -> list[str]:
        """The ids of the items with a text, in their order."""
        first = hash_of(text)
        found = self.store.search([0.0], MOST_RESULTS, filter=Filter({"of": first}))
        ids = [hit.id for hit in found if hit.text == text]
        if first in self._places and (item := self.get(first)) is not None and item.text == text:
            ids.append(first)
        return sorted(ids, key=self.place)

    def id_for(self, text: str, metadata: Any, pending: Mapping[str, Item]) -> tuple[str, Item]:
        """The id that a text with metadata gets, and the item that it is, beside items that are not kept yet. The same
        text with the same metadata is one item; without metadata it stands for one that is there."""
        wanted = checked_metadata(metadata)
        written = json.dumps(wanted, sort_keys=True, ensure_ascii=False)
        others = (hash_of(f"{text}\0{written}\0{number}") for number in count())
        # Ids that the text has, and those that it may get.
        for id in chain(self.with_text(text), [hash_of(text)], others):
            item = pending.get(id) or self.get(id)
            if item is None:
                return id, Item(text, wanted)
            if item.text == text and (not wanted or item.metadata == wanted):
                return id, item
        raise AssertionError("there is always another id")

    def best_words(self, text: str, most: int, group: str | None) -> list[Hit]:
        """The items whose words are most like those of a text, best first; of an index of words, or of all."""
        if not text.strip():
            return []
        return self.store.search(None, most, text=text, filter=None if group is None else field("in").contains(group))


def _values(id: str, item: Item, place: int) -> dict[str, Any]:
    values: dict[str, Any] = {"at": place}
    if item.metadata:
        values["data"] = json.dumps(item.metadata, ensure_ascii=False)
    if (of := hash_of(item.text)) != id:
        values["of"] = of
    if item.groups:
        values["in"] = list(item.groups)
    return values


def _item(record: Record | Hit) -> Item:
    values = record.metadata
    return Item(record.text, json.loads(values.get("data", "{}")), tuple(values.get("in", ())))


def pages(store: VectorStore) -> Iterator[list[Hit]]:
    """All records of a store of one dimension, in the order of their places, which are in ``at``."""
    first, width, left = 0, MOST_RESULTS, store.count()
    while left and first < _MOST_PLACES:
        window = (field("at") >= first) & (field("at") < first + width)
        there = store.count(window)
        if there > MOST_RESULTS:
            width = MOST_RESULTS
            continue
        if there:
            page = store.search([0.0], there, filter=window)
            yield sorted(page, key=lambda hit: int(hit.metadata["at"]))
            left -= there
        first += width
        # Where many are gone, it looks further at once.
        width = MOST_RESULTS if there else 2 * width


def in_groups(ids: Iterable[str], most: int) -> Iterator[list[str]]:
    """Ids, so many at a time."""
    rest = iter(ids)
    while some := list(islice(rest, most)):
        yield some
