"""Several streams at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._arguments import numbered
from ._functions import BaseCoMapFunction, BaseJoinFunction
from ._kinds import COJOIN, COMAP, COMAP_SOME, KEYBY, KEYTAG, PROCESS, TAG, Kind
from ._keywords import spelt
from ._policies import FAIL
from ._process import CoProcessFunction
from ._sage import Spec, Strategy
from ._given import check_class, check_parallelism, name_of
from ._stream import DataStream
from ._transformation import Transformation

if TYPE_CHECKING:
    from ._pipeline import Pipeline


@spelt
class ConnectedStreams:
    """Connected streams, numbered from 0 in the order in which they were connected.

    >>> env = LocalEnvironment("both")
    >>> numbers = env.from_batch([1]).connect(env.from_batch([2])).map(str).collect()
    >>> job = env.submit(autostop=True)
    >>> sorted(numbers)
    ['1', '2']
    """

    def __init__(self, environment: Pipeline, streams: Sequence[DataStream[Any]]) -> None:
        self._environment = environment
        self._streams = list(streams)

    def __repr__(self) -> str:
        return f"<ConnectedStreams {self._merged()._place()}, {numbered(len(self._streams), 'stream')}>"

    def connect(self, other: DataStream[Any] | ConnectedStreams) -> ConnectedStreams:
        """Adds a stream, or several.

        >>> env = LocalEnvironment("three")
        >>> both = env.from_batch([1]).connect(env.from_batch([2]))
        >>> numbers = both.connect(env.from_batch([3])).map(str).collect()
        >>> job = env.submit(autostop=True)
        >>> sorted(numbers)
        ['1', '2', '3']
        """
        if not isinstance(other, (DataStream, ConnectedStreams)):
            raise TypeError(f"`connect` needs another stream, not {other!r}")
        more = other._streams if isinstance(other, ConnectedStreams) else [other]
        if any(stream._environment is not self._environment for stream in more):
            raise ValueError("streams of two environments cannot be connected")
        return ConnectedStreams(self._environment, [*self._streams, *more])

    def _merged(self) -> DataStream[Any]:
        """The records of all of them."""
        first, *others = self._streams
        merged: DataStream[Any] = DataStream(self._environment, first._step, first._output)
        merged._others = list(others)
        return merged

    def map(self, function: Any, *args: Any, **kwargs: Any) -> DataStream[Any]:
        """As ``DataStream.map``, for the records of all streams.

        >>> env = LocalEnvironment("both")
        >>> squares = env.from_batch([1]).connect(env.from_batch([2])).map(lambda n: n * n).collect()
        >>> job = env.submit(autostop=True)
        >>> sorted(squares)
        [1, 4]
        """
        return self._merged().map(function, *args, **kwargs)

    def sink(self, function: Any, *args: Any, **kwargs: Any) -> ConnectedStreams:
        """As ``DataStream.sink``, for the records of all streams.

        >>> env = LocalEnvironment("both")
        >>> seen = set()
        >>> streams = env.from_batch([1]).connect(env.from_batch([2])).sink(seen.add)
        >>> job = env.submit(autostop=True)
        >>> seen
        {1, 2}
        """
        self._merged().sink(function, *args, **kwargs)
        return self

    def print(self, prefix: str = "", separator: str = " | ", colored: bool = False) -> ConnectedStreams:
        """As ``DataStream.print``, for the records of all streams.

        >>> env = LocalEnvironment("both")
        >>> streams = env.from_batch(["tea"]).connect(env.from_batch(["tea"])).print()
        >>> job = env.submit(autostop=True)
        tea
        tea
        """
        self._merged().print(prefix, separator, colored)
        return self

    def keyby(self, key_selector: Any, strategy: str = "hash") -> ConnectedStreams:
        """As ``DataStream.keyby``, with one function for all streams or a list with one for each.

        >>> class Name(BaseCoMapFunction):
        ...     def map0(self, order):
        ...         return f"{order[0]} ordered"
        ...     def map1(self, payment):
        ...         return f"{payment['by']} paid"
        >>> env = LocalEnvironment("shop")
        >>> both = env.from_batch([("ada", 3)]).connect(env.from_batch([{"by": "ada"}]))
        >>> told = both.keyby([lambda order: order[0], lambda payment: payment["by"]]).comap(Name).collect()
        >>> job = env.submit(autostop=True)
        >>> sorted(told)
        ['ada ordered', 'ada paid']
        """
        is_list = isinstance(key_selector, (list, tuple))
        functions = key_selector if is_list else [key_selector] * len(self._streams)
        if len(functions) != len(self._streams):
            raise ValueError(
                f"{len(self._streams)} streams need as many functions, or one for all, not {len(functions)}"
            )
        keyed = [stream.keyby(each, strategy=strategy) for stream, each in zip(self._streams, functions)]
        return ConnectedStreams(self._environment, keyed)

    def _tagged(self) -> list[tuple[Transformation, int]]:
        """Adds a step to each stream that says of its records which stream they are of, and their key if they
        have one."""
        environment = self._environment
        tagged = []
        for index, stream in enumerate(self._streams):
            before = stream._step
            if before.kind is KEYBY:
                step = replace(before, kind=KEYTAG, index=index, policy=FAIL, is_replaced=False)
                is_read = any(before is read for other in environment._steps for read, _ in other.inputs)
                if before.is_replaced or is_read:
                    step.name = environment._named(f"{before.name} again")
                else:
                    before.is_replaced = True
                    environment._steps.remove(before)
                environment._declare(step)
            else:
                step = stream._ours(TAG, index=index)._step
            tagged.append((step, 0))
        return tagged

    def _gathered(
        self, kind: Kind, function: Any, args: Any, kwargs: Any, parallelism: int, name: str | None, spec: Any = None
    ) -> DataStream[Any]:
        made = function, args, kwargs
        parallelism = check_parallelism(parallelism)
        name = self._environment._named(name or name_of(function))
        step = Transformation(kind, name, made, self._tagged(), parallelism, spec=spec)
        joined = self._environment._declare(step)
        for before, _ in step.inputs:
            if before.kind is TAG:
                DataStream(self._environment, before)._belongs(joined, f"input {before.index}")
        return joined

    def comap(
        self,
        function: Any,
        *args: Any,
        parallelism: int = 1,
        name: str | None = None,
        keep_none: bool | None = None,
        **kwargs: Any,
    ) -> DataStream[Any]:
        """Replaces each record of stream N by the result of method ``mapN`` of a ``BaseCoMapFunction`` class.

        A result that is ``None`` is no record, unless ``keep_none`` is true: see ``DataStream.map``.

        >>> class Name(BaseCoMapFunction):
        ...     def map0(self, order):
        ...         return f"order {order}"
        ...     def map1(self, payment):
        ...         return f"payment {payment}"
        >>> env = LocalEnvironment("shop")
        >>> told = env.from_batch([1]).connect(env.from_batch([2])).comap(Name).collect()
        >>> job = env.submit(autostop=True)
        >>> sorted(told)
        ['order 1', 'payment 2']
        """
        check_class("comap", BaseCoMapFunction, function, args, kwargs, name)
        self._check_methods(function, "map")
        kind = COMAP if self._environment._keeps_none(keep_none) else COMAP_SOME
        return self._gathered(kind, function, args, kwargs, parallelism, name)

    def _check_methods(self, function: type, what: str) -> None:
        """Raises if a class has no method for one of the streams."""
        for index in range(len(self._streams)):
            method = f"{what}{index}"
            if not callable(getattr(function, method, None)):
                raise TypeError(f"`{function.__name__}` has no `{method}`, for stream {index} of {len(self._streams)}")

    def _have_keys(self) -> bool:
        return all(stream._step.kind is KEYBY and stream._step.strategy == Strategy.Hash for stream in self._streams)

    def coprocess(
        self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any
    ) -> DataStream[Any]:
        """Calls method ``on_recordN`` of a ``CoProcessFunction`` class for each record of stream N, and ``on_timer``
        for each timer that such a call has set. All streams share the state of a key. The records that these methods
        push go on.

        All streams need a key, by ``keyby``. Records of a key go to the same replica. Those of one stream keep their
        order; between streams there is no order. For timers of event time, each stream needs ``with_timestamps`` before
        its ``keyby``.

        >>> class Balance(CoProcessFunction):
        ...     def on_record0(self, paid, key):
        ...         key.state = (key.state or 0) + paid[1]
        ...         key.push((key.key, key.state))
        ...     def on_record1(self, spent, key):
        ...         key.state = (key.state or 0) - spent[1]
        ...         key.push((key.key, key.state))
        >>> env = LocalEnvironment("balances")
        >>> paid, spent = env.from_batch([("ada", 30)]), env.from_batch([("ben", 5)])
        >>> balances = paid.connect(spent).keyby(lambda each: each[0]).coprocess(Balance).collect()
        >>> job = env.submit(autostop=True)
        >>> sorted(balances)
        [('ada', 30), ('ben', -5)]
        """
        check_class("coprocess", CoProcessFunction, function, args, kwargs, name)
        self._check_methods(function, "on_record")
        if not self._have_keys():
            raise ValueError("all streams of a `coprocess` need a key: use `keyby` before it, with the strategy `hash`")
        return self._gathered(PROCESS, function, args, kwargs, parallelism, name, Spec.Process())

    def join(
        self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any
    ) -> DataStream[Any]:
        """Joins two streams with keys, by a ``BaseJoinFunction`` class. ``keyby`` gives streams their keys. Records of
        equal keys go to the same replica.

        >>> class Pairs(BaseJoinFunction):
        ...     def __init__(self):
        ...         self.orders = {}
        ...     def execute(self, payload, key, tag):
        ...         if tag == 0:
        ...             self.orders[key] = payload
        ...         return [(key, payload)] if tag == 1 else []
        >>> env = LocalEnvironment("payments")
        >>> orders = env.from_batch([("ada", "tea")]).keyby(lambda order: order[0])
        >>> paid = env.from_batch([("ada", 30)]).keyby(lambda payment: payment[0])
        >>> pairs = orders.connect(paid).join(Pairs).collect()
        >>> job = env.submit(autostop=True)
        >>> pairs
        [('ada', ('ada', 30))]
        """
        check_class("join", BaseJoinFunction, function, args, kwargs, name)
        if len(self._streams) != 2:
            raise ValueError(f"`join` takes two streams, not {len(self._streams)}")
        if not self._have_keys():
            raise ValueError("both streams of a `join` need a key: use `keyby` before it, with the strategy `hash`")
        return self._gathered(COJOIN, function, args, kwargs, parallelism, name)
