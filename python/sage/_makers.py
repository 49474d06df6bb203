"""Makers of a task's functions: values that describe the functions and their job.

They refer to no live objects: not to the steps before them, and to services only by name. So a maker can go to another
process and make the functions there. ``make`` gets the live objects of the process it runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from inspect import isasyncgenfunction
from types import GeneratorType
from typing import Any, ClassVar

from ._awaiting import check_hook
from ._chain import Chain, Form, close_all
from ._context import UNKNOWN, Context, JobContext, ServiceCalls
from ._executed import Executed, executed
from ._made import hook, instance, is_async_iterable, is_function_class
from ._job_loop import JobLoop
from ._kinds import BATCH, COJOIN, COMAP, COMAP_SOME, FOLDED, ITERABLE, TOLD_KEY, TOLD_TAGGED_KEY
from ._kinds import Link, Part, has_key_behind
from ._pace import Pace, Paced
from ._policies import Retry
from ._process import Runner


@dataclass(eq=False, repr=False)
class Maker:
    """Makes what runs the functions of steps that run together."""

    parts: tuple[Part, ...]
    job: JobContext
    #: How often functions are called again before they are made anew, in a job that does that.
    retry: Retry | None = field(default=None, kw_only=True)

    #: Whether functions that ask for it are told the key of each record.
    tells_keys: ClassVar[bool] = False

    def make(self, calls: ServiceCalls, replica: int, parallelism: int, pause: Any = None) -> Any:
        """Makes it for a replica, which calls services by ``calls``. ``pause`` waits between two attempts."""
        raise NotImplementedError

    def here(self, calls: ServiceCalls) -> Any:
        """What makes it for a replica in this process."""
        return partial(self.make, calls)

    def _made(self, part: Part, calls: ServiceCalls, replica: int, parallelism: int) -> Any:
        logger = self.job.logger.getChild(part.name)
        key = None
        if part.has_key:
            is_told = part.asks_key and self.tells_keys
            key = calls.key_of(part.name, replica) if is_told else UNKNOWN
        context = Context(part.name, calls, logger, replica, parallelism, is_source=part.kind.begins, key=key)
        return instance(part.made, context)

    def _instance(self, part: Part, calls: ServiceCalls, replica: int, parallelism: int) -> Any:
        """As ``_made``, set up."""
        function = self._made(part, calls, replica, parallelism)
        setup = hook(function, "setup")
        if setup is not None:
            try:
                check_hook(f"{type(function).__name__}.setup", calls.loop.awaited(setup()))
            except BaseException:
                try:
                    close_all([function], calls.loop)
                except BaseException:
                    pass  # what failed first is what the job fails by
                raise
        return function

    def is_restarted(self, part: Part) -> bool:
        """Whether its function is made anew when it raises."""
        # What folds a window is called by the engine too.
        if self.job.faults is None or part.kind is FOLDED:
            return False
        from ._restarted import is_restarted

        return is_restarted(part.made[0])


@dataclass(eq=False, repr=False)
class ChainMaker(Maker):
    """Of functions that follow each other."""

    takes: Form = Form()
    gives: Form = Form()

    tells_keys: ClassVar[bool] = True

    def make(self, calls: ServiceCalls, replica: int, parallelism: int, pause: Any = None) -> Chain:
        links: list[Link] = []
        made: list[Any] = []
        has_key = self.takes.keyed
        for part in self.parts:
            if part.asks_key:
                links += _told_key(part, calls, replica, has_key)
            has_key = has_key_behind(part.kind, has_key)
            function = part.made[0]
            try:
                if self.is_restarted(part):
                    from ._restarted import chained

                    anew, linked = chained(self, part, calls, replica, parallelism, pause)
                    made.append(anew)
                    links += linked
                    continue
                if is_function_class(function):
                    function = self._instance(part, calls, replica, parallelism)
                    made.append(function)
                links += part.kind.links(part, function)
            except BaseException:
                close_all(made, calls.loop)
                raise
        return Chain(links, made, calls.loop, self.takes, self.gives, calls.nones)


def _told_key(part: Part, calls: ServiceCalls, replica: int, has_key: bool) -> list[Link]:
    """What tells a function that asks for it the key of each record, if there is one."""
    is_tagged = part.kind in (COMAP, COMAP_SOME, COJOIN)
    if not has_key and not is_tagged:
        return []
    return [Link(TOLD_TAGGED_KEY if is_tagged else TOLD_KEY, calls.key_of(part.name, replica).set, part.name)]


@dataclass(eq=False, repr=False)
class FlightMaker(Maker):
    """Of a function that several records are worked on with at a time."""

    in_flight: int = 1
    is_timed: bool = False
    is_async: bool = False

    def make(self, calls: ServiceCalls, replica: int, parallelism: int, pause: Any = None) -> Any:
        from ._in_flight import Flight, ThreadRunner

        runner: Any = ThreadRunner
        if self.is_async:
            # Here, as few programs need asyncio, which takes long to import.
            from ._async import LoopRunner

            runner = LoopRunner

        (part,) = self.parts
        timeouts = self.job.timeouts
        count_none, patience = calls.nones.counter(part.name), (timeouts.cancel, timeouts.drain)
        flight = Flight(part.kind, part.name, count_none, self.in_flight, self.is_timed, *patience)
        is_class = is_function_class(part.made[0])
        # On a loop, the runner sets it up.
        make = self._made if self.is_async else self._instance
        function = partial(make, part, calls, replica, parallelism) if is_class else lambda: part.made[0]
        anew = None
        if self.is_restarted(part):
            from ._restarted import replica_of

            anew = partial(replica_of, self, part, calls, replica, parallelism)
        return runner(flight, function, calls.loop, anew)


@dataclass(eq=False, repr=False)
class ProcessMaker(Maker):
    """Of a function that is called for records and timers."""

    def make(self, calls: ServiceCalls, replica: int, parallelism: int, pause: Any = None) -> Any:
        (part,) = self.parts
        if self.is_restarted(part):
            from ._restarted import Processed

            return Processed(self, part, calls, replica, parallelism, pause)
        return Runner(self._instance(part, calls, replica, parallelism), part.inputs, calls.loop)


@dataclass(eq=False, repr=False)
class SourceMaker(Maker):
    """Of a source."""

    #: Whether it is called again after it has raised.
    is_retried: bool = False
    pace: Pace = Pace()

    def make(self, calls: ServiceCalls, replica: int, parallelism: int, pause: Any = None) -> Records:
        (part,) = self.parts
        pace = partial(Paced, pace=self.pace, logger=self.job.logger.getChild(part.name)) if self.pace else None
        if part.kind is ITERABLE:
            records = part.made[0]
            return Records(_later(records, calls.loop) if is_async_iterable(records) else records, [], calls.loop, pace)
        if self.is_restarted(part) and not getattr(part.made[0], "_serves", False):
            from ._restarted import sourced

            anew, records = sourced(self, part, calls, replica, parallelism)
            return Records(records, [anew], calls.loop, pace)
        function = self._instance(part, calls, replica, parallelism)
        if isasyncgenfunction(function):
            return Records(_later(function(), calls.loop), [], calls.loop, pace)
        made = [function] if isinstance(part.made[0], type) else []
        if self.is_retried:
            return Records(Executed(part.made, function, part.name), made, calls.loop, pace)
        return Records(executed(part.made, function, part.kind is BATCH, part.name), made, calls.loop, pace)


def _later(records: Any, loop: JobLoop) -> Iterator[Any]:
    """What an async iterable gives."""
    from ._async_records import AsyncRecords  # asyncio takes longer to import than all the package

    return AsyncRecords(records, loop)


class Records:
    """A source: an iterable that is closed."""

    def __init__(
        self, records: Iterable[Any], made: list[Any], loop: JobLoop, pace: Callable[[Any], Paced] | None = None
    ) -> None:
        self.records = records
        self._pace = pace
        self._made = made
        self._loop = loop
        self._iterator: Any = None

    def end(self) -> None:
        """Nobody is left who could call the pipeline that this is the source of."""
        for function in self._made:
            function._end()

    def __iter__(self) -> Iterator[Any]:
        iterator = self._iterator = iter(self.records)
        if self._pace is not None:
            return self._pace(iterator)
        return iterator if isinstance(iterator, (GeneratorType, Executed)) else _given(iterator)

    def close(self) -> None:
        """Closes the iterator as well, which was begun for this job or handed over to it. One that is made for
        ``with``, such as a file, is for its program to close."""
        is_lent = self._iterator is self.records and hasattr(type(self._iterator), "__exit__")
        close_all(self._made if is_lent else [*self._made, self._iterator], self._loop)


def _given(iterator: Iterator[Any]) -> Iterator[Any]:
    """What an iterator gives. Functions such as ``eval`` that one like ``map`` calls look for the globals of their
    caller, and the engine has none."""
    for record in iterator:  # noqa: UP028 (`yield from` would close the iterator)
        yield record
