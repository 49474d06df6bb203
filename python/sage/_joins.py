"""Joins of two keyed streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic

from . import _kinds as kinds
from ._arguments import whole
from ._keywords import no_attribute, spelt
from ._sage import Spec
from ._stream import DataStream, K, T, U
from ._windows import Paired, Sliding, Tumbling, WindowPaired, emits_cut, window_paired

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._keyed import KeyedStream
    from ._windows import OnSignal

#: How many records of each stream a replica of a join may keep in memory.
MAX_RECORDS = 100_000_000


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
