"""Async generators and other async iterables as sources: they are gone through on the job's event loop.

One task on the loop goes through the iterable, from its first record to its ``aclose``, so that what belongs to a task,
such as a context variable or a timeout, holds between two records. It asks for the next record when the engine does,
and never before: what a generator does behind a ``yield`` happens when its record was taken.

The engine's thread waits by ``Wait``, which a drain or a cancel ends. It then closes the source, which cancels the task
where it waits, and has the generator closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from ._job_loop import JobLoop
from ._loop import OWNER, Owner, stack_of
from ._packet import StopSignal
from ._sage import Wait


class AsyncRecords:
    """Gives what an async iterable gives, and ``Wait`` while it has nothing."""

    def __init__(self, records: Any, loop: JobLoop) -> None:
        self._records = records
        self._job_loop = loop
        self._owner = Owner()
        #: The task and what wakes it, from the first record on.
        self._task: asyncio.Task[None] | None = None
        self._wanted: asyncio.Event | None = None
        self._wait: Wait | None = None
        #: What has come: a record, or an exception; set before the wait ends.
        self._came: list[tuple[Any, BaseException | None]] = []
        self._is_over = False
        self._iterator: Any = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._came:
            record, exception = self._came.pop()
            self._wait = None
            if exception is not None:
                self._is_over = True
                raise exception
            return record
        if self._is_over:
            raise StopIteration
        if self._wait is None:
            # Made before it is asked for, which may be answered at once.
            self._wait = Wait()
            self._ask()
        return self._wait

    def _ask(self) -> None:
        if self._wanted is None:
            self._job_loop.hold()
            self._wanted = asyncio.Event()
            loop = self._job_loop.begun().loop
            loop.call_soon_threadsafe(self._begin, loop)
        else:
            self._job_loop.begun().loop.call_soon_threadsafe(self._wanted.set)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._wanted is not None, "`_ask` has made it"
        self._wanted.set()
        self._task = asyncio.Task(self._go_through(self._wanted), loop=loop)

    async def _go_through(self, wanted: asyncio.Event) -> None:
        OWNER.set(self._owner)
        try:
            self._iterator = type(self._records).__aiter__(self._records)
            while True:
                await wanted.wait()
                wanted.clear()
                try:
                    record = await self._iterator.__anext__()
                except StopAsyncIteration:
                    record = StopSignal()
                if isinstance(record, StopSignal):
                    self._put(None, StopIteration())
                    return
                self._put(record)
        except GeneratorExit:
            self._iterator = None  # the loop was abandoned, and nothing can be awaited any more
            raise
        except BaseException as exception:  # whatever it is, the engine has to hear of it
            self._put(None, exception)
        finally:
            # Not of one that was made for `async with`, which is for its program to close.
            if hasattr(self._iterator, "aclose") and not hasattr(type(self._iterator), "__aexit__"):
                await self._iterator.aclose()

    def _put(self, record: Any, exception: BaseException | None = None) -> None:
        self._came.append((record, exception))
        if self._wait is not None:
            self._wait.end()

    def close(self) -> None:
        """Closes the iterable on the loop, and waits for that, and for what it has left there."""
        if self._wanted is None:
            return
        try:
            self._job_loop.begun().run(self._close(), lambda: stack_of(self._iterator))
        finally:
            self._job_loop.release()

    async def _close(self) -> None:
        assert self._task is not None, "it was begun on this loop, before"
        self._task.cancel()
        # Not awaited themselves: if they never end, this is cancelled with the job, and ends.
        await asyncio.wait([self._task])
        left = asyncio.Task(self._owner.ended())
        await asyncio.wait([left])
        if not self._task.cancelled():
            self._task.result()  # raises what `aclose` has raised
        left.result()
