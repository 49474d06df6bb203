"""Async functions: the event loop of a replica, and the tasks on it.

How many records are in flight, in which order their results go on, how long each may take and what becomes of
those that fail is the engine's to say: here is what a record is begun with, awaited and given up.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ._functions import COLLECTED, FlatMapFunction
from ._sage import Bridge

#: How many threads call a function that is not async, at most.
MOST_THREADS = 256

#: How many answers the engine is woken for at once, at most. The loop goes on while it works on them.
_ANSWERS = 16


class AsyncRunner:
    """Runs the function of a replica for several records at a time, on an event loop in a thread of its own.

    The function is made, called and closed on that thread, inside the loop, so that it may have clients that
    belong to a loop.
    """

    def __init__(self, kind: str, make: Callable[[], Any], in_flight: int, name: str) -> None:
        self.bridge = Bridge()
        self._kind = kind
        self._make = make
        self._name = name
        self._most = min(in_flight, MOST_THREADS)
        self._pool: ThreadPoolExecutor | None = None
        self._function: Any = None
        self._call: Callable[[Any], Awaitable[Any]]
        self._results: Callable[[Any, Any], list[Any]]
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._is_ending = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"sage-loop-{name}"[:15], daemon=True)
        self._thread.start()
        try:
            self._on_loop(self._begin())
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        """Cancels what still runs, waits for it, closes the function and ends the thread."""
        try:
            self._on_loop(self._finish())
        finally:
            self._end()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _on_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        # The descriptors of the bridge are not to stay open for as long as a traceback refers to this object.
        del self.bridge

    async def _begin(self) -> None:
        self._function = self._make()
        # Of a class with `execute`, an object was made.
        function = self._function.execute if hasattr(self._function, "execute") else self._function
        self._call, self._results = self._called(function)
        self._loop.add_reader(self.bridge.fileno(), self._take)

    async def _finish(self) -> None:
        self._is_ending = True
        self._loop.remove_reader(self.bridge.fileno())
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        close = getattr(self._function, "close", None)
        if hasattr(self._function, "execute") and callable(close):
            closing = close()
            if inspect.isawaitable(closing):
                await closing

    def _take(self) -> None:
        """Begins with the records that wait, and gives up those that nobody waits for any longer."""
        begin, cancel = self.bridge.take()
        for number, record in begin:
            self._tasks[number] = self._loop.create_task(self._answer(number, record))
        for number in cancel:
            if number in self._tasks:
                self._tasks[number].cancel()

    async def _answer(self, number: int, record: Any) -> None:
        try:
            results = self._results(await self._call(record), record)
        except BaseException as exception:  # whatever it is, the engine has to hear of it
            answers = self.bridge.failed(number, exception)
        else:
            answers = self.bridge.done(number, results)
        finally:
            del self._tasks[number]
        if answers == 1:
            self._loop.call_soon(self._send)
        elif answers == _ANSWERS:
            self._send()

    def _send(self) -> None:
        """Sends answers to the engine, and begins with what it has sent for those before."""
        if self.bridge.send() and not self._is_ending:
            self._take()

    def _called(
        self, function: Callable[[Any], Any]
    ) -> tuple[Callable[[Any], Awaitable[Any]], Callable[[Any, Any], list[Any]]]:
        """What is called with a record and awaited, and what makes a list of what goes on of the result and the
        record."""
        if inspect.isasyncgenfunction(function):
            if self._kind != "flatmap":
                raise TypeError(f"`{self._name}` is an async generator: those are for `flatmap`")

            async def generated(record: Any) -> list[Any]:
                return [result async for result in function(record)]

            return generated, _as_it_is
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)
        )
        collects = isinstance(self._function, FlatMapFunction)
        results = _collected if collects else _RESULTS[self._kind]
        if not is_async:
            pool = self._pool = ThreadPoolExecutor(self._most, thread_name_prefix=f"sage-{self._name}"[:12])

            def on_thread(record: Any) -> list[Any]:
                # Here, as a generator does its work when it is gone through.
                collected: list[Any] = []
                token = COLLECTED.set(collected)
                try:
                    returned = results(function(record), record)
                    return [*collected, *returned]
                finally:
                    COLLECTED.reset(token)

            return lambda record: self._loop.run_in_executor(pool, on_thread, record), _as_it_is
        if not collects:
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


def _collected(results: Any, _record: Any) -> list[Any]:
    """Of a function that may have collected its results instead of returning them."""
    return [] if results is None else list(results)


#: What goes on, by the kind of the step, of what the function returned and of the record.
_RESULTS: dict[str, Callable[[Any, Any], list[Any]]] = {
    "map": lambda result, _record: [result],
    "filter": lambda result, record: [record] if result else [],
    "flatmap": lambda results, _record: list(results),
    "sink": lambda _result, _record: [],
}
