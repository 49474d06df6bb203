"""Streams: a program's pipeline, step by step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from . import _kinds as kinds
from . import ops
from ._arguments import check_call, length, meant, name_too, numbered, seconds, shown, truth, warn, whole
from ._config import check_worker_loss, check_workers
from ._file_sinks import FileSinks
from ._functions import BaseFunction, FlatMapFunction, MapFunction, is_function_class
from ._io import PrintSink
from ._keywords import no_attribute, spelt
from ._output_sink import OutputSink
from ._policies import OPTIONS, policy, split_options
from ._sage import Spec, Strategy
from ._transformation import Times, Transformation, behind

if TYPE_CHECKING:
    from ._connected import ConnectedStreams
    from ._pipeline import Pipeline
    from ._keyed import KeyedStream

_STRATEGIES = {"hash": Strategy.Hash, "broadcast": Strategy.Broadcast, "round_robin": Strategy.RoundRobin}

#: What the methods take beside a function and the arguments of its constructor.
_KEYWORDS = ("name", "parallelism", *OPTIONS)

#: What some of them take besides, by their kinds.
_OWN = {"map": ("keep_none",), "keyby": ("strategy",)}

#: In how many replicas a step may run: each has a thread.
MOST_REPLICAS = 65_536

#: How many records a batch may have.
MOST_BATCHED = 1 << 24

#: How many records an async function has in flight unless a program says otherwise.
_IN_FLIGHT = 64


@spelt
class DataStream(FileSinks):
    """The records that come out of a step.

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

    def __init__(self, environment: Pipeline, step: Transformation, output: int = 0) -> None:
        self._environment = environment
        self._step = step
        self._output = output
        self._others: list[DataStream] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._place()}>"

    def _place(self) -> str:
        """The name of its environment, and how many steps of the program its records have come through."""
        steps = len(behind([step for step, _ in self._inputs()]))
        return f"of {self._environment.name}, {numbered(steps, 'step')}"

    if not TYPE_CHECKING:  # for checkers there is no such attribute

        def __getattr__(self, name):
            from ._keyed import KeyedStream

            raise no_attribute(self, name, KeyedStream, "it is for streams with a key, so use `keyby` first")

    def _inputs(self) -> list[tuple[Transformation, int]]:
        return [(stream._step, stream._output) for stream in [self, *self._others]]

    def _add(
        self,
        kind: kinds.Kind,
        function: Any = None,
        name: str | None = None,
        parallelism: int = 1,
        args: Any = (),
        kwargs: Any = None,
        **does: Any,
    ) -> DataStream:
        """Adds a step; ``does`` are other fields of it."""
        parallelism = check_parallelism(parallelism)
        name = self._environment._named(name or (kind.name if function is None else name_of(function)))
        made = function, args, kwargs or {}
        return self._environment._declare(Transformation(kind, name, made, self._inputs(), parallelism, **does))

    def _ours(
        self, kind: kinds.Kind, function: Any = None, parallelism: int = 1, *, is_aside: bool = True, **does: Any
    ) -> DataStream:
        """Adds a step that is a part of one of the program's: see ``_belongs``."""
        parallelism = check_parallelism(parallelism)
        inputs = self._inputs()
        step = Transformation(kind, "", (function, (), {}), inputs, parallelism, is_aside=is_aside, **does)
        return self._environment._declare(step)

    def _belongs(self, owner: DataStream, what: str) -> DataStream:
        """Makes its step a part of another one. Returns this stream."""
        step = self._step
        step.owner, step.told = owner._step, owner._step.name
        step.name = step.name or self._environment._named(f"{what} of {step.told}")
        return self

    def _then(
        self,
        kind: kinds.Kind,
        function: Any,
        args: Any,
        kwargs: Any,
        parallelism: int,
        name: str | None,
        is_given: bool = True,
    ) -> DataStream:
        """Adds a step with a function; ``is_given`` says that the program gave its name."""
        options = split_options(function, kwargs)
        check_function(kind, function, args, kwargs, name if is_given else None)
        told, dead = policy(options)
        is_awaited = is_async(function)
        spec = None
        if "in_flight" in options or is_awaited:
            if isinstance(function, type) and issubclass(function, OutputSink):
                raise ValueError(f"`{function.__name__}` writes one record at a time, so it takes no `in_flight`")
            spec = _flight(kind, options)
        elif "ordered" in options or "timeout" in options:
            named = name or name_of(function)
            raise ValueError(f"`ordered` and `timeout` are for functions that are async or have `in_flight`: `{named}`")
        does: dict[str, Any] = {"policy": told, "spec": spec, "is_awaited": is_awaited}
        if "on_worker_loss" in options:
            does["on_worker_loss"] = check_worker_loss("`on_worker_loss`", options["on_worker_loss"])
        if "workers" in options:
            does["workers"] = _workers(options["workers"], kind, name or name_of(function))
        if "ray" in options:
            does["ray"] = _ray(options, kind, name or name_of(function))
        stream = self._add(kind, function, name, parallelism, args, kwargs, **does)
        if dead is not None:
            from ._letters import Letter  # here, as few programs need it

            failed = DataStream(self._environment, stream._step, kind.outputs)
            letters = failed._ours(kinds.MAP, Letter._make, workers=None)
            letters._belongs(stream, "letters")._step.told = f"letters of {stream._step.name}"
            if dead.to is None:
                dead._streams.append(letters)
            else:
                name = f"dead letters of {stream._step.name}"
                end = letters._then(kinds.SINK, dead.to, dead.args, dict(dead.kwargs), 1, name, is_given=False)
                step = end._belongs(stream, "")._step
                step.told, step.is_aside = step.name, True
        return stream

    def map(
        self,
        function: Any,
        *args: Any,
        parallelism: int = 1,
        name: str | None = None,
        keep_none: bool | None = None,
        **kwargs: Any,
    ) -> DataStream:
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
        keeps = self._environment._keeps_none(keep_none) or isinstance(function, ops.Op)
        kind = kinds.MAP if keeps else kinds.MAP_SOME
        return self._then(kind, function, args, kwargs, parallelism, name)

    def filter(
        self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any
    ) -> DataStream:
        """Keeps the records for which the function's result is true.

        >>> env = LocalEnvironment("even")
        >>> even = env.from_batch(range(6)).filter(lambda n: n % 2 == 0).collect()
        >>> job = env.submit(autostop=True)
        >>> even
        [0, 2, 4]
        """
        return self._then(kinds.FILTER, function, args, kwargs, parallelism, name)

    def flatmap(
        self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any
    ) -> DataStream:
        """Replaces each record by the items of the iterable that the function returns. A text, ``bytes``, or an object
        that is not iterable is one record; ``None`` is none, but one in an iterable is a record. Also called
        ``flat_map``.

        >>> env = LocalEnvironment("words")
        >>> words = env.from_batch(["good tea", "weak"]).flatmap(str.split).collect()
        >>> job = env.submit(autostop=True)
        >>> words
        ['good', 'tea', 'weak']
        """
        return self._then(kinds.FLATMAP, function, args, kwargs, parallelism, name)

    #: The name in Rust.
    flat_map = flatmap

    def split(
        self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any
    ) -> tuple[DataStream, DataStream]:
        """Splits the stream in two: the records for which the function's result is true, and the others.

        Both must end in a sink; either may end before the other.

        >>> env = LocalEnvironment("split")
        >>> even, odd = env.from_batch(range(5)).split(lambda n: n % 2 == 0)
        >>> even, odd = even.collect(), odd.collect()
        >>> job = env.submit(autostop=True)
        >>> even, odd
        ([0, 2, 4], [1, 3])
        """
        stream = self._then(kinds.SPLIT, function, args, kwargs, parallelism, name)
        return stream, DataStream(self._environment, stream._step, 1)

    def keyby(
        self,
        function: Any,
        *args: Any,
        strategy: str = "hash",
        parallelism: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> KeyedStream:
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
            strategy, args = args[0], args[1:]
        if strategy not in _STRATEGIES:
            raise ValueError(f"a strategy is one of {', '.join(_STRATEGIES)}, not {strategy!r}")
        if parallelism is None:
            parallelism = 1 if self._others else self._step.parallelism
        step = self._then(kinds.KEYBY, function, args, kwargs, parallelism, name)._step
        step.strategy = _STRATEGIES[strategy]
        return KeyedStream(self._environment, step)

    def with_timestamps(
        self, function: Callable[[Any], Any], *, out_of_order: float = 0.0, idle_after: float | None = None
    ) -> DataStream:
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

    def batch(self, size: int, *, within: float | None = None, name: str | None = None) -> DataStream:
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
        return self._add(kinds.BATCHED, name=name or f"batch of {size}", spec=_batches(size, within))

    def map_batches(
        self,
        function: Any,
        size: int,
        *args: Any,
        within: float | None = None,
        parallelism: int = 1,
        name: str | None = None,
        **kwargs: Any,
    ) -> DataStream:
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
        batches = self._ours(kinds.BATCHED, is_aside=False, spec=_batches(size, within))
        mapped = batches._then(kinds.FLATMAP, function, args, kwargs, parallelism, name)
        batches._belongs(mapped, "batches")
        return mapped

    def take(self, count: int) -> DataStream:
        """Keeps the first ``count`` records, and then ends the sources.

        >>> from itertools import count
        >>> env = LocalEnvironment("first")
        >>> first = env.from_batch(count()).take(3).collect()
        >>> job = env.submit(autostop=True)
        >>> first
        [0, 1, 2]
        """
        return self._add(kinds.TAKE, spec=Spec.Take(whole("what `take` takes", count, 0)))

    def _whole(self) -> KeyedStream:
        from ._keyed import KeyedStream

        # It is declared with the step that it is a part of.
        return KeyedStream(self._environment, Transformation(kinds.WHOLE, "", inputs=self._inputs(), is_aside=True))

    def count(self) -> DataStream:
        """Emits the number of records at the end of input.

        >>> env = LocalEnvironment("count")
        >>> counted = env.from_batch("abc" for _ in range(10)).count().collect()
        >>> job = env.submit(autostop=True)
        >>> counted
        [10]
        """
        return self._whole().count()

    def sum(self, function: Callable[[Any], Any] | None = None) -> DataStream:
        """Emits the sum of the records, or of the results of ``function``, at the end of input; 0 if there are none.

        It is for numbers, and for values that are added like them. Texts, tuples, lists and ``None`` are errors.

        >>> env = LocalEnvironment("sum")
        >>> letters = env.from_batch(["tea", "pot", "cup"]).sum(len).collect()
        >>> job = env.submit(autostop=True)
        >>> letters
        [9]
        """
        return self._whole().sum(function)

    def reduce(self, function: Callable[[Any, Any], Any]) -> DataStream:
        """Emits one record at the end of input. Calls ``function(so_far, record)`` for each record but the first.

        >>> env = LocalEnvironment("longest")
        >>> longest = env.from_batch(["tea", "kettle", "cup"]).reduce(lambda a, b: max(a, b, key=len)).collect()
        >>> job = env.submit(autostop=True)
        >>> longest
        ['kettle']
        """
        return self._whole().reduce(function)

    def fold(self, initial: Any, function: Callable[[Any, Any], Any]) -> DataStream:
        """Emits one value at the end of input: for each record, ``function(so_far, record)`` returns the next value.
        ``initial`` is the first value, or a function that makes it.

        >>> env = LocalEnvironment("joined")
        >>> joined = env.from_batch([1, 2, 3]).fold("", lambda so_far, n: so_far + str(n)).collect()
        >>> job = env.submit(autostop=True)
        >>> joined
        ['123']
        """
        return self._whole().fold(initial, function)

    def connect(self, other: DataStream | ConnectedStreams) -> ConnectedStreams:
        """Connects this stream with one or several others.

        >>> env = LocalEnvironment("both")
        >>> doubled = env.from_batch([1, 2]).connect(env.from_batch([10, 20])).map(lambda n: 2 * n).collect()
        >>> job = env.submit(autostop=True)
        >>> sorted(doubled)
        [2, 4, 20, 40]
        """
        from ._connected import ConnectedStreams

        return ConnectedStreams(self._environment, [self]).connect(other)

    def zip(self, other: DataStream, *, max_ahead: int = 100_000_000) -> DataStream:
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
        both = DataStream(self._environment, self._step, self._output)
        both._others = [other]
        return both._add(kinds.ZIP, spec=Spec.Zip(max_ahead))

    def fill_future(self, future_stream: DataStream) -> None:
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

    def sink(
        self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any
    ) -> DataStream:
        """Ends the stream: calls the function with each record. Returns this stream, so that it can have several
        sinks.

        >>> env = LocalEnvironment("seen")
        >>> seen = set()
        >>> stream = env.from_batch([1, 2, 2]).sink(seen.add)
        >>> job = env.submit(autostop=True)
        >>> seen
        {1, 2}
        """
        self._then(kinds.SINK, function, args, kwargs, parallelism, name)
        return self

    def to_kafka(
        self,
        bootstrap_servers: str | list[str],
        topic: str,
        key: Callable[[Any], str | bytes] | None = None,
        value_serializer: Any = None,
        *,
        connect_timeout: float = 10.0,
        parallelism: int = 1,
        name: str | None = None,
        on_error: Any = "fail",
        retry: Any = None,
        **kafka_config: Any,
    ) -> DataStream:
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
        policies = {"on_error": on_error, "retry": retry}
        named = f"{name} {name_of(function)}"
        pairs = self.map(function, parallelism=parallelism, name=named, keep_none=True, **policies)
        pairs._belongs(pairs._add(kinds.TO_KAFKA, None, name, parallelism, spec=spec), "")
        return self

    def print(self, prefix: str = "", separator: str = " | ", colored: bool = False) -> DataStream:
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

    def collect(self) -> list[Any]:
        """Ends the stream: returns a list, to which the job appends each record.

        >>> env = LocalEnvironment("kept")
        >>> kept = env.from_batch([1, None, 2]).collect()
        >>> job = env.submit(autostop=True)
        >>> kept
        [1, None, 2]
        """
        records: list[Any] = []
        self.sink(records.append, name="collect")
        return records


def _batches(size: Any, within: Any) -> Spec:
    """How records are gathered."""
    size = whole("the size of a batch", size, 1, MOST_BATCHED)
    time = None if within is None else seconds("`within`", within, more=True, hint="; leave it out for none")
    return Spec.Batch(size, time)


def _workers(given: Any, kind: kinds.Kind, name: str) -> str | None:
    """Where a function runs whose step says it."""
    workers = check_workers(given)
    if workers is not None and kind.ends:
        raise ValueError(f"`{name}` is a sink, which runs in the job's own process; leave out `workers`")
    return workers


def _ray(options: dict[str, Any], kind: kinds.Kind, name: str) -> dict[str, Any]:
    """What a worker takes whose step says it."""
    from .ray._demands import takes  # few programs have one

    if kind.ends:
        raise ValueError(f"`{name}` is a sink, which runs in the job's own process; leave out `ray`")
    if options.get("workers", "ray") != "ray":
        raise ValueError(f"`ray` is for workers of a Ray cluster, which `{name}` has none of; leave out one of both")
    return takes(f"`ray` of `{name}`", options["ray"])


def _flight(kind: kinds.Kind, options: dict[str, Any]) -> Spec:
    """How several records are worked on at a time."""
    if kind.asks_for:
        raise TypeError(f"{kind.asks_for} of a record cannot come from an async function; get it in a `map` before")
    in_flight = whole("`in_flight`", options.get("in_flight", _IN_FLIGHT), 1, 1 << 20)
    timeout = options.get("timeout")
    if timeout is not None:
        timeout = seconds("a timeout", timeout, more=True, hint="; leave it out for none")
    ordered = truth("`ordered`", options.get("ordered", True))
    return Spec.Async(in_flight, ordered, timeout, kind.ends)


def is_async(function: Any) -> bool:
    """Whether calling it gives something to be awaited: an ``async def``, or a class whose ``execute`` is one."""
    if isinstance(function, type):
        function = getattr(function, "execute", None)
    # Of a function that nothing is marked on, it is known at once. This is asked of every step of every job.
    if type(function) is BuiltinFunctionType:
        return False
    plain = function.__func__ if type(function) is MethodType else function
    if type(plain) is FunctionType and not plain.__dict__:
        return bool(plain.__code__.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR))
    calls = function, getattr(function, "__call__", None)
    return any(inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call) for call in calls)


def check_not_async(kind: str, function: Any, name: str | None = None) -> None:
    """Raises for a function that has to be awaited, where it is not."""
    if is_async(function):
        what = f"`{name or name_of(function)}` is async, and `{kind}` awaits nothing"
        raise TypeError(f"{what}; do the async part in a `map` before it, and give its results to `{kind}`")


def name_of(function: Any) -> str:
    """The default name of an operator."""
    name = getattr(function, "__name__", None) or type(function).__name__
    return "lambda" if name == "<lambda>" else shown(str(name))


def check_parallelism(parallelism: Any) -> int:
    """The number of replicas, if it can be one; 1 of ``None``."""
    return 1 if parallelism is None else whole("parallelism", parallelism, 1, MOST_REPLICAS)


def check_class(
    method: str, base: type, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None
) -> None:
    """Raises for what is no class below ``base``, and for arguments that its constructor does not take."""
    if not (isinstance(function, type) and issubclass(function, base)):
        raise TypeError(f"`{method}` needs a {base.__name__} class, not {function!r}")
    name_too(function, name, args, kwargs)
    check_call(function, args, kwargs, ("name", "parallelism"))


def check_plain(kind: str, function: Any, name: str | None = None) -> None:
    """Raises for what cannot be called with a record, or has to be awaited."""
    check_function(kinds.MAP, function, (), {})
    check_not_async(kind, function, name)


def check_function(
    kind: kinds.Kind, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None
) -> None:
    """Raises for what cannot be called, and for arguments that nothing would read."""
    base = "" if kind.base is None else kind.base.__name__
    if isinstance(function, BaseFunction):
        raise TypeError(f"pass the class `{type(function).__name__}` and its arguments, not an object of it")
    if not callable(function):
        hint = f"; pass the class `{type(function).__name__}` and its arguments" if hasattr(function, "execute") else ""
        raise TypeError(f"`{kind.name}` needs a function or a {base}, not {function!r}{hint}")
    is_class, known = is_function_class(function), (*_KEYWORDS, *_OWN.get(kind.name, ()))
    _check_generator(kind, function, function.execute if is_class else function)
    if kind is not kinds.FLATMAP and isinstance(function, type) and issubclass(function, FlatMapFunction):
        warn(f"`{kind.name}` of `{name_of(function)}`, a FlatMapFunction: what it collects goes nowhere; use `flatmap`")
    if is_class:
        name_too(function, name, args, kwargs)
        check_call(function, args, kwargs, known)
        return
    for unknown in kwargs:
        raise TypeError(
            f"`{kind.name}` has no parameter `{unknown}`{meant(unknown, known)} "
            f"(to call `{name_of(function)}` with more than a record, use functools.partial)"
        )
    if args and isinstance(function, type):
        # A type such as `int` or `str` is a callable like any other.
        raise TypeError(f"`{function.__name__}` is not a {base}, so it takes no arguments here")
    if args:
        raise TypeError(f"`{name_of(function)}` is called with a record; bind other arguments with functools.partial")


def _check_generator(kind: kinds.Kind, function: Any, call: Any) -> None:
    """Raises where what is called is a generator function and the generator would not be gone through; warns where that
    is unusual."""
    if kind.base is MapFunction and function is print:
        warn("`print` returns None, and a `map` drops what becomes None; `stream.print()` ends a stream so")
    if type(call) is not FunctionType or not call.__code__.co_flags & inspect.CO_GENERATOR:
        return
    name = name_of(function)
    if kind.no_generator:
        raise TypeError(f"`{name}` is a generator function, and {kind.no_generator}; use `return`, not `yield`")
    if kind.base is MapFunction:
        warn(f"`{name}` is a generator function: `map` makes each record a generator, `flatmap` gives what it yields")
