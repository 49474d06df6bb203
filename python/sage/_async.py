"""Functions that work on several records at a time: async ones on the job's event loop, others on threads.

The engine decides how many records are in flight, in which order their results go on, how long each may take, and what
happens to those that fail. This module begins records, awaits them and gives them up, and waits for the rest at the
end. The engine calls ``begin_close`` of a runner, and ``finish_close`` when everything has ended or the time for it is
over.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from ._awaiting import UNAWAITED, UNUSED, refuse
from ._chain import close_all
from ._functions import COLLECTED, FlatMapFunction, endings, hook, several
from ._job_loop import JobLoop
from ._kinds import FLATMAP, SINK, Kind
from ._loop import OWNER, Owner, stack_of_task
from ._sage import Bridge
from ._stacks import where_stuck
from ._threads import joined, started

#: How many threads call a function that is not async, at most.
MOST_THREADS = 256

#: How many answers the engine is woken for at once, at most. The loop goes on while it works on them.
_ANSWERS = 16

#: How many of those that are left are told in full.
_MOST_TOLD = 3


@dataclass(frozen=True)
class Flight:
    """How a step works on several records at a time."""

    kind: Kind
    name: str
    #: Counts a result that is no record.
    count_none: Callable[[], int]
    #: How many records are in flight.
    most: int
    #: Whether each has a limited time.
    is_timed: bool
    #: How long calls that were given up may take to end, in seconds, and what a function leaves behind.
    patience: float
    patience_left: float


def _method(function: Any) -> Callable[[Any], Any]:
    # Of a class with `execute`, an object was made.
    called: Callable[[Any], Any] = function.execute if hasattr(function, "execute") else function
    return called


def _told(left: list[str]) -> str:
    more = [f"and {len(left) - _MOST_TOLD} more"] if len(left) > _MOST_TOLD else []
    return "\n".join([*left[:_MOST_TOLD], *more])


class ThreadRunner:
    """Calls the function of a replica on threads, each for one record at a time.

    The function is made and closed on the task's thread. A call that has taken too long keeps its thread until it
    returns, while another thread takes its place: see ``Bridge``.
    """

    def __init__(self, flight: Flight, make: Callable[[], Any], loop: JobLoop) -> None:
        self.patience = flight.patience
        self._name = flight.name
        self._loop = loop
        self._function = make()
        self.bridge = Bridge(min(flight.most, MOST_THREADS))
        self._results = _results(flight, self._function)
        self._refused = UNUSED if flight.kind is SINK else UNAWAITED
        #: That of the task's thread: what the program had set when it submitted the job.
        self._context = copy_context()
        self._guard = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._inside: set[threading.Thread] = set()
        self._start()

    def _start(self) -> None:
        with self._guard:
            for thread in self._threads:
                if not thread.is_alive():
                    joined(thread)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(started(self._run, f"sage-{self._name}"))

    def _run(self) -> None:
        self._context.copy().run(self._work)

    def _work(self) -> None:
        bridge, results, call = self.bridge, self._results, _method(self._function)
        thread = threading.current_thread()
        while (taken := bridge.next()) is not None:
            number, record, is_last = taken
            if is_last:
                try:
                    self._start()
                except RuntimeError:  # the system gives no more
                    bridge.not_started()
            self._inside.add(thread)
            try:
                collected: list[Any] = []
                COLLECTED.set(collected)
                # What was returned is gone through here, as a generator does its work then.
                answer = [*results(self._checked(call(record)), record)]
                answer = [*collected, *answer] if collected else answer
            except BaseException as exception:  # whatever it is, the engine has to hear of it
                self._inside.discard(thread)
                bridge.failed(number, exception)
            else:
                self._inside.discard(thread)
                bridge.done(number, answer)
                del answer
            del taken, record, collected

    def _checked(self, returned: Any) -> Any:
        if type(returned) in self._refused:
            raise refuse(self._name, returned)
        return returned

    def begin_close(self, _is_cancelled: bool) -> float:
        """Ends the threads that are in no call. Returns how long to wait for the others, in seconds."""
        self.bridge.close()
        return self.patience

    def finish_close(self) -> str | None:
        """Closes the function. Returns a description of the work that has not ended, if any."""
        with self._guard:
            stuck = [thread for thread in self._threads if thread in self._inside]
            ended = [thread for thread in self._threads if thread not in stuck]
            self._threads = stuck
        for thread in ended:
            joined(thread)
        left = [f"a call has not returned; its thread is left, here:\n{where_stuck(t.ident or 0)}" for t in stuck]
        if hasattr(self._function, "execute"):
            close_all([self._function], self._loop)
        return _told(left) if left else None

    def blocked(self) -> str:
        """Threads never block the others."""
        return ""


class LoopRunner:
    """Awaits the async function of a replica for several records at a time, on the job's event loop.

    The function is made, called and closed on that loop, so that it may have clients that belong to one.
    """

    def __init__(self, flight: Flight, make: Callable[[], Any], loop: JobLoop) -> None:
        self.bridge = Bridge()
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
        self._function = self._make()
        setup = hook(self._function, "setup")
        try:
            if setup is not None and inspect.isawaitable(setting_up := setup()):
                await setting_up
        except BaseException:
            try:
                await self._close()
            except BaseException:
                pass  # what failed first is what the job fails by
            raise
        self._call, self._results = self._called(_method(self._function))
        self._loop.loop.add_reader(self.bridge.fileno(), self._take)

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
        return _told(left) if left else None

    async def _close(self) -> None:
        OWNER.set(self._owner)
        await self._owner.buried()
        ends = endings(self._function) if hasattr(self._function, "execute") else []
        self._function = None
        failed: BaseException | None = None
        for _, end in ends:
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

    def _called(
        self, function: Callable[[Any], Any]
    ) -> tuple[Callable[[Any], Awaitable[Any]], Callable[[Any, Any], list[Any]]]:
        """What is called with a record and awaited, and what makes a list of what goes on of the result and the
        record."""
        if inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(getattr(function, "__call__", None)):
            if self._flight.kind is not FLATMAP:
                raise TypeError(f"`{self._flight.name}` is an async generator: those are for `flatmap`")

            async def generated(record: Any) -> list[Any]:
                return [result async for result in function(record)]

            return generated, _as_it_is
        results = _results(self._flight, self._function)
        if not isinstance(self._function, FlatMapFunction):
            return function, results

        async def collecting(record: Any) -> list[Any]:
            # Each task has a context of its own.
            collected: list[Any] = []
            COLLECTED.set(collected)
            returned = results(await function(record), record)
            return [*collected, *returned]

        return collecting, _as_it_is


def _as_it_is(results: list[Any], _record: Any) -> list[Any]:
    return results


def _results(flight: Flight, function: Any) -> Callable[[Any, Any], list[Any]]:
    kind = flight.kind
    if isinstance(function, FlatMapFunction) or kind.result is None:
        return _collected
    return partial(_some, flight.count_none, kind.result) if kind.drops_none else kind.result


def _some(
    count_none: Callable[[], int], results: Callable[[Any, Any], list[Any]], result: Any, record: Any
) -> list[Any]:
    if result is None:
        count_none()
        return []
    return results(result, record)


def _collected(results: Any, _record: Any) -> list[Any]:
    """Of a function that may have collected its results instead of returning them."""
    return several(results)
