"""The states that functions of a chain keep between records, and their results at the end of input."""

from __future__ import annotations

import copy
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ._arguments import said

if TYPE_CHECKING:
    from ._kinds import Link


class State(NamedTuple):
    """How a step keeps a state."""

    #: What it starts as: a value, copied for each key, or a function that makes one.
    initial: Any = None
    #: How many records are kept.
    most: int = 0
    #: Whether there is one result for all records, without a key.
    is_whole: bool = False

    @property
    def new(self) -> Callable[[], Any]:
        """What makes the state of a new key."""
        return self.initial if callable(self.initial) else partial(copy.deepcopy, self.initial)


#: What is kept, and what gives the results at the end of input, if it gives any then.
Kept = tuple[Any, Callable[[], Iterable[Any]] | None]


def nothing(_link: Link) -> Kept:
    """The engine keeps the states, and brings them along."""
    return None, None


def each(_link: Link) -> Kept:
    """A state for each key."""
    return {}, None


def seen(_link: Link) -> Kept:
    """The keys that have come."""
    return set(), None


def counted(link: Link) -> Kept:
    """A number for each key."""
    return _totals(link, defaultdict(int), lambda: [0])


def summed(link: Link) -> Kept:
    """A sum for each key."""
    return _totals(link, {}, lambda: [0])


def reduced(link: Link) -> Kept:
    """A record for each key."""
    return _totals(link, {}, list)


def folded(link: Link) -> Kept:
    """A value for each key."""
    return _totals(link, {}, lambda: [link.state.new()])


def _totals(link: Link, kept: dict[Any, Any], of_none: Callable[[], list[Any]]) -> Kept:
    if not link.state.is_whole:
        return kept, kept.items
    return kept, lambda: [kept[None]] if None in kept else of_none()


def ranked(link: Link) -> Kept:
    """The records of each key that rank highest."""
    top = _Top(link.state.most, link.call)
    return top.add, top.results


def folding(link: Link) -> Kept:
    """The window that is folded."""
    return link.state.new(), None


def summand(value: Any) -> Any:
    """The first value of a sum, as in Python's ``sum``. Refuses values that are joined and not added, such as texts."""
    if value is None or isinstance(value, (str, bytes, bytearray, list, tuple)):
        kind = "None" if value is None else f"a {type(value).__name__}"
        raise TypeError(
            f"`sum` adds numbers, and this is {kind}: give it a function that returns what to add, such as "
            "`sum(lambda record: record[1])`; to join records use `fold`"
        )
    return int(value) if isinstance(value, bool) else value


class Folding:
    """Folds the records of a window, one after the other, in the loop of a chain.

    A window is its key, begin and end, and its records; or instead of them a pair of what the first ones were
    made, in a tuple that may be empty, and those that are left.
    """

    #: Comes behind the records of a window.
    last = object()

    def __init__(self, first: Callable[[list[Any]], Any], made: Callable[[Any], Any]) -> None:
        #: What a fold begins with, taken from the records if it is one of them; and the result of a window.
        self._first = first
        self._made = made
        self._window: Any = None
        self.so_far: Any = None

    def begin(self, window: Any) -> list[Any]:
        """Takes a window; returns the records that are to be folded, and ``last``."""
        so_far, left = ((), window[3]) if type(window[3]) is list else window[3]
        left = [*left, self.last]
        self._window = window
        self.so_far = so_far[0] if so_far else self._first(left)
        return left

    def at(self) -> str:
        """Which window it folds, for an error; empty if none."""
        return f", the window of {said(self._window[0])} from {self._window[1]}" if self._window else ""

    def end(self) -> Any:
        """The result of the window."""
        window, so_far = self._window, self.so_far
        self._window = self.so_far = None
        return self._made((*window[:3], so_far, *window[4:]))


class _Top:
    """The records of each key that rank highest; of equal ones the earlier."""

    def __init__(self, most: int, rank: Callable[[Any], Any] | None) -> None:
        self._most = most
        self._rank = rank or (lambda record: record)
        self._heaps: dict[Any, list[tuple[Any, int, Any]]] = {}
        self._number = 0

    def add(self, key: Any, record: Any) -> None:
        """Takes a record."""
        # The number decides between equal ranks, so that records themselves are never compared.
        self._number -= 1
        entry = self._rank(record), self._number, record
        heap = self._heaps.setdefault(key, [])
        if len(heap) < self._most:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)

    def results(self) -> list[Any]:
        """Each key with its records, the highest first."""
        return [(key, [entry[2] for entry in sorted(heap, reverse=True)]) for key, heap in self._heaps.items()]
