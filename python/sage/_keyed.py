"""Keyed streams: what is kept for each key. Windows are in ``_windowed``, joins in ``_joins``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from . import _kinds as kinds
from . import ops
from ._arguments import seconds, whole
from ._given import check_class, check_plain
from ._keywords import spelt
from ._process import ProcessFunction
from ._sage import Spec, Strategy
from ._states import State
from ._stream import DataStream, K, T, U
from ._windowed import WindowedStream
from ._windows import Count, Session, Sliding, Tumbling, Windows, emits_cut

if TYPE_CHECKING:
    from ._joins import JoinedStreams
    from ._types import Seconds
    from ._windows import OnSignal

#: The state of a key.
S = TypeVar("S")

#: The longest time after which a state can expire: a century.
MAX_SECONDS = 100 * 366 * 86_400.0


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
        from ._joins import JoinedStreams

        return JoinedStreams(self, right)


def _expiry(expire_after: Any) -> float:
    time = seconds("`expire_after`", expire_after, 0.001, hint="; without it none expire")
    if time > MAX_SECONDS:
        raise ValueError(f"`expire_after` is at most a century, not {expire_after!r} seconds; without it none expires")
    return time
