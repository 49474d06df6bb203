"""Streams: a program's pipeline, step by step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, SupportsFloat, TypeVar, cast, overload

from . import _kinds as kinds
from . import ops
from ._arguments import length, seconds, whole
from ._file_sinks import FileSinks
from ._given import batches_of, check_plain, name_of
from ._io import PrintSink
from ._keywords import spelt
from ._sage import Spec, Strategy
from ._transformation import Times
from ._types import default, given

if TYPE_CHECKING:
    from datetime import datetime

    from typing_extensions import Self, Unpack

    from ._connected import ConnectedStreams
    from ._keyed import KeyedStream
    from ._policies import Retry
    from ._types import Executes, OnError, OnWorkerLoss, Options, Places, Seconds, SinkOptions, Workers

_STRATEGIES = {"hash": Strategy.Hash, "broadcast": Strategy.Broadcast, "round_robin": Strategy.RoundRobin}

Strategies = Literal["hash", "broadcast", "round_robin"]

#: The records of a stream, those behind a step, and keys.
T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K")


@spelt
class DataStream(FileSinks, Generic[T]):
    """The records that come out of a step. For type checkers, ``DataStream[T]`` has records of type ``T``.

    A function may be a class with the arguments of its constructor, an ``async def`` function, or any callable.
    Besides the arguments of a constructor, ``map``, ``filter``, ``flatmap``, ``split`` and ``sink`` take these
    keywords; those of the last two rows only where the constructor has no parameter of that name:

    - ``name``: the operator's name in the report, which a constructor gets as well if it has a parameter ``name`` or
      takes any keyword; ``parallelism``: the number of its replicas (default 1);
    - ``on_error``: ``"fail"`` (the default), ``"skip"``, a ``Skip`` or a ``DeadLetterQueue``; ``retry``: a number of
      attempts or a ``Retry``. With either, the function is called for one record at a time, and a failing record emits
      nothing;
    - ``in_flight``: how many records are worked on at the same time, 1 to 1,048,576; the default for ``async def``
      functions is 64. With it, a function that is not async is called on threads, at most 256. ``ordered=False`` sends
      results on as they come. ``timeout`` is how long each record may take, in seconds from the begin of its call;
    - ``workers``: ``"processes"`` runs the function in a process of its own for each of its replicas, ``"ray"`` in an
      actor of a Ray cluster (see ``sage.ray``), ``None`` on a thread; the default is that of the environment.
      ``parallelism`` is what it was. ``on_worker_loss`` says what becomes of a process that ends by itself, such as one
      that was killed: ``"fail"`` (the default) fails the job, ``"restart"`` starts another one, which gets the records
      again that the first one had. So some records may be worked on, and go on, more than once. It is for functions
      that keep no state. ``ray`` says what each worker takes where it is an actor, as ``ray`` of ``config`` does, such
      as ``ray={"num_cpus": 0.5, "num_gpus": 1}``; what it does not say is as there. Elsewhere it has no effect.

    >>> env = LocalEnvironment("words")
    >>> words = env.from_batch(["good tea", "weak tea"]).flatmap(str.split).filter(lambda word: word != "tea").collect()
    >>> job = env.submit(autostop=True)
    >>> words
    ['good', 'weak']
    """

    @overload
    def map(
        self, function: type[Executes], *args: Any, keep_none: bool | None = None, **kwargs: Any
    ) -> DataStream[Any]: ...

    @overload
    def map(
        self,
        function: Callable[[T], Awaitable[U]],
        *,
        keep_none: Literal[True],
        **options: Unpack[Options],
    ) -> DataStream[U]: ...

    @overload
    def map(
        self, function: Callable[[T], U], *, keep_none: Literal[True], **options: Unpack[Options]
    ) -> DataStream[U]: ...

    @overload
    def map(
        self,
        function: Callable[[T], Awaitable[U | None]],
        *,
        keep_none: bool | None = None,
        **options: Unpack[Options],
    ) -> DataStream[U]: ...

    @overload
    def map(
        self, function: Callable[[T], U | None], *, keep_none: bool | None = None, **options: Unpack[Options]
    ) -> DataStream[U]: ...

    def map(
        self,
        function: Any,
        *args: Any,
        parallelism: int = 1,
        name: str | None = None,
        keep_none: bool | None = None,
        on_error: OnError = default("fail"),
        retry: int | Retry | None = default(None),
        in_flight: int | None = default(None),
        ordered: bool = default(True),
        timeout: Seconds | None = default(None),
        workers: Workers | None = default(None),
        on_worker_loss: OnWorkerLoss = default("fail"),
        ray: Mapping[str, Any] | None = default(None),
        **kwargs: Any,
    ) -> DataStream[Any]:
        """Replaces each record by the result of the function.

        A result that is ``None`` is no record. The job's report counts such results, and at the end of the job a line
        in the log of the environment says how many there were. With ``keep_none=True`` they are records like others.
        The default is ``"keep_none"`` of the environment's ``config``. Functions of ``sage.ops`` always keep them.

        >>> env = LocalEnvironment("squares")
        >>> squares = env.from_batch([1, 2, 3]).map(lambda n: n * n).collect()
        >>> job = env.submit(autostop=True)
        >>> squares
        [1, 4, 9]
        """
        given(kwargs, locals())
        keeps = self._environment._keeps_none(keep_none) or isinstance(function, ops.Op)
        kind = kinds.MAP if keeps else kinds.MAP_SOME
        return self._then(kind, function, args, kwargs, parallelism, name)

    @overload
    def filter(self, function: type[Executes], *args: Any, **kwargs: Any) -> DataStream[T]: ...

    @overload
    def filter(self, function: Callable[[T], Any], **options: Unpack[Options]) -> DataStream[T]: ...

    def filter(
        self,
        function: Any,
        *args: Any,
        parallelism: int = 1,
        name: str | None = None,
        on_error: OnError = default("fail"),
        retry: int | Retry | None = default(None),
        in_flight: int | None = default(None),
        ordered: bool = default(True),
        timeout: Seconds | None = default(None),
        workers: Workers | None = default(None),
        on_worker_loss: OnWorkerLoss = default("fail"),
        ray: Mapping[str, Any] | None = default(None),
        **kwargs: Any,
    ) -> DataStream[T]:
        """Keeps the records for which the function's result is true.

        >>> env = LocalEnvironment("even")
        >>> even = env.from_batch(range(6)).filter(lambda n: n % 2 == 0).collect()
        >>> job = env.submit(autostop=True)
        >>> even
        [0, 2, 4]
        """
        given(kwargs, locals())
        return self._then(kinds.FILTER, function, args, kwargs, parallelism, name)

    @overload
    def flatmap(self, function: type[Executes], *args: Any, **kwargs: Any) -> DataStream[Any]: ...

    @overload
    def flatmap(
        self, function: Callable[[T], Awaitable[Iterable[U] | None]], **options: Unpack[Options]
    ) -> DataStream[U]: ...

    @overload
    def flatmap(self, function: Callable[[T], Iterable[U] | None], **options: Unpack[Options]) -> DataStream[U]: ...

    def flatmap(
        self,
        function: Any,
        *args: Any,
        parallelism: int = 1,
        name: str | None = None,
        on_error: OnError = default("fail"),
        retry: int | Retry | None = default(None),
        in_flight: int | None = default(None),
        ordered: bool = default(True),
        timeout: Seconds | None = default(None),
        workers: Workers | None = default(None),
        on_worker_loss: OnWorkerLoss = default("fail"),
        ray: Mapping[str, Any] | None = default(None),
        **kwargs: Any,
    ) -> DataStream[Any]:
        """Replaces each record by the items of the iterable that the function returns. A text, ``bytes``, or an object
        that is not iterable is one record; ``None`` is none, but one in an iterable is a record. Also called
        ``flat_map``.

        >>> env = LocalEnvironment("words")
        >>> words = env.from_batch(["good tea", "weak"]).flatmap(str.split).collect()
        >>> job = env.submit(autostop=True)
        >>> words
        ['good', 'tea', 'weak']
        """
        given(kwargs, locals())
        return self._then(kinds.FLATMAP, function, args, kwargs, parallelism, name)

    #: The name in Rust.
    flat_map = flatmap

    @overload
    def split(
        self, function: type[Executes], *args: Any, **kwargs: Any
    ) -> tuple[DataStream[T], DataStream[T]]: ...

    @overload
    def split(
        self, function: Callable[[T], Any], **options: Unpack[Places]
    ) -> tuple[DataStream[T], DataStream[T]]: ...

    def split(
        self,
        function: Any,
        *args: Any,
        parallelism: int = 1,
        name: str | None = None,
        on_error: OnError = default("fail"),
        retry: int | Retry | None = default(None),
        workers: Workers | None = default(None),
        on_worker_loss: OnWorkerLoss = default("fail"),
        ray: Mapping[str, Any] | None = default(None),
        **kwargs: Any,
    ) -> tuple[DataStream[T], DataStream[T]]:
        """Splits the stream in two: the records for which the function's result is true, and the others.

        Both must end in a sink; either may end before the other.

        >>> env = LocalEnvironment("split")
        >>> even, odd = env.from_batch(range(5)).split(lambda n: n % 2 == 0)
        >>> even, odd = even.collect(), odd.collect()
        >>> job = env.submit(autostop=True)
        >>> even, odd
        ([0, 2, 4], [1, 3])
        """
        given(kwargs, locals())
        stream = self._then(kinds.SPLIT, function, args, kwargs, parallelism, name)
        return stream, DataStream(self._environment, stream._step, 1)

    @overload
    def keyby(self, function: type[Executes], *args: Any, **kwargs: Any) -> KeyedStream[Any, T]: ...

    @overload
    def keyby(
        self,
        function: Callable[[T], K],
        strategy: Strategies = "hash",
        *,
        parallelism: int | None = None,
        name: str | None = None,
        on_error: OnError = "fail",
        retry: int | Retry | None = None,
        workers: Workers | None = None,
        on_worker_loss: OnWorkerLoss = "fail",
        ray: Mapping[str, Any] | None = None,
    ) -> KeyedStream[K, T]: ...

    def keyby(
        self,
        function: Any,
        *args: Any,
        strategy: Strategies = "hash",
        parallelism: int | None = None,
        name: str | None = None,
        on_error: OnError = default("fail"),
        retry: int | Retry | None = default(None),
        workers: Workers | None = default(None),
        on_worker_loss: OnWorkerLoss = default("fail"),
        ray: Mapping[str, Any] | None = default(None),
        **kwargs: Any,
    ) -> KeyedStream[Any, T]:
        """Gives each record a key, and spreads the records over the replicas of the next step. With
        ``strategy="hash"``, records of equal keys go to the same replica; with ``"broadcast"``, every record goes to
        each replica; with ``"round_robin"``, records go to the replicas in turn. The strategy may also come right
        behind the function, as in SAGE.

        Without ``parallelism``, the function has as many replicas as the step before it.

        >>> env = LocalEnvironment("orders")
        >>> totals = env.from_batch([("ada", 3), ("ben", 5), ("ada", 4)]).keyby(lambda order: order[0])
        >>> totals = totals.sum(lambda order: order[1]).collect()
        >>> job = env.submit(autostop=True)
        >>> totals
        [('ada', 7), ('ben', 5)]
        """
        from ._keyed import KeyedStream

        if args and isinstance(args[0], str) and args[0] in _STRATEGIES:
            strategy, args = cast(Strategies, args[0]), args[1:]
        if strategy not in _STRATEGIES:
            raise ValueError(f"a strategy is one of {', '.join(_STRATEGIES)}, not {strategy!r}")
        if parallelism is None:
            parallelism = 1 if self._others else self._step.parallelism
        given(kwargs, locals())
        step = self._then(kinds.KEYBY, function, args, kwargs, parallelism, name)._step
        step.strategy = _STRATEGIES[strategy]
        return KeyedStream(self._environment, step)

    def with_timestamps(
        self,
        function: Callable[[T], SupportsFloat | datetime],
        *,
        out_of_order: Seconds = 0.0,
        idle_after: Seconds | None = None,
    ) -> DataStream[T]:
        """Gives each record its event time, for windows of event time. The function returns seconds since 1970, as a
        number of any kind, or a ``datetime``. Times are rounded to milliseconds.

        ``out_of_order``: how many seconds a record may be older than the newest one before it. ``idle_after``: windows
        do not wait for a source that has given no record for so many seconds. Default: they wait.

        >>> env = LocalEnvironment("minutes")
        >>> clicks = env.from_batch([(5, "ada"), (58, "ada"), (61, "ada")])
        >>> clicks = clicks.with_timestamps(lambda click: click[0], out_of_order=2).keyby(lambda click: click[1])
        >>> counts = clicks.window(Tumbling(60)).count().collect()
        >>> job = env.submit(autostop=True)
        >>> [(window.key, window.start, window.value) for window in counts]
        [('ada', 0.0, 2), ('ada', 60.0, 1)]
        """
        check_plain("timestamps", function)
        idle = None if idle_after is None else seconds("`idle_after`", idle_after)
        return self._add(kinds.TIMESTAMPS, function, times=Times(length("`out_of_order`", out_of_order), idle))

    def batch(self, size: int, *, within: Seconds | None = None, name: str | None = None) -> DataStream[list[T]]:
        """Gathers the records into lists of ``size``, in their order. With ``within``, a list also goes on when its
        first record came so many seconds ago. The end of input and every drain, also one by a signal, send on what is
        there. The lists have no key and no time.

        >>> from sage import LocalEnvironment
        >>> env = LocalEnvironment("batches")
        >>> batches = env.from_batch(range(5)).batch(2).collect()
        >>> _ = env.submit(autostop=True)
        >>> batches
        [[0, 1], [2, 3], [4]]
        """
        return self._add(kinds.BATCHED, name=name or f"batch of {size}", spec=batches_of(size, within))

    @overload
    def map_batches(
        self, function: type[Executes], size: int, *args: Any, within: Seconds | None = None, **kwargs: Any
    ) -> DataStream[Any]: ...

    @overload
    def map_batches(
        self,
        function: Callable[[list[T]], Awaitable[Iterable[U] | None]],
        size: int,
        *,
        within: Seconds | None = None,
        **options: Unpack[Options],
    ) -> DataStream[U]: ...

    @overload
    def map_batches(
        self,
        function: Callable[[list[T]], Iterable[U] | None],
        size: int,
        *,
        within: Seconds | None = None,
        **options: Unpack[Options],
    ) -> DataStream[U]: ...

    def map_batches(
        self,
        function: Any,
        size: int,
        *args: Any,
        within: Seconds | None = None,
        parallelism: int = 1,
        name: str | None = None,
        on_error: OnError = default("fail"),
        retry: int | Retry | None = default(None),
        in_flight: int | None = default(None),
        ordered: bool = default(True),
        timeout: Seconds | None = default(None),
        workers: Workers | None = default(None),
        on_worker_loss: OnWorkerLoss = default("fail"),
        ray: Mapping[str, Any] | None = default(None),
        **kwargs: Any,
    ) -> DataStream[Any]:
        """Calls the function with lists of ``size`` records, as ``batch`` makes them, and emits the items of what it
        returns, one record each: for functions that are faster for many records at once, such as an embedding model.

        The function may be a class or async, and takes the keywords of ``flatmap``. With ``on_error`` and ``retry`` a
        list fails as a whole, and is the record of a dead letter.

        >>> from sage import LocalEnvironment
        >>> env = LocalEnvironment("batches")
        >>> shares = env.from_batch([1, 3, 5]).map_batches(lambda ns: [n / sum(ns) for n in ns], 2).collect()
        >>> _ = env.submit(autostop=True)
        >>> shares
        [0.25, 0.75, 1.0]
        """
        given(kwargs, locals())
        batches = self._ours(kinds.BATCHED, is_aside=False, spec=batches_of(size, within))
        mapped = batches._then(kinds.FLATMAP, function, args, kwargs, parallelism, name)
        batches._belongs(mapped, "batches")
        return mapped

    def take(self, count: int) -> DataStream[T]:
        """Keeps the first ``count`` records, and then ends the sources.

        >>> from itertools import count
        >>> env = LocalEnvironment("first")
        >>> first = env.from_batch(count()).take(3).collect()
        >>> job = env.submit(autostop=True)
        >>> first
        [0, 1, 2]
        """
        return self._add(kinds.TAKE, spec=Spec.Take(whole("what `take` takes", count, 0)))

    def count(self) -> DataStream[int]:
        """Emits the number of records at the end of input.

        >>> env = LocalEnvironment("count")
        >>> counted = env.from_batch("abc" for _ in range(10)).count().collect()
        >>> job = env.submit(autostop=True)
        >>> counted
        [10]
        """
        return self._whole().count()  # type: ignore[no-any-return]

    @overload
    def sum(self, function: None = None) -> DataStream[T]: ...

    @overload
    def sum(self, function: Callable[[T], U]) -> DataStream[U]: ...

    def sum(self, function: Callable[[T], Any] | None = None) -> DataStream[Any]:
        """Emits the sum of the records, or of the results of ``function``, at the end of input; 0 if there are none.

        It is for numbers, and for values that are added like them. Texts, tuples, lists and ``None`` are errors.

        >>> env = LocalEnvironment("sum")
        >>> letters = env.from_batch(["tea", "pot", "cup"]).sum(len).collect()
        >>> job = env.submit(autostop=True)
        >>> letters
        [9]
        """
        return self._whole().sum(function)  # type: ignore[no-any-return]

    def reduce(self, function: Callable[[T, T], T]) -> DataStream[T]:
        """Emits one record at the end of input. Calls ``function(so_far, record)`` for each record but the first.

        >>> env = LocalEnvironment("longest")
        >>> longest = env.from_batch(["tea", "kettle", "cup"]).reduce(lambda a, b: max(a, b, key=len)).collect()
        >>> job = env.submit(autostop=True)
        >>> longest
        ['kettle']
        """
        return self._whole().reduce(function)  # type: ignore[no-any-return]

    @overload
    def fold(self, initial: Callable[[], U], function: Callable[[U, T], U]) -> DataStream[U]: ...

    @overload
    def fold(self, initial: U, function: Callable[[U, T], U]) -> DataStream[U]: ...

    def fold(self, initial: Any, function: Callable[[Any, T], Any]) -> DataStream[Any]:
        """Emits one value at the end of input: for each record, ``function(so_far, record)`` returns the next value.
        ``initial`` is the first value, or a function that makes it.

        >>> env = LocalEnvironment("joined")
        >>> joined = env.from_batch([1, 2, 3]).fold("", lambda so_far, n: so_far + str(n)).collect()
        >>> job = env.submit(autostop=True)
        >>> joined
        ['123']
        """
        return self._whole().fold(initial, function)  # type: ignore[no-any-return]

    def connect(self, other: DataStream[Any] | ConnectedStreams) -> ConnectedStreams:
        """Connects this stream with one or several others.

        >>> env = LocalEnvironment("both")
        >>> doubled = env.from_batch([1, 2]).connect(env.from_batch([10, 20])).map(lambda n: 2 * n).collect()
        >>> job = env.submit(autostop=True)
        >>> sorted(doubled)
        [2, 4, 20, 40]
        """
        from ._connected import ConnectedStreams

        return ConnectedStreams(self._environment, [self]).connect(other)

    def zip(self, other: DataStream[U], *, max_ahead: int = 100_000_000) -> DataStream[tuple[T, U]]:
        """Emits tuples of the i-th record of this stream and the i-th of the other.

        Ends with the shorter stream, and ends the steps before the longer one; the rest of its records is dropped. One
        stream may be ``max_ahead`` records ahead of the other. They are kept in memory; one more fails the job. Records
        that come out of several replicas are in no order.

        >>> env = LocalEnvironment("pairs")
        >>> pairs = env.from_batch(["q1", "q2"]).zip(env.from_batch(["a1", "a2"])).collect()
        >>> job = env.submit(autostop=True)
        >>> pairs
        [('q1', 'a1'), ('q2', 'a2')]
        """
        if not isinstance(other, DataStream):
            raise TypeError(f"`zip` needs another stream, not {other!r}")
        if other._environment is not self._environment:
            raise ValueError("streams of two environments cannot be zipped")
        max_ahead = whole("`max_ahead`", max_ahead)
        both: DataStream[Any] = DataStream(self._environment, self._step, self._output)
        both._others = [other]
        return both._add(kinds.ZIP, spec=Spec.Zip(max_ahead))

    def fill_future(self, future_stream: DataStream[Any]) -> None:
        """Ends the stream: its records go round, and come out of the stream that ``from_future`` made. The loop ends
        when its sources have ended and no record is left in it.

        >>> env = LocalEnvironment("halve")
        >>> again = env.from_future("again")
        >>> halves = env.from_batch([40]).connect(again).map(lambda n: n // 2)
        >>> more, done = halves.split(lambda n: n > 5)
        >>> more.fill_future(again)
        >>> done = done.collect()
        >>> job = env.submit(autostop=True)
        >>> done
        [5]
        """
        future = future_stream
        if future._step.kind is not kinds.FUTURE:
            raise TypeError("`fill_future` needs a stream that `from_future` made")
        if future._environment is not self._environment:
            raise ValueError("streams of two environments cannot be connected")
        name = future._step.name
        if future._step.is_filled:
            raise ValueError(f"the future stream `{name}` is filled already")
        future._step.is_filled = True
        self._add(kinds.FILL, None, f"fill {name}", spec=Spec.Fill(name))

    @overload
    def sink(self, function: type[Executes], *args: Any, **kwargs: Any) -> Self: ...

    @overload
    def sink(self, function: Callable[[T], Any], **options: Unpack[SinkOptions]) -> Self: ...

    def sink(
        self,
        function: Any,
        *args: Any,
        parallelism: int = 1,
        name: str | None = None,
        on_error: OnError = default("fail"),
        retry: int | Retry | None = default(None),
        in_flight: int | None = default(None),
        ordered: bool = default(True),
        timeout: Seconds | None = default(None),
        **kwargs: Any,
    ) -> Self:
        """Ends the stream: calls the function with each record. Returns this stream, so that it can have several
        sinks.

        >>> env = LocalEnvironment("seen")
        >>> seen = set()
        >>> stream = env.from_batch([1, 2, 2]).sink(seen.add)
        >>> job = env.submit(autostop=True)
        >>> seen
        {1, 2}
        """
        given(kwargs, locals())
        self._then(kinds.SINK, function, args, kwargs, parallelism, name)
        return self

    def to_kafka(
        self,
        bootstrap_servers: str | list[str],
        topic: str,
        key: Callable[[T], str | bytes] | None = None,
        value_serializer: Literal["json", "string", "bytes"] | Callable[[T], str | bytes] | None = None,
        *,
        connect_timeout: float = 10.0,
        parallelism: int = 1,
        name: str | None = None,
        on_error: OnError = "fail",
        retry: int | Retry | None = None,
        **kafka_config: Any,
    ) -> Self:
        """Ends the stream: writes each record to a Kafka topic. Returns this stream, so that it can have several sinks.

        ``value_serializer`` makes the value of a record: ``"json"`` (the default), ``"string"``, ``"bytes"``, or a
        function that returns ``bytes`` or a ``str``. ``key`` is such a function too, and the hash of its result chooses
        the partition. If one of them raises, ``on_error`` and ``retry`` apply, as for ``map``.

        When a job has succeeded, every record was acknowledged by all replicas in sync; none was repeated, and within
        a partition they are in their order. A job that runs again writes again. ``connect_timeout`` and
        ``kafka_config`` are as in ``from_kafka_source``.

        >>> from sage.testing import KafkaCluster
        >>> with KafkaCluster() as cluster, LocalEnvironment("bills") as env:
        ...     cluster.create_topic("bills")
        ...     stream = env.from_batch([{"to": "ada", "cents": 30}]).to_kafka(
        ...         cluster.bootstrap_servers, "bills", key=lambda bill: bill["to"]
        ...     )
        ...     report = env.submit(autostop=True).report
        >>> report.outcome
        'succeeded'
        """
        from ._kafka import serializer, servers_of, settings_of

        if not isinstance(topic, str) or not topic:
            raise ValueError(f"`topic` is the name of a topic, not {topic!r}")
        timeout = seconds("a timeout", connect_timeout, more=True)
        servers, settings = servers_of(bootstrap_servers), settings_of(self.to_kafka, kafka_config)
        spec = Spec.KafkaSink(servers, topic, key is not None, timeout, settings)
        function = serializer(value_serializer, key)
        name = name or f"to {topic}"
        named = f"{name} {name_of(function)}"
        pairs = self.map(
            function, parallelism=parallelism, name=named, keep_none=True, on_error=on_error, retry=retry
        )
        pairs._belongs(pairs._add(kinds.TO_KAFKA, None, name, parallelism, spec=spec), "")
        return self

    def print(self, prefix: str = "", separator: str = " | ", colored: bool = False) -> Self:
        """Ends the stream: prints each record. If there is a ``prefix``, it comes first, then ``separator``.

        >>> env = LocalEnvironment("show")
        >>> stream = env.from_batch([1, 2]).print("number")
        >>> job = env.submit(autostop=True)
        number | 1
        number | 2
        """
        return self.sink(PrintSink, prefix, separator, colored, name="print")

    def _repr_html_(self) -> str:
        from ._html import graph

        return graph(self._environment._steps, self._environment._services, self._step)

    def collect(self) -> list[T]:
        """Ends the stream: returns a list, to which the job appends each record.

        >>> env = LocalEnvironment("kept")
        >>> kept = env.from_batch([1, None, 2]).collect()
        >>> job = env.submit(autostop=True)
        >>> kept
        [1, None, 2]
        """
        records: list[T] = []
        self.sink(records.append, name="collect")
        return records
