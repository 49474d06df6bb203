"""Windows, and their results.

Lengths are in seconds, or a ``timedelta``; moments are in seconds since 1970. Both are rounded to milliseconds.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from ._arguments import length, whole
from ._keywords import spelt

#: What becomes of windows that a signal cuts.
OnSignal = Literal["drop", "emit"]

#: In so many windows a record may be: the limit of the engine.
_MOST_WINDOWS = 100_000


@spelt
@dataclass(frozen=True)
class Tumbling:
    """Windows of ``size`` seconds that follow each other: each record is in exactly one. They begin at multiples of
    their size.

    >>> env = LocalEnvironment("minutes")
    >>> seconds = env.from_batch([5, 58, 61]).with_timestamps(lambda second: second).keyby(lambda second: "all")
    >>> counts = seconds.window(Tumbling(60)).count().collect()
    >>> job = env.submit(autostop=True)
    >>> [(window.start, window.value) for window in counts]
    [(0.0, 2), (60.0, 1)]
    """

    size: float

    def _checked(self) -> Tumbling:
        return Tumbling(length("the `size` of windows", self.size))


@spelt
@dataclass(frozen=True)
class Sliding:
    """Windows of ``size`` seconds, of which one begins every ``every`` seconds. A record is in several, at most in
    100,000, because each of them is updated for each record.

    >>> env = LocalEnvironment("minutes")
    >>> seconds = env.from_batch([65]).with_timestamps(lambda second: second).keyby(lambda second: "all")
    >>> counts = seconds.window(Sliding(60, every=30)).count().collect()
    >>> job = env.submit(autostop=True)
    >>> [(window.start, window.end) for window in counts]
    [(30.0, 90.0), (60.0, 120.0)]
    """

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


@spelt
@dataclass(frozen=True)
class Session:
    """Windows that end when a key has no record for ``gap`` seconds.

    >>> env = LocalEnvironment("visits")
    >>> seconds = env.from_batch([5, 20, 90]).with_timestamps(lambda second: second).keyby(lambda second: "all")
    >>> visits = seconds.window(Session(30)).count().collect()
    >>> job = env.submit(autostop=True)
    >>> [(window.start, window.end, window.value) for window in visits]
    [(5.0, 50.0, 2), (90.0, 120.0, 1)]
    """

    gap: float

    def _checked(self) -> Session:
        return Session(length("the `gap` of sessions", self.gap))


@spelt
@dataclass(frozen=True)
class Count:
    """Windows of ``records`` records of a key. At the end of input, a key's last window comes with the records it
    has.

    >>> env = LocalEnvironment("pairs")
    >>> sums = env.from_batch([1, 2, 3]).keyby(lambda n: "all").window(Count(2)).sum().collect()
    >>> job = env.submit(autostop=True)
    >>> [window.value for window in sums]
    [3, 3]
    """

    records: int

    def _checked(self) -> Count:
        return Count(whole("the number of records of a window", self.records))


#: Any kind of windows.
Windows = Tumbling | Sliding | Session | Count


#: Keys, and the records of streams or what was made of them.
K = TypeVar("K")
V = TypeVar("V")
L = TypeVar("L")
R = TypeVar("R")

# The oldest Python that the package runs on has no generic named tuples.
if TYPE_CHECKING:

    class _Windowed(NamedTuple, Generic[K, V]):
        key: K
        start: float
        end: float
        value: V

    class _Paired(NamedTuple, Generic[K, L, R]):
        key: K
        left: L
        right: R

    class _WindowPaired(NamedTuple, Generic[K, L, R]):
        key: K
        start: float
        end: float
        left: L
        right: R

else:

    def _named(*fields):
        """A named tuple that takes the types of its fields, and forgets them."""
        members = {"__slots__": (), "__class_getitem__": classmethod(lambda cls, _types: cls)}
        return type("Fields", (namedtuple("Fields", fields),), members)

    _Windowed = _named("key", "start", "end", "value")
    _Paired = _named("key", "left", "right")
    _WindowPaired = _named("key", "start", "end", "left", "right")


class Windowed(_Windowed[K, V]):
    """The result of a window, as a tuple: ``key``; ``start`` and ``end`` of the window in seconds since 1970, of which
    the end is not part of it; and ``value``, what the step behind the windows has made of the records.

    >>> env = LocalEnvironment("minute")
    >>> seconds = env.from_batch([5, 58]).with_timestamps(lambda second: second).keyby(lambda second: "all")
    >>> counts = seconds.window(Tumbling(60)).count().collect()
    >>> job = env.submit(autostop=True)
    >>> counts[0].key, counts[0].start, counts[0].end, counts[0].value
    ('all', 0.0, 60.0, 2)
    """

    __slots__ = ()

    @property
    def is_partial(self) -> bool:
        """Whether a signal ended the job before the window was over, so that records of it may be missing: see
        ``KeyedStream.window``.

        >>> env = LocalEnvironment("pairs")
        >>> counts = env.from_batch([1, 2, 3]).keyby(lambda n: "all").window(Count(2)).count().collect()
        >>> job = env.submit(autostop=True)
        >>> [window.is_partial for window in counts]
        [False, False]
        """
        return isinstance(self, PartialWindowed)


class PartialWindowed(Windowed[K, V]):
    """The result of a window that a signal cut."""

    __slots__ = ()


class Paired(_Paired[K, L, R]):
    """Two records of equal keys, from a join, as a tuple: ``key``, ``left`` and ``right``. ``None`` stands for a
    missing partner.

    >>> env = LocalEnvironment("join")
    >>> pairs = env.from_batch([1]).keyby(abs).join(env.from_batch([-1]).keyby(abs)).inner().collect()
    >>> job = env.submit(autostop=True)
    >>> pairs[0].key, pairs[0].left, pairs[0].right
    (1, 1, -1)
    """

    __slots__ = ()


class WindowPaired(_WindowPaired[K, L, R]):
    """Two records of equal keys in one window, as a tuple: ``key``; ``start`` and ``end`` of the window in seconds
    since 1970, of which the end is not part of it; ``left`` and ``right``. ``None`` stands for a missing partner.

    >>> env = LocalEnvironment("join")
    >>> left = env.from_batch([1]).with_timestamps(lambda n: 5).keyby(abs)
    >>> right = env.from_batch([-1]).with_timestamps(lambda n: 50).keyby(abs)
    >>> pairs = left.join(right).window(Tumbling(60)).inner().collect()
    >>> job = env.submit(autostop=True)
    >>> pairs
    [WindowPaired(key=1, start=0.0, end=60.0, left=1, right=-1)]
    """

    __slots__ = ()

    @property
    def is_partial(self) -> bool:
        """As that of ``Windowed``: a partner may be missing."""
        return isinstance(self, PartialWindowPaired)


class PartialWindowPaired(WindowPaired[K, L, R]):
    """Two records of one window that a signal cut."""

    __slots__ = ()


def windowed(fields: tuple[Any, ...]) -> Windowed[Any, Any]:
    """The result of these fields, which has one more behind its own if it is partial."""
    return Windowed._make(fields) if len(fields) == 4 else PartialWindowed._make(fields[:4])


def window_paired(fields: tuple[Any, ...]) -> WindowPaired[Any, Any, Any]:
    """The same of two records."""
    return WindowPaired._make(fields) if len(fields) == 5 else PartialWindowPaired._make(fields[:5])


def emits_cut(on_signal: Any) -> bool:
    """Whether windows that a signal cuts are emitted, and not dropped, by a program's word for it."""
    if on_signal not in ("drop", "emit"):
        raise ValueError(f'`on_signal` of windows is "drop" or "emit", not {on_signal!r}')
    return bool(on_signal == "emit")
