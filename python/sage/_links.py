"""What each kind of step does with a record, as a link of a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._chain import Link
from ._functions import flattened, method
from ._keys import stable_hash
from ._stream import Transformation

#: A record of one of several connected streams: its key if it has one, the number of its stream, the record.
Tagged = tuple[Any, int, Any]


def link(step: Transformation, function: Any) -> Link:
    """The link of a step, with the function of this replica."""
    return _KINDS.get(step.kind, _plain)(step, function)


def _plain(step: Transformation, function: Any) -> Link:
    return step.kind, method(function), step.name


def _flatmap(step: Transformation, function: Any) -> Link:
    return "flatmap", flattened(function), step.name


def _tag(step: Transformation, _function: Any) -> Link:
    index = step.index
    return "map", lambda record: (None, index, record), step.name


def _keytag(step: Transformation, function: Any) -> Link:
    key_of, index = method(function), step.index

    def tag(record: Any) -> tuple[int, Tagged]:
        key = key_of(record)
        return stable_hash(key), (key, index, record)

    return "map", tag, step.name


def _comap(step: Transformation, function: Any) -> Link:
    maps: list[Callable[[Any], Any]] = [getattr(function, f"map{index}") for index in range(len(step.inputs))]
    return "map", lambda tagged: maps[tagged[1]](tagged[2]), step.name


def _join(step: Transformation, function: Any) -> Link:
    execute = function.execute

    def join(tagged: Tagged) -> Any:
        key, tag, payload = tagged
        joined = execute(payload, key, tag)
        return () if joined is None else joined

    return "flatmap", join, step.name


_KINDS: dict[str, Callable[[Transformation, Any], Link]] = {
    "flatmap": _flatmap,
    "tag": _tag,
    "keytag": _keytag,
    "comap": _comap,
    "join": _join,
}
