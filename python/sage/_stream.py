"""Streams: what a program says of its records, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._functions import (
    BaseCoMapFunction,
    BaseFunction,
    BaseJoinFunction,
    FilterFunction,
    FlatMapFunction,
    KeyByFunction,
    Made,
    MapFunction,
    SinkFunction,
)

if TYPE_CHECKING:
    from ._environment import LocalEnvironment

_BASES: dict[str, type[BaseFunction]] = {
    "map": MapFunction,
    "filter": FilterFunction,
    "flatmap": FlatMapFunction,
    "sink": SinkFunction,
    "keyby": KeyByFunction,
}

_STRATEGIES = ("hash", "broadcast", "round_robin")


@dataclass(eq=False)
class Transformation:
    """A step of a pipeline."""

    kind: str
    name: str
    made: Made
    inputs: list[Transformation] = field(default_factory=list)
    parallelism: int = 1
    #: How a ``keyby`` spreads its records over the replicas that follow.
    strategy: str = "hash"
    #: Of several connected streams, which one it is.
    index: int = 0


class DataStream:
    """The records that come out of a step.

    A function may be a class with the arguments of its constructor, an object of one, or any callable.
    """

    def __init__(self, environment: LocalEnvironment, step: Transformation) -> None:
        self._environment = environment
        self._step = step
        self._others: list[Transformation] = []

    def _then(self, kind: str, function: Any, args: Any, kwargs: Any, parallelism: int, name: str | None) -> DataStream:
        check_function(kind, function, args, kwargs)
        step = Transformation(
            kind, self._environment._named(name or name_of(function)), (function, args, kwargs), [self._step, *self._others]
        )
        step.parallelism = check_parallelism(parallelism)
        self._environment.pipeline.append(step)
        return DataStream(self._environment, step)

    def map(self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any) -> DataStream:
        """Replaces each record by what the function returns."""
        return self._then("map", function, args, kwargs, parallelism, name)

    def filter(
        self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any
    ) -> DataStream:
        """Keeps the records for which the function's result is true."""
        return self._then("filter", function, args, kwargs, parallelism, name)

    def flatmap(
        self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any
    ) -> DataStream:
        """Replaces each record by those of the iterable that the function returns."""
        return self._then("flatmap", function, args, kwargs, parallelism, name)

    def keyby(
        self, function: Any, *args: Any, strategy: str = "hash", name: str | None = None, **kwargs: Any
    ) -> DataStream:
        """Says which records belong together: with ``strategy="hash"``, records of equal keys go to the same replica of what
        follows; with ``"broadcast"``, every record to each replica; with ``"round_robin"``, to one after the other."""
        if strategy not in _STRATEGIES:
            raise ValueError(f"a strategy is one of {', '.join(_STRATEGIES)}, not {strategy!r}")
        stream = self._then("keyby", function, args, kwargs, 1, name)
        stream._step.strategy = strategy
        return stream

    def connect(self, other: DataStream | ConnectedStreams) -> ConnectedStreams:
        """Goes on with the records of this stream and another, or several others."""
        return ConnectedStreams(self._environment, [self]).connect(other)

    def sink(self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any) -> DataStream:
        """Ends the stream: gives each record to the function. Returns this stream, so that it can have several sinks."""
        self._then("sink", function, args, kwargs, parallelism, name)
        return self

    def print(self, prefix: str = "", separator: str = " | ", colored: bool = False) -> DataStream:
        """Ends the stream: prints each record, behind ``prefix`` and ``separator`` if there is a prefix."""
        lead = f"{prefix}{separator}" if prefix else ""
        if colored and lead:
            lead = f"\x1b[36m{lead}\x1b[0m"

        def show(record: Any) -> None:
            print(f"{lead}{record}", flush=True)

        return self.sink(show, name="print")

    def collect(self) -> list[Any]:
        """Ends the stream: returns a list that the job appends each record to."""
        records: list[Any] = []
        self.sink(records.append, name="collect")
        return records


class ConnectedStreams:
    """Several streams, numbered from 0 in the order in which they were connected."""

    def __init__(self, environment: LocalEnvironment, streams: list[DataStream]) -> None:
        self._environment = environment
        self._streams = streams

    def connect(self, other: DataStream | ConnectedStreams) -> ConnectedStreams:
        """Adds a stream, or several."""
        more = other._streams if isinstance(other, ConnectedStreams) else [other]
        if any(stream._environment is not self._environment for stream in more):
            raise ValueError("streams of two environments cannot be connected")
        return ConnectedStreams(self._environment, [*self._streams, *more])

    def _merged(self) -> DataStream:
        """The records of all of them."""
        merged = DataStream(self._environment, self._streams[0]._step)
        merged._others = [stream._step for stream in self._streams[1:]]
        return merged

    def map(self, function: Any, *args: Any, **kwargs: Any) -> DataStream:
        """As ``DataStream.map``, of the records of all streams."""
        return self._merged().map(function, *args, **kwargs)

    def sink(self, function: Any, *args: Any, **kwargs: Any) -> ConnectedStreams:
        """As ``DataStream.sink``, of the records of all streams."""
        self._merged().sink(function, *args, **kwargs)
        return self

    def print(self, prefix: str = "", separator: str = " | ", colored: bool = False) -> ConnectedStreams:
        """As ``DataStream.print``, of the records of all streams."""
        self._merged().print(prefix, separator, colored)
        return self

    def keyby(self, function: Any, *, strategy: str = "hash") -> ConnectedStreams:
        """As ``DataStream.keyby``, with one function for all streams or a list with one for each."""
        functions = function if isinstance(function, (list, tuple)) else [function] * len(self._streams)
        if len(functions) != len(self._streams):
            raise ValueError(f"{len(self._streams)} streams need as many functions, or one for all, not {len(functions)}")
        keyed = [stream.keyby(each, strategy=strategy) for stream, each in zip(self._streams, functions)]
        return ConnectedStreams(self._environment, keyed)

    def _tagged(self) -> list[Transformation]:
        """Adds a step to each stream that says of its records which stream they are of, and their key if they have one."""
        environment = self._environment
        tagged = []
        for index, stream in enumerate(self._streams):
            before = stream._step
            if before.kind == "keyby":
                step = Transformation("keytag", before.name, before.made, before.inputs, 1, before.strategy, index)
                if not any(before in other.inputs for other in environment.pipeline):
                    environment.pipeline.remove(before)
            else:
                none: Made = (None, (), {})
                step = Transformation("tag", environment._named(f"input-{index}"), none, [before], index=index)
            environment.pipeline.append(step)
            tagged.append(step)
        return tagged

    def _gathered(self, kind: str, function: Any, made: Made, parallelism: int, name: str | None) -> DataStream:
        parallelism = check_parallelism(parallelism)
        step = Transformation(kind, self._environment._named(name or name_of(function)), made, self._tagged(), parallelism)
        self._environment.pipeline.append(step)
        return DataStream(self._environment, step)

    def comap(
        self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any
    ) -> DataStream:
        """Replaces each record of stream N by what the method ``mapN`` of a ``BaseCoMapFunction`` class returns."""
        if not (isinstance(function, type) and issubclass(function, BaseCoMapFunction)):
            raise TypeError(f"`comap` needs a BaseCoMapFunction class, not {function!r}")
        for index in range(len(self._streams)):
            if not callable(getattr(function, f"map{index}", None)):
                raise TypeError(f"`{function.__name__}` has no `map{index}`, for stream {index} of {len(self._streams)}")
        return self._gathered("comap", function, (function, args, kwargs), parallelism, name)

    def join(self, function: Any, *args: Any, parallelism: int = 1, name: str | None = None, **kwargs: Any) -> DataStream:
        """Joins two streams that were given keys by ``keyby``, with a ``BaseJoinFunction`` class. Records of equal keys come
        to the same replica."""
        if not (isinstance(function, type) and issubclass(function, BaseJoinFunction)):
            raise TypeError(f"`join` needs a BaseJoinFunction class, not {function!r}")
        if len(self._streams) != 2:
            raise ValueError(f"`join` takes two streams, not {len(self._streams)}")
        if any(stream._step.kind != "keyby" or stream._step.strategy != "hash" for stream in self._streams):
            raise ValueError("both streams of a `join` need a key: use `keyby` before it, with the strategy `hash`")
        return self._gathered("join", function, (function, args, kwargs), parallelism, name)


def name_of(function: Any) -> str:
    """What an operator is called if nobody says otherwise."""
    name = getattr(function, "__name__", None) or type(function).__name__
    return "lambda" if name == "<lambda>" else str(name)


def check_parallelism(parallelism: int) -> int:
    """The number of replicas, if it can be one."""
    if not isinstance(parallelism, int) or isinstance(parallelism, bool) or parallelism < 1:
        raise ValueError(f"parallelism is a whole number of at least 1, not {parallelism!r}")
    return parallelism


def check_function(kind: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises for what cannot be called."""
    if isinstance(function, type):
        if not issubclass(function, BaseFunction) and not callable(getattr(function, "execute", None)):
            # A type such as `int` or `str` is a callable like any other.
            if args or kwargs:
                raise TypeError(f"`{function.__name__}` is no {_BASES[kind].__name__}, so it takes no arguments here")
        return
    if isinstance(function, BaseFunction):
        raise TypeError(f"pass the class `{type(function).__name__}` and its arguments, not an object of it")
    if not callable(function):
        raise TypeError(f"`{kind}` needs a function or a {_BASES[kind].__name__}, not {function!r}")
    if args or kwargs:
        raise TypeError(f"`{name_of(function)}` is called with a record; bind other arguments with functools.partial")

