"""Async functions, which work on several records at a time on the job's event loop.

The engine decides how many records are in flight, in which order their results go on, how long each may take, and what
happens to those that fail. This module begins records, awaits them and gives them up, and waits for the rest at the
end. The engine calls ``begin_close`` of a runner, and ``finish_close`` when everything has ended or the time for it is
over.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from ._awaiting import UNAWAITED, UNUSED, refuse
from ._functions import COLLECTED, FlatMapFunction
from ._made import endings, hook
from ._in_flight import Flight, as_it_is, method_of, results_of, told
from ._job_loop import JobLoop
from ._kinds import FLATMAP, SINK
from ._loop import OWNER, Owner, stack_of_task
from ._sage import Bridge

#: How many answers the engine is woken for at once, at most. The loop goes on while it works on them.
_ANSWERS = 16


class LoopRunner:
    """Awaits the async function of a replica for several records at a time, on the job's event loop.

    The function is made, called and closed on that loop, so that it may have clients that belong to one.
    """

    #: For the report, at the end.
    notes: tuple[str, ...] = ()

    def __init__(
        self, flight: Flight, make: Callable[[], Any], loop: JobLoop, anew: Callable[..., Any] | None = None
    ) -> None:
        self.bridge = Bridge()
        #: What makes the function anew when it raises, if something does.
        self._anew = anew
        self._replica: Any = None
        self.patience = flight.patience
        self._flight = flight
        self._make = make
        self._function: Any = None
        self._call: Callable[[Any], Awaitable[Any]]
        self._results: Callable[[Any, Any], list[Any]]
        self._refused = UNUSED if flight.kind is SINK else UNAWAITED
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ending: asyncio.Task[None] | None = None
        self._owner = Owner()
        self._is_ending = False
        self._has_ended = False
        self._is_closed = False
        self._job_loop = loop
        loop.hold()
        try:
            self._loop = loop.begun()
            self._loop.run(self._begin())
        except BaseException:
            # As in `finish_close`.
            del self.bridge
            loop.release()
            raise

    async def _begin(self) -> None:
        # Of this task, and so of those that are begun from here on.
        OWNER.set(self._owner)
        if self._anew is None:
            self._function = await self._set_up()
            self._call, self._results = self._called(self._function)
        else:
            from ._loop_replica import LoopReplica

            how = {"kind": LoopReplica, "make": self._set_up, "bind": self._bound, "end": self._end_function}
            self._replica = self._anew(**how, pause=None)
            await self._replica.begin_later()
            self._call, self._results = self._replica.answer, as_it_is
        self._loop.loop.add_reader(self.bridge.fileno(), self._take)

    async def _set_up(self) -> Any:
        """A new function, ready for use."""
        function = self._make()
        setup = hook(function, "setup")
        try:
            if setup is not None and inspect.isawaitable(setting_up := setup()):
                await setting_up
        except BaseException:
            try:
                await self._end_function(function)
            except BaseException:
                pass  # what failed first is what the job fails by
            raise
        return function

    def _bound(self, function: Any) -> list[Callable[[Any], Awaitable[list[Any]]]]:
        """What gives all that goes on of a record."""
        call, results = self._called(function)

        async def answer(record: Any) -> list[Any]:
            result = await call(record)
            if type(result) in self._refused:
                raise refuse(self._flight.name, result)
            return results(result, record)

        return [answer]

    @property
    def has_pauses(self) -> bool:
        """Whether something waits to be tried again, and is to be told of a drain."""
        return self._replica is not None

    def hurry(self) -> None:
        """The job is drained: what waits to be tried again is tried at once."""
        self._loop.loop.call_soon_threadsafe(self._replica.hurry)

    def begin_close(self, is_cancelled: bool) -> float:
        """Cancels the calls that still run, and with ``is_cancelled`` also the tasks that the function left behind.
        Returns how long to wait for their end, in seconds."""

        def begin() -> None:
            # Kept, as a loop keeps no task itself.
            self._ending = asyncio.Task(self._end(is_cancelled), loop=self._loop.loop)

        self._loop.loop.call_soon_threadsafe(begin)
        owner = self._owner
        is_left = owner.tasks or owner.calls or owner.processes
        return self._flight.patience_left if is_left and not is_cancelled else self.patience

    async def _end(self, is_cancelled: bool) -> None:
        try:
            self._is_ending = True
            self._loop.loop.remove_reader(self.bridge.fileno())
            tasks = [*self._tasks.values(), *(self._owner.tasks if is_cancelled else [])]
            tasks += [] if self._replica is None else self._replica.tasks
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._owner.ended()
            self._has_ended = True
        finally:
            if not self._is_closed:
                self.bridge.ended()

    def finish_close(self) -> str | None:
        """Closes the function. Returns a description of the work that has not ended, if any."""
        loop = self._loop
        left: list[str] = []
        try:
            stuck = None if self._has_ended else loop.stuck()
            if stuck is not None:
                loop.is_told = True
                left.append(f"a call blocks the event loop, here:\n{stuck}")
            elif not self._has_ended:
                calls = [f"a call that was cancelled goes on, here:\n{stack_of_task(t)}" for t in self._tasks.values()]
                left += calls + self._owner.left() + loop.threads.left(self._owner.calls)
                # They are told of, and not waited for once more.
                loop.is_told = True
                if self._ending is not None:
                    loop.loop.call_soon_threadsafe(self._ending.cancel)
            if stuck is None:
                loop.run(self._close())
        finally:
            # The descriptors of the bridge are not to stay open for as long as a traceback refers to this object.
            self._is_closed = True
            del self.bridge
            self._job_loop.release()
        if loop.broken:
            raise loop.broken.pop(0)
        return told(left) if left else None

    async def _close(self) -> None:
        OWNER.set(self._owner)
        await self._owner.buried()
        function, self._function = self._function, None
        await (self._end_function(function) if self._replica is None else self._replica.close_later())

    async def _end_function(self, function: Any) -> None:
        failed: BaseException | None = None
        for _, end in endings(function) if hasattr(function, "execute") else []:
            try:
                if inspect.isawaitable(ending := end()):
                    await ending
            except BaseException as exception:  # whatever it is, the rest is called as well
                failed = failed or exception
        if failed is not None:
            raise failed

    def blocked(self) -> str:
        """Why nothing can be awaited any more."""
        stuck = self._loop.stuck()
        return f"a call of `{self._flight.name}` blocks its event loop, which no timeout can end" + (
            f"; here:\n{stuck}" if stuck else ""
        )

    def _take(self) -> None:
        """Begins with the records that wait, and gives up those whose results are no longer wanted."""
        begin, cancel = self.bridge.take()
        for number, record in begin:
            # Not by `create_task`, as these are not what a function leaves behind.
            self._tasks[number] = asyncio.Task(self._answer(number, record), loop=self._loop.loop)
        for number in cancel:
            if number in self._tasks:
                self._tasks[number].cancel()

    async def _answer(self, number: int, record: Any) -> None:
        if self._flight.is_timed:
            self.bridge.begins(number)
        try:
            result = await self._call(record)
            if type(result) in self._refused:
                raise refuse(self._flight.name, result)
            results = self._results(result, record)
        except BaseException as exception:  # whatever it is, the engine has to hear of it
            if self._is_closed:
                raise  # it was told of, and is thrown away
            answers = self.bridge.failed(number, exception)
        else:
            answers = self.bridge.done(number, results)
        finally:
            del self._tasks[number]
        if answers == 1:
            self._loop.loop.call_soon(self._send)
        elif answers == _ANSWERS:
            self._send()

    def _send(self) -> None:
        """Sends answers to the engine, and begins with what it has sent for those before."""
        if not self._is_ending and self.bridge.send():
            self._take()

    def _called(self, made: Any) -> tuple[Callable[[Any], Awaitable[Any]], Callable[[Any, Any], list[Any]]]:
        """What is called with a record and awaited, and what makes a list of what goes on of the result and the
        record."""
        function = method_of(made)
        if inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(getattr(function, "__call__", None)):
            if self._flight.kind is not FLATMAP:
                raise TypeError(f"`{self._flight.name}` is an async generator: those are for `flatmap`")

            async def generated(record: Any) -> list[Any]:
                return [result async for result in function(record)]

            return generated, as_it_is
        results = results_of(self._flight)
        if self._flight.kind is not FLATMAP or not isinstance(made, FlatMapFunction):
            return function, results

        async def collecting(record: Any) -> list[Any]:
            # Each task has a context of its own.
            collected: list[Any] = []
            COLLECTED.set(collected)
            returned = results(await function(record), record)
            return [*collected, *returned]

        return collecting, as_it_is
