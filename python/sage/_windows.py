"""Windows, and what comes out of them.

All lengths are in seconds, or a ``timedelta``, all moments in seconds since 1970; both are rounded to milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ._arguments import length, whole


#: In so many windows a record may be: the limit of the engine.
_MOST_WINDOWS = 100_000


@dataclass(frozen=True)
class Tumbling:
    """Windows of ``size`` seconds, one after the other: each record is in one. They begin at multiples of their
    size."""

    size: float

    def _checked(self) -> Tumbling:
        return Tumbling(length("the `size` of windows", self.size))


@dataclass(frozen=True)
class Sliding:
    """Windows of ``size`` seconds, of which one begins every ``every`` seconds: a record is in several, in 100,000 at
    most, as each of them is updated for each record."""

    size: float
    every: float

    def _checked(self) -> Sliding:
        size, every = length("the `size` of windows", self.size), length("`every` of windows", self.every)
        if every > 0 and (windows := -(-round(size * 1000) // round(every * 1000))) > _MOST_WINDOWS:
            raise ValueError(
                f"each record would be in {windows:,} windows, and {_MOST_WINDOWS:,} is the most; let them begin "
                f"further apart, or make them shorter: {self!r}"
            )
        return Sliding(size, every)


@dataclass(frozen=True)
class Session:
    """Windows that end when there is no record for ``gap`` seconds."""

    gap: float

    def _checked(self) -> Session:
        return Session(length("the `gap` of sessions", self.gap))


@dataclass(frozen=True)
class Count:
    """Windows of so many records of a key; the last of a key, which has fewer, comes at the end of input."""

    records: int

    def _checked(self) -> Count:
        return Count(whole("the number of records of a window", self.records))


#: Any kind of windows.
Windows = Tumbling | Sliding | Session | Count


class Windowed(NamedTuple):
    """The result of a window."""

    key: Any
    #: When the window begins, and when it ends, which is no longer part of it.
    start: float
    end: float
    value: Any


class Paired(NamedTuple):
    """Two records of equal keys, as a join gives them: ``None`` where a record has no partner."""

    key: Any
    left: Any
    right: Any


class WindowPaired(NamedTuple):
    """Two records of equal keys in one window."""

    key: Any
    start: float
    end: float
    left: Any
    right: Any
