"""What each kind of step does with a record, as links of a chain."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ._chain import STATEFUL, Folding, Link
from ._functions import FlatMapFunction, Made, called
from ._transformation import Transformation

#: A record of one of several connected streams: its key if it has one, the number of its stream, the record.
Tagged = tuple[Any, int, Any]


def links(step: Transformation, function: Any) -> list[Link]:
    """The links of a step, with the function of this replica."""
    if step.kind in STATEFUL:
        options = step.options
        state = options.get("initial"), options.get("most", 0), options.get("whole", False)
        return [Link(step.kind, called(step.made, function), step.name, *state)]
    return _KINDS.get(step.kind, _plain)(step, function)


def flattened(made: Made, function: Any) -> Callable[[Any], Iterable[Any]]:
    """What gives an iterable for each record."""
    if not isinstance(function, FlatMapFunction):
        return called(made, function)

    def call(record: Any) -> Iterable[Any]:
        returned = function.execute(record)
        collected = function.__dict__.pop("_collected", [])
        return collected if returned is None else [*collected, *returned]

    return call


def _plain(step: Transformation, function: Any) -> list[Link]:
    return [Link(step.kind, called(step.made, function), step.name)]


def _flatmap(step: Transformation, function: Any) -> list[Link]:
    return [Link("flatmap", flattened(step.made, function), step.name)]


def _tag(step: Transformation, _function: Any) -> list[Link]:
    index = step.index
    return [Link("map", lambda record: (None, index, record), step.name)]


def _keytag(step: Transformation, function: Any) -> list[Link]:
    key_of, index = called(step.made, function), step.index

    def tag(record: Any) -> Tagged:
        return key_of(record), index, record

    return [Link("map", tag, step.name), Link("keyby", lambda tagged: tagged[0], step.name)]


def _folded(step: Transformation, function: Any) -> list[Link]:
    first, made = step.options["folding"]
    return [Link("folded", function, step.name, lambda: Folding(first, made))]


def _expiring(step: Transformation, function: Any) -> list[Link]:
    return [Link(step.options["link"], function, step.name, step.options["initial"])]


def _comap(step: Transformation, function: Any) -> list[Link]:
    maps: list[Callable[[Any], Any]] = [getattr(function, f"map{index}") for index in range(len(step.inputs))]
    return [Link("map", lambda tagged: maps[tagged[1]](tagged[2]), step.name)]


def _cojoin(step: Transformation, function: Any) -> list[Link]:
    execute = function.execute

    def join(tagged: Tagged) -> Any:
        key, tag, payload = tagged
        joined = execute(payload, key, tag)
        return () if joined is None else joined

    return [Link("flatmap", join, step.name)]


_KINDS: dict[str, Callable[[Transformation, Any], list[Link]]] = {
    "flatmap": _flatmap,
    "tag": _tag,
    "keytag": _keytag,
    "folded": _folded,
    "expiring": _expiring,
    "comap": _comap,
    "cojoin": _cojoin,
}
