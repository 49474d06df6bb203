"""Keyed streams: states, windows and joins, for each key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from . import _kinds as kinds
from . import ops
from ._arguments import length, seconds, whole
from ._awaiting import awaited
from ._keywords import no_attribute, spelt
from ._process import ProcessFunction
from ._sage import Spec, Strategy
from ._states import Folding, State, summand
from ._given import check_class, check_function, check_plain, name_of
from ._stream import DataStream, K, T, U
from ._windows import (
    Count,
    Paired,
    Session,
    Sliding,
    Tumbling,
    Windowed,
    WindowPaired,
    Windows,
    emits_cut,
    window_paired,
    windowed,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._types import Seconds

#: What becomes of windows that a signal cuts.
OnSignal = Literal["drop", "emit"]

#: The state of a key.
S = TypeVar("S")

#: How many records of each stream a replica of a join may keep in memory.
MAX_RECORDS = 100_000_000

#: The longest time after which a state can expire: a century.
MAX_SECONDS = 100 * 366 * 86_400.0

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
class KeyedStream(DataStream[T], Generic[K, T]):
    """A stream whose records have a key.

    Keys compare as in a ``dict``, except that all NaN floats are one key. If the next step has several replicas, all
    records of a key go to the same one. It is the same one in every run, if the key is made of ``str``, ``bytes``,
    numbers, ``None``, tuples and frozensets; for other classes their ``__hash__`` decides. So let equal keys be of one
    class: an object that is equal to a plain value may go to another replica. Plain texts next to texts of a class with
    its own ``__hash__`` are an error there.

    >>> env = LocalEnvironment("words")
    >>> counts = env.from_batch(["tea", "pot", "tea"]).keyby(lambda word: word).count().collect()
    >>> job = env.submit(autostop=True)
    >>> counts
    [('tea', 2), ('pot', 1)]
    """

    def _state(
        self, kind: kinds.Kind, function: Any, parallelism: int, expire_after: Seconds | None = None, **keeps: Any
    ) -> DataStream[Any]:
        """Adds a step that keeps a state for each key, which may expire."""
        spec = None if expire_after is None else Spec.Expiring(_expiry(expire_after), function is not None)
        # The name of the function to sum up is not a name for a sum.
        named = kind.name if function is None or kind is kinds.SUM else None
        if function is not None:
            check_plain(kind.name, function, named)
        is_whole = self._step.kind is kinds.WHOLE
        if not is_whole and self._step.strategy != Strategy.Hash:
            raise ValueError(
                f"`{kind.name}` needs the records of a key in one place: use `keyby` with the strategy `hash`"
            )
        if is_whole:
            self._environment._declare(self._step)
        stream = self._add(kind, function, named, parallelism, spec=spec, state=State(is_whole=is_whole, **keeps))
        if is_whole:
            self._belongs(stream, "all")
        return stream

    def count(self, *, parallelism: int = 1) -> DataStream[tuple[K, int]]:  # type: ignore[override]
        """Emits pairs of each key and the number of its records, at the end of input.

        >>> env = LocalEnvironment("lengths")
        >>> counts = env.from_batch(["tea", "pot", "kettle"]).keyby(len).count().collect()
        >>> job = env.submit(autostop=True)
        >>> counts
        [(3, 2), (6, 1)]
        """
        return self._state(kinds.COUNT, None, parallelism)

    @overload  # type: ignore[override]
    def sum(self, function: None = None, *, parallelism: int = 1) -> DataStream[tuple[K, T]]: ...

    @overload
    def sum(self, function: Callable[[T], U], *, parallelism: int = 1) -> DataStream[tuple[K, U]]: ...

    def sum(self, function: Callable[[T], Any] | None = None, *, parallelism: int = 1) -> DataStream[Any]:
        """Emits pairs of each key and the sum of its records, or of the results of ``function``, at the end of
        input.

        >>> env = LocalEnvironment("totals")
        >>> totals = env.from_batch([1, 2, 3, 4]).keyby(lambda n: n % 2).sum().collect()
        >>> job = env.submit(autostop=True)
        >>> totals
        [(1, 4), (0, 6)]
        """
        return self._state(kinds.SUM, ops.identity() if function is None else function, parallelism)

    def reduce(  # type: ignore[override]
        self, function: Callable[[T, T], T], *, parallelism: int = 1
    ) -> DataStream[tuple[K, T]]:
        """Emits pairs of each key and one record, at the end of input. Calls ``function(so_far, record)`` for each
        record of a key but the first.

        >>> env = LocalEnvironment("latest")
        >>> latest = env.from_batch([("ada", 1), ("ben", 2), ("ada", 3)]).keyby(lambda order: order[0])
        >>> latest = latest.reduce(lambda before, now: now).collect()
        >>> job = env.submit(autostop=True)
        >>> latest
        [('ada', ('ada', 3)), ('ben', ('ben', 2))]
        """
        return self._state(kinds.REDUCE, function, parallelism)

    @overload  # type: ignore[override]
    def fold(
        self, initial: Callable[[], U], function: Callable[[U, T], U], *, parallelism: int = 1
    ) -> DataStream[tuple[K, U]]: ...

    @overload
    def fold(
        self, initial: U, function: Callable[[U, T], U], *, parallelism: int = 1
    ) -> DataStream[tuple[K, U]]: ...

    def fold(self, initial: Any, function: Callable[[Any, T], Any], *, parallelism: int = 1) -> DataStream[Any]:
        """Emits pairs of each key and one value, at the end of input. For each record, ``function(so_far, record)``
        returns the next value.

        ``initial`` is the first value of a key: a value, which is copied for each key, or a function that makes one,
        such as ``list``.

        >>> env = LocalEnvironment("lists")
        >>> words = env.from_batch(["tea", "pot", "cup"]).keyby(len)
        >>> lists = words.fold(list, lambda so_far, word: [*so_far, word]).collect()
        >>> job = env.submit(autostop=True)
        >>> lists
        [(3, ['tea', 'pot', 'cup'])]
        """
        return self._state(kinds.FOLD, function, parallelism, initial=initial)

    @overload
    def map_with_state(
        self,
        initial: Callable[[], S],
        function: Callable[[S, T], tuple[S, U]],
        *,
        parallelism: int = 1,
        expire_after: Seconds | None = None,
    ) -> DataStream[U]: ...

    @overload
    def map_with_state(
        self,
        initial: S,
        function: Callable[[S, T], tuple[S, U]],
        *,
        parallelism: int = 1,
        expire_after: Seconds | None = None,
    ) -> DataStream[U]: ...

    def map_with_state(
        self,
        initial: Any,
        function: Callable[[Any, T], tuple[Any, Any]],
        *,
        parallelism: int = 1,
        expire_after: Seconds | None = None,
    ) -> DataStream[Any]:
        """Replaces each record: ``function(state, record)`` returns a pair of the key's next state and the new record.

        ``initial`` is as in ``fold``. A state is kept until the end of input. With ``expire_after``, it is forgotten
        when no record of its key has come for so many seconds by the clock; the key's next record finds ``initial``
        again. An expired state is freed within another such time.

        >>> env = LocalEnvironment("running")
        >>> def add(total, n):
        ...     return total + n, total + n  # the next state, and what goes on
        >>> totals = env.from_batch([1, 2, 3]).keyby(lambda n: "all").map_with_state(0, add).collect()
        >>> job = env.submit(autostop=True)
        >>> totals
        [1, 3, 6]
        """
        return self._state(kinds.MAP_WITH_STATE, function, parallelism, expire_after, initial=initial)

    @overload
    def flatmap_with_state(
        self,
        initial: Callable[[], S],
        function: Callable[[S, T], tuple[S, Iterable[U]]],
        *,
        parallelism: int = 1,
        expire_after: Seconds | None = None,
    ) -> DataStream[U]: ...

    @overload
    def flatmap_with_state(
        self,
        initial: S,
        function: Callable[[S, T], tuple[S, Iterable[U]]],
        *,
        parallelism: int = 1,
        expire_after: Seconds | None = None,
    ) -> DataStream[U]: ...

    def flatmap_with_state(
        self,
        initial: Any,
        function: Callable[[Any, T], tuple[Any, Any]],
        *,
        parallelism: int = 1,
        expire_after: Seconds | None = None,
    ) -> DataStream[Any]:
        """As ``map_with_state``, for a function that returns a pair of the next state and an iterable. Also called
        ``flat_map_with_state``.

        >>> env = LocalEnvironment("changes")
        >>> def changed(before, now):
        ...     return now, [] if now == before else [now]
        >>> changes = env.from_batch([1, 1, 2, 2, 1]).keyby(lambda n: "all").flatmap_with_state(None, changed).collect()
        >>> job = env.submit(autostop=True)
        >>> changes
        [1, 2, 1]
        """
        return self._state(kinds.FLATMAP_WITH_STATE, function, parallelism, expire_after, initial=initial)

    #: The name in Rust.
    flat_map_with_state = flatmap_with_state

    def distinct(self, *, parallelism: int = 1, expire_after: Seconds | None = None) -> DataStream[T]:
        """Keeps the first record of each key; with ``expire_after``, also the first one after so many seconds without a
        record.

        >>> env = LocalEnvironment("distinct")
        >>> words = env.from_batch(["tea", "pot", "tea"]).keyby(lambda word: word).distinct().collect()
        >>> job = env.submit(autostop=True)
        >>> words
        ['tea', 'pot']
        """
        return self._state(kinds.DISTINCT, None, parallelism, expire_after)

    def top_k(
        self, most: int, rank: Callable[[T], Any] | None = None, *, parallelism: int = 1
    ) -> DataStream[tuple[K, list[T]]]:
        """Emits pairs of each key and a list of its ``most`` records with the highest ``rank``, at the end of input; of
        equal ranks the earlier. Without ``rank``, the records themselves are compared.

        >>> env = LocalEnvironment("highest")
        >>> highest = env.from_batch([5, 1, 9, 7]).keyby(lambda n: "all").top_k(2).collect()
        >>> job = env.submit(autostop=True)
        >>> highest
        [('all', [9, 7])]
        """
        most = whole("`top_k` keeps at least one record of each key: the first argument", most)
        return self._state(kinds.TOP_K, rank, parallelism, most=most)

    def process(
        self, function: type[ProcessFunction], *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any
    ) -> DataStream[Any]:
        """Calls a ``ProcessFunction`` for each record with the state of its key, and for each timer that such a call
        has set. The records it pushes go on.

        >>> class Alternate(ProcessFunction):
        ...     def on_record(self, record, key):
        ...         key.state = not key.state
        ...         if key.state:
        ...             key.push(record)
        >>> env = LocalEnvironment("alternate")
        >>> records = env.from_batch([1, 2, 3, 4]).keyby(lambda n: "all").process(Alternate).collect()
        >>> job = env.submit(autostop=True)
        >>> records
        [1, 3]
        """
        check_class("process", ProcessFunction, function, args, kwargs, name)
        return self._add(kinds.PROCESS, function, name, parallelism, args, kwargs, spec=Spec.Process())

    def window(self, windows: Windows, *, on_signal: OnSignal = "drop") -> WindowedStream[K, T]:
        """Cuts the records of each key into windows of event time, which ``with_timestamps`` gave them. A window fires
        when all records that may be in it have come.

        ``on_signal`` says what becomes of windows that are open when SIGINT or SIGTERM drains the job: ``"drop"`` (the
        default) drops them, and the report has their number; ``"emit"`` has them fire with the records they have, and
        their results are ``is_partial``. Where a signal is to be like ``stop``, by ``"on_signal": "finish"`` of the
        environment's ``config``, they fire as at the end of input.

        >>> env = LocalEnvironment("pairs")
        >>> pairs = env.from_batch([1, 2, 3]).keyby(lambda n: "all").window(Count(2)).sum().collect()
        >>> job = env.submit(autostop=True)
        >>> [window.value for window in pairs]
        [3, 3]
        """
        if not self._step.is_timed and not isinstance(windows, Count):
            raise ValueError(
                "windows of event time need `with_timestamps` before the `keyby`; or use `window_by_clock`"
            )
        return WindowedStream(self, windows, by_clock=False, emits_cut=emits_cut(on_signal))

    def window_by_clock(
        self, windows: Tumbling | Sliding | Session, *, on_signal: OnSignal = "drop"
    ) -> WindowedStream[K, T]:
        """Cuts the records of each key into windows of processing time: a record is in the windows that are
        open when it comes. ``on_signal`` is as for ``window``.

        >>> env = LocalEnvironment("seconds")
        >>> words = env.from_batch(["tea", "tea"]).keyby(lambda word: word)
        >>> counts = words.window_by_clock(Session(60)).count().collect()
        >>> job = env.submit(autostop=True)
        >>> [(window.key, window.value) for window in counts]
        [('tea', 2)]
        """
        return WindowedStream(self, windows, by_clock=True, emits_cut=emits_cut(on_signal))

    def join(self, right: KeyedStream[K, U]) -> JoinedStreams[K, T, U]:
        """Joins this stream, the left one, with another by their keys. Both must end, or be joined in windows. The
        right stream is kept in memory, so let it be the smaller one.

        >>> env = LocalEnvironment("join")
        >>> orders = env.from_batch([("ada", "tea"), ("cy", "pot")]).keyby(lambda order: order[0])
        >>> towns = env.from_batch([("ada", "Bonn")]).keyby(lambda town: town[0])
        >>> pairs = orders.join(towns).left().collect()
        >>> job = env.submit(autostop=True)
        >>> sorted((pair.left[1], pair.right and pair.right[1]) for pair in pairs)
        [('pot', None), ('tea', 'Bonn')]
        """
        if not isinstance(right, KeyedStream):
            raise TypeError(f"`join` needs another keyed stream, not {right!r}; use `keyby` before it")
        if right._environment is not self._environment:
            raise ValueError("streams of two environments cannot be joined")
        return JoinedStreams(self, right)


def _expiry(expire_after: Any) -> float:
    time = seconds("`expire_after`", expire_after, 0.001, hint="; without it none expire")
    if time > MAX_SECONDS:
        raise ValueError(f"`expire_after` is at most a century, not {expire_after!r} seconds; without it none expires")
    return time


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


class _Join(Generic[K, T, U]):
    """Two keyed streams, to be joined."""

    def __init__(self, left: KeyedStream[K, T], right: KeyedStream[K, U], max_records: int = MAX_RECORDS) -> None:
        self._left = left
        self._right = right
        self._max_records = max_records

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._merged()._place()}>"

    if not TYPE_CHECKING:  # for checkers there is no such attribute

        def __getattr__(self, name):
            raise no_attribute(self, name, DataStream, "say first which pairs, by `inner`, `left` or `full`")

    def max_records(self, records: int) -> Self:
        """Sets how many records of each stream a replica may keep in memory. One more fails the job. Default: 100
        million.

        >>> env = LocalEnvironment("join")
        >>> left, right = env.from_batch([1, 2]).keyby(abs), env.from_batch([-1, 3]).keyby(abs)
        >>> pairs = left.join(right).max_records(1000).inner().collect()
        >>> job = env.submit(autostop=True)
        >>> pairs
        [Paired(key=1, left=1, right=-1)]
        """
        self._max_records = whole("`max_records`", records)
        return self

    def _joined(
        self,
        name: str,
        lefts: bool,
        rights: bool,
        parallelism: int,
        make: Callable[[tuple[Any, ...]], Any] = Paired._make,
        windows: Tumbling | Sliding | None = None,
        emits_cut: bool = False,
    ) -> DataStream[Any]:
        merged = self._merged()
        spec = Spec.Join(lefts, rights, self._max_records, windows, emits_cut)
        joined = merged._add(kinds.JOIN, None, name, parallelism, spec=spec)
        return joined._ours(kinds.MAP, make, workers=None)._belongs(joined, "pairs")

    def _merged(self) -> DataStream[Any]:
        """The records of both."""
        merged: DataStream[Any] = DataStream(self._left._environment, self._left._step)
        merged._others = [self._right]
        return merged


@spelt
class JoinedStreams(_Join[K, T, U]):
    """Two keyed streams, to be joined. Results are ``Paired`` tuples: key, left and right record.

    >>> env = LocalEnvironment("join")
    >>> orders = env.from_batch([("ada", "tea")]).keyby(lambda order: order[0])
    >>> towns = env.from_batch([("ada", "Bonn")]).keyby(lambda town: town[0])
    >>> pairs = orders.join(towns).inner().collect()
    >>> job = env.submit(autostop=True)
    >>> pairs
    [Paired(key='ada', left=('ada', 'tea'), right=('ada', 'Bonn'))]
    """

    def window(self, windows: Tumbling | Sliding, *, on_signal: OnSignal = "drop") -> WindowedJoin[K, T, U]:
        """Joins only records in the same window of event time. So the streams may be endless. ``on_signal`` is as for
        ``KeyedStream.window``.

        >>> env = LocalEnvironment("minutes")
        >>> views = env.from_batch([("ada", 5), ("ben", 70)]).with_timestamps(lambda view: view[1])
        >>> orders = env.from_batch([("ada", 50), ("ben", 130)]).with_timestamps(lambda order: order[1])
        >>> views, orders = views.keyby(lambda view: view[0]), orders.keyby(lambda order: order[0])
        >>> pairs = views.join(orders).window(Tumbling(60)).inner().collect()
        >>> job = env.submit(autostop=True)
        >>> [(pair.key, pair.start) for pair in pairs]
        [('ada', 0.0)]
        """
        if not isinstance(windows, (Tumbling, Sliding)):
            raise TypeError(f"streams are joined in Tumbling or Sliding windows, not in {windows!r}")
        if not (self._left._step.is_timed and self._right._step.is_timed):
            raise ValueError("both streams need `with_timestamps` before their `keyby`")
        return WindowedJoin(self, windows._checked(), emits_cut(on_signal))

    def inner(self, *, parallelism: int = 1) -> DataStream[Paired[K, T, U]]:
        """Emits the pairs of records with equal keys.

        >>> env = LocalEnvironment("join")
        >>> left, right = env.from_batch([1, 2]).keyby(abs), env.from_batch([-1, -3]).keyby(abs)
        >>> pairs = left.join(right).inner().collect()
        >>> job = env.submit(autostop=True)
        >>> pairs
        [Paired(key=1, left=1, right=-1)]
        """
        return self._joined("inner-join", False, False, parallelism)

    def left(self, *, parallelism: int = 1) -> DataStream[Paired[K, T, U | None]]:
        """Emits the pairs, and the left records without a partner.

        >>> env = LocalEnvironment("join")
        >>> left, right = env.from_batch([1, 2]).keyby(abs), env.from_batch([-1, -3]).keyby(abs)
        >>> pairs = left.join(right).left().collect()
        >>> job = env.submit(autostop=True)
        >>> sorted(pairs)
        [Paired(key=1, left=1, right=-1), Paired(key=2, left=2, right=None)]
        """
        return self._joined("left-join", True, False, parallelism)

    def full(self, *, parallelism: int = 1) -> DataStream[Paired[K, T | None, U | None]]:
        """Emits the pairs, and the records of both streams without a partner.

        >>> env = LocalEnvironment("join")
        >>> left, right = env.from_batch([1, 2]).keyby(abs), env.from_batch([-1, -3]).keyby(abs)
        >>> pairs = left.join(right).full().collect()
        >>> job = env.submit(autostop=True)
        >>> sorted(pair.key for pair in pairs)
        [1, 2, 3]
        """
        return self._joined("full-join", True, True, parallelism)


@spelt
class WindowedJoin(_Join[K, T, U]):
    """Two keyed streams, to be joined in windows: ``JoinedStreams.window`` makes it. Results are ``WindowPaired``
    tuples: key, start and end of the window, left and right record."""

    def __init__(self, streams: JoinedStreams[K, T, U], windows: Tumbling | Sliding, emits_cut: bool) -> None:
        super().__init__(streams._left, streams._right, streams._max_records)
        self._in = window_paired if emits_cut else WindowPaired._make, windows, emits_cut

    def __repr__(self) -> str:
        return f"<WindowedJoin {self._merged()._place()}, {self._in[1]!r}>"

    def inner(self, *, parallelism: int = 1) -> DataStream[WindowPaired[K, T, U]]:
        """Emits the pairs of records with equal keys in one window."""
        return self._joined("inner-join", False, False, parallelism, *self._in)

    def left(self, *, parallelism: int = 1) -> DataStream[WindowPaired[K, T, U | None]]:
        """Emits the pairs, and the left records without a partner in their window."""
        return self._joined("left-join", True, False, parallelism, *self._in)

    def full(self, *, parallelism: int = 1) -> DataStream[WindowPaired[K, T | None, U | None]]:
        """Emits the pairs, and the records of both streams without a partner in their window."""
        return self._joined("full-join", True, True, parallelism, *self._in)
