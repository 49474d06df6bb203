"""Streams: what a program says of its records, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._functions import (
    BaseFunction,
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


class DataStream:
    """The records that come out of a step.

    A function may be a class with the arguments of its constructor, an object of one, or any callable.
    """

    def __init__(self, environment: LocalEnvironment, step: Transformation) -> None:
        self._environment = environment
        self._step = step

    def _then(self, kind: str, function: Any, args: Any, kwargs: Any, parallelism: int, name: str | None) -> DataStream:
        check_function(kind, function, args, kwargs)
        step = Transformation(
            kind, self._environment._named(name or name_of(function)), (function, args, kwargs), [self._step]
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


Callback = Callable[[Any], Any]
