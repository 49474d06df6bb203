"""The functions a pipeline is made of: base classes for those written as classes, and what makes them callable."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from ._context import Context, InJob
from ._sage import Nothing


#: What ``collect`` adds to where several records are worked on at a time, each in a context of its own.
COLLECTED: ContextVar[list[Any] | None] = ContextVar("collected", default=None)


class StopSignal:
    """What a ``BatchFunction`` or ``SourceFunction`` returns when it has no more records."""

    def __init__(self, name: str = "stop", source: Any = None) -> None:
        self.name = name
        self.source = source

    def __repr__(self) -> str:
        return f"StopSignal({self.name!r})"


class BaseFunction(InJob):
    """What all function classes have: ``ctx``, ``logger`` and ``name``, and the way to call services.

    The engine sets ``ctx`` before the constructor runs, so a constructor may call services as well; a subclass need not
    call ``super().__init__()``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def execute(self, *args: Any) -> Any:
        """Processes one record; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} has no `execute`")

    def close(self) -> None:
        """Releases what the constructor acquired. Runs once, whatever happened."""


class MapFunction(BaseFunction):
    """Replaces each record by what ``execute(record)`` returns."""


class FilterFunction(BaseFunction):
    """Keeps the records for which ``execute(record)`` is true."""


class FlatMapFunction(BaseFunction):
    """Replaces each record by those that ``execute(record)`` returns, or passes to ``self.collect``."""

    def collect(self, record: Any) -> None:
        """Emits a record."""
        collected = COLLECTED.get()
        if collected is not None:
            collected.append(record)
            return
        self.__dict__.setdefault("_collected", []).append(record)


class SinkFunction(BaseFunction):
    """Takes each record by ``execute(record)``."""


class SourceFunction(BaseFunction):
    """Makes a record each time ``execute()`` is called, until that returns a ``StopSignal``."""


class BatchFunction(BaseFunction):
    """Makes a record each time ``execute()`` is called, until that returns ``None`` or a ``StopSignal``."""


class KeyByFunction(BaseFunction):
    """Gives the key of each record: what ``execute(record)`` returns."""


class BaseCoMapFunction(BaseFunction):
    """Replaces each record of the connected stream number N by what ``mapN(record)`` returns."""


class BaseJoinFunction(BaseFunction):
    """Joins two streams: ``execute(payload, key, tag)`` is called for each record of both, with the number of its stream as the
    tag, and returns a list of results. What it has to remember of a key it keeps itself."""

    is_join = True


#: A class with the arguments of its constructor, or a callable.
Made = tuple[Any, tuple[Any, ...], dict[str, Any]]


def allocate(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Makes an object whose constructor has not run, so that it can be given what its constructor may use."""
    new = cls.__new__
    return new(cls) if new is object.__new__ else new(cls, *args, **kwargs)


def instance(made: Made, context: Context) -> Any:
    """Makes the function of one replica: an object of the class, or the callable itself."""
    function, args, kwargs = made
    if not isinstance(function, type):
        return function
    made_instance = allocate(function, args, kwargs)
    if isinstance(made_instance, BaseFunction):
        made_instance.ctx = context
    made_instance.__init__(*args, **kwargs)
    return made_instance


def executed(function: Any, ends_with_none: bool) -> Iterator[Any]:
    """Calls ``execute`` until it says that there is no more."""
    execute = function.execute if isinstance(function, BaseFunction) else function
    while True:
        record = execute()
        if isinstance(record, StopSignal) or (record is None and ends_with_none):
            return
        # A source that has nothing just now says so with `None`: the engine then sees whether the job goes on.
        yield Nothing if record is None else record
