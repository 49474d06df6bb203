"""Keyed streams in windows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, overload

from . import _kinds as kinds
from . import ops
from ._arguments import length
from ._awaiting import awaited
from ._given import check_function, check_plain, name_of
from ._keywords import no_attribute, spelt
from ._sage import Spec
from ._states import Folding, State, summand
from ._stream import DataStream, K, T, U
from ._windows import Count, Session, Sliding, Tumbling, Windowed, Windows, windowed

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._keyed import KeyedStream
    from ._types import Seconds

#: Goes on with what the records before were made, in a tuple, which is empty before the first; and gives such a tuple.
_Fold = Callable[[tuple[Any, ...], list[Any]], tuple[Any]]


def _in_blocks(step: Callable[[Any, Any], Any], first: Callable[[list[Any]], Any]) -> _Fold:
    """Folds records of a window that is open still."""

    def fold(so_far: tuple[Any, ...], records: Any) -> tuple[Any]:
        if so_far:
            (made,) = so_far
        else:
            beginning = list(islice(records, 1))
            made = first(beginning)
            if beginning:
                made = step(made, beginning[0])
        for record in records:
            made = step(made, record)
        return (made,)

    return fold


@spelt
class WindowedStream(Generic[K, T]):
    """A keyed stream in windows. Results are ``Windowed`` tuples: key, start and end of the window, value.

    >>> env = LocalEnvironment("hours")
    >>> sales = env.from_batch([(60, 3), (3000, 4), (3700, 5)]).with_timestamps(lambda sale: sale[0])
    >>> hours = sales.keyby(lambda sale: "all").window(Tumbling(3600)).sum(lambda sale: sale[1]).collect()
    >>> job = env.submit(autostop=True)
    >>> [(window.start, window.value) for window in hours]
    [(0.0, 7), (3600.0, 5)]
    """

    def __init__(self, keyed: KeyedStream[K, T], windows: Windows, *, by_clock: bool, emits_cut: bool) -> None:
        if not isinstance(windows, (Tumbling, Sliding, Session, Count)):
            raise TypeError(f"windows are Tumbling, Sliding, Session or Count, not {windows!r}")
        if by_clock and isinstance(windows, Count):
            raise TypeError("windows by count do not depend on a clock; use `window`")
        self._keyed = keyed
        self._windows = windows._checked()
        self._lateness = 0.0
        self._by_clock = by_clock
        self._emits_cut = emits_cut
        self._late: Callable[[T], Any] | None = None

    def __repr__(self) -> str:
        return f"<WindowedStream {self._keyed._place()}, {self._windows!r}>"

    if not TYPE_CHECKING:  # for checkers there is no such attribute

        def __getattr__(self, name):
            first = "make one record of each window first, by `apply`, `count`, `fold`, `reduce` or `sum`"
            raise no_attribute(self, name, DataStream, first)

    def allowed_lateness(self, seconds: Seconds) -> Self:
        """Keeps a window's content for so long after it fired. A record that comes within that time makes the window
        fire again, with all its records. Default: 0.

        >>> env = LocalEnvironment("late")
        >>> sales = env.from_batch([1, 12, 2]).with_timestamps(lambda second: second)
        >>> counts = sales.keyby(lambda second: "all").window(Tumbling(10)).allowed_lateness(60).count().collect()
        >>> job = env.submit(autostop=True)
        >>> {window.start: window.value for window in counts}  # the last time that each fired
        {0.0: 2, 10.0: 1}
        """
        self._no_clock("allowed_lateness")
        self._lateness = length("`allowed_lateness`", seconds)
        return self

    def late_to(self, function: Callable[[T], Any]) -> Self:
        """Calls a function with each record that is too late for all its windows, instead of dropping the record.
        Either way the report has their number.

        >>> env = LocalEnvironment("late")
        >>> late = []
        >>> sales = env.from_batch([1, 12, 2]).with_timestamps(lambda second: second)
        >>> counts = sales.keyby(lambda second: "all").window(Tumbling(10)).late_to(late.append).count().collect()
        >>> job = env.submit(autostop=True)
        >>> len(late) + sum(window.value for window in counts)  # no record is lost
        3
        """
        self._no_clock("late_to")
        check_function(kinds.SINK, function, (), {})
        self._late = function
        return self

    def _no_clock(self, what: str) -> None:
        if self._by_clock or isinstance(self._windows, Count):
            raise ValueError(f"`{what}` is for windows of event time; in other windows no record is late")

    def count(self, *, parallelism: int = 1) -> DataStream[Windowed[K, int]]:
        """Emits the number of records of each key and window. Keeps no records.

        >>> env = LocalEnvironment("pairs")
        >>> counts = env.from_batch([1, 2, 3]).keyby(lambda n: "all").window(Count(2)).count().collect()
        >>> job = env.submit(autostop=True)
        >>> [window.value for window in counts]
        [2, 1]
        """
        counts = self._keyed._add(kinds.WINDOW, None, "count", parallelism, spec=self._spec(counts=True))
        self._late_behind(counts, counts)
        return counts._ours(kinds.MAP, self._make, workers=None)._belongs(counts, "results")

    @property
    def _make(self) -> Callable[[tuple[Any, ...]], Windowed[K, Any]]:
        """What makes a result of its fields."""
        return windowed if self._emits_cut else Windowed._make

    def apply(
        self, function: Callable[[K, float, float, list[T]], U], *, parallelism: int = 1
    ) -> DataStream[Windowed[K, U]]:
        """Emits the result of ``function(key, start, end, records)`` for all records of a key and window. The records
        are kept until the window fires.

        >>> env = LocalEnvironment("medians")
        >>> def median(key, start, end, records):
        ...     return sorted(records)[len(records) // 2]
        >>> medians = env.from_batch([5, 1, 9]).keyby(lambda n: "all").window(Count(3)).apply(median).collect()
        >>> job = env.submit(autostop=True)
        >>> [window.value for window in medians]
        [5]
        """
        check_plain("apply", function)
        name, make = name_of(function), self._make

        def apply(window: tuple[Any, ...]) -> Windowed[K, U]:
            return make((*window[:3], awaited(name, function(*window[:4])), *window[4:]))

        return self._gathered(kinds.MAP, apply, name, parallelism)

    @overload
    def sum(self, function: None = None, *, parallelism: int = 1) -> DataStream[Windowed[K, T]]: ...

    @overload
    def sum(self, function: Callable[[T], U], *, parallelism: int = 1) -> DataStream[Windowed[K, U]]: ...

    def sum(self, function: Callable[[T], Any] | None = None, *, parallelism: int = 1) -> DataStream[Any]:
        """Emits the sum of the records of each key and window, or of the results of ``function``. Keeps records as
        ``reduce`` does.

        >>> env = LocalEnvironment("sums")
        >>> sums = env.from_batch([1, 2, 3, 4]).keyby(lambda n: "all").window(Count(2)).sum().collect()
        >>> job = env.submit(autostop=True)
        >>> [window.value for window in sums]
        [3, 7]
        """
        of = ops.identity() if function is None else function

        def first(left: list[Any]) -> Any:
            return summand(of(left.pop(0)))

        return self._folded(of, "sum", lambda so_far, record: so_far + of(record), first, parallelism)

    def reduce(self, function: Callable[[T, T], T], *, parallelism: int = 1) -> DataStream[Windowed[K, T]]:
        """Emits one record for each key and window. Calls ``function(so_far, record)`` for each record but the first.

        An open window keeps at most 256 of its records. Sessions keep all, because two may become one; so do windows
        with ``allowed_lateness``, because they may fire again. If the function raises, the report names the last of up
        to 256 records that it was called for, or the result of the window.

        >>> env = LocalEnvironment("highest")
        >>> highest = env.from_batch([1, 5, 3, 4]).keyby(lambda n: "all").window(Count(2)).reduce(max).collect()
        >>> job = env.submit(autostop=True)
        >>> [window.value for window in highest]
        [5, 4]
        """

        return self._folded(function, name_of(function), function, lambda left: left.pop(0), parallelism)

    @overload
    def fold(
        self, initial: Callable[[], U], function: Callable[[U, T], U], *, parallelism: int = 1
    ) -> DataStream[Windowed[K, U]]: ...

    @overload
    def fold(
        self, initial: U, function: Callable[[U, T], U], *, parallelism: int = 1
    ) -> DataStream[Windowed[K, U]]: ...

    def fold(self, initial: Any, function: Callable[[Any, T], Any], *, parallelism: int = 1) -> DataStream[Any]:
        """Emits one value for each key and window. For each record, ``function(so_far, record)`` returns the next
        value.

        ``initial`` is the first value: a value, which is copied for each key and window, or a function that makes one.
        Records are kept as by ``reduce``.

        >>> env = LocalEnvironment("texts")
        >>> windows = env.from_batch([1, 2, 3]).keyby(lambda n: "all").window(Count(2))
        >>> texts = windows.fold("", lambda so_far, n: so_far + str(n)).collect()
        >>> job = env.submit(autostop=True)
        >>> [window.value for window in texts]
        ['12', '3']
        """
        new = State(initial).new
        return self._folded(function, name_of(function), function, lambda left: new(), parallelism)

    def _folded(
        self,
        function: Any,
        name: str,
        step: Callable[[Any, Any], Any],
        first: Callable[[list[Any]], Any],
        parallelism: int,
    ) -> DataStream[Any]:
        """Folds by ``step``, which begins with what ``first`` returns: that may take it from the records."""
        check_plain(name, function)

        make = self._make

        def made(window: tuple[Any, ...]) -> Windowed[K, Any]:
            return make((*window[:3], awaited(name, window[3]), *window[4:]))

        # Else all records of a window are there when it fires.
        is_open = not (isinstance(self._windows, Session) or self._lateness)
        fold = _in_blocks(step, first) if is_open else None
        return self._gathered(kinds.FOLDED, step, name, parallelism, fold, State(partial(Folding, first, made)))

    def _gathered(
        self,
        kind: kinds.Kind,
        function: Any,
        name: str,
        parallelism: int,
        fold: _Fold | None = None,
        state: State = State(),  # noqa: B008
    ) -> DataStream[Any]:
        """Adds a step behind the windows, which are a part of it; ``fold`` runs while they are open."""
        spec = self._spec(folds=fold is not None)
        windows = self._keyed._ours(kinds.WINDOW, fold, parallelism, is_aside=False, spec=spec)
        stream = windows._add(kind, function, name, state=state)
        self._late_behind(windows._belongs(stream, "windows"), stream)
        return stream

    def _spec(self, counts: bool = False, folds: bool = False) -> Spec:
        cut, late = self._emits_cut, self._late is not None
        return Spec.Window(self._windows, counts, folds, self._lateness, self._by_clock, late, cut)

    def _late_behind(self, windows: DataStream[Any], stream: DataStream[Any]) -> None:
        """Adds the step for late records, which are the second output of the windows."""
        if self._late is not None:
            late: DataStream[T] = DataStream(windows._environment, windows._step, 1)
            late._then(kinds.SINK, self._late, (), {}, 1, f"late for {stream._step.name}", is_given=False)
