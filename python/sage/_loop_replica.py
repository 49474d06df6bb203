"""Async functions that are made anew when they raise, on the job's event loop: see ``_replica``.

Several records are worked on at a time. While a new object is made, or the state of one is kept, those that come wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from inspect import isawaitable
from time import monotonic
from typing import Any

from ._checkpoints import not_kept
from ._replica import FATAL, Attempts, Made, Replica


class LoopReplica(Replica):
    """The same, of an async function, on the job's event loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hurried = asyncio.Event()
        #: What all records wait for: a new object, or the state of this one.
        self._busy: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Those that are to be cancelled at the end."""
        return [] if self._busy is None else [self._busy]

    def hurry(self) -> None:
        """The job is drained."""
        self._hurried.set()

    async def begin_later(self) -> None:
        """As ``begin``."""
        self.made = self._bound(await self.make())

    async def _rest(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._hurried.wait(), seconds)
        except asyncio.TimeoutError:
            return True
        return False

    async def answer(self, record: Any) -> list[Any]:
        """As ``run``."""
        attempts = Attempts(self)
        while True:
            made = await self._entered()
            try:
                answer = await self._tried_later(made.calls[0], record, attempts)
            except FATAL:
                await self._left(made)
                raise
            except Exception as exception:
                await self._left(made)
                with attempts:
                    await self._replaced(made, exception, attempts)
                attempts.is_last = self._hurried.is_set()
            except BaseException:
                await self._left(made)
                raise
            else:
                await self._left(made, is_done=True)
                answered: list[Any] = answer
                return answered

    async def _tried_later(self, call: Callable[[Any], Awaitable[Any]], record: Any, attempts: Attempts) -> Any:
        failures, is_last = 0, self.retry is None
        while True:
            attempts.count += 1
            try:
                return await call(record)
            except Exception as exception:
                failures += 1
                if is_last or not self.is_retried(exception, failures):
                    raise
            is_last = not await self._rest(self.wait(failures))

    async def _entered(self) -> Made:
        while True:
            if self._busy is None and self.is_due() and self.made is not None:
                self._begin(self._keep_later(self.made))
            if self._busy is None:
                break
            # A record that is given up gives up the wait only.
            await asyncio.shield(self._busy)
        if self.made is None:
            assert self._broken is not None, "it was made, or has failed"
            raise self._broken
        self.made.inside += 1
        return self.made

    def _begin(self, work: Any) -> None:
        async def worked() -> None:
            try:
                await work
            finally:
                self._busy = None

        # Not by `create_task`, as this is not what a function leaves behind.
        self._busy = asyncio.Task(worked(), loop=asyncio.get_running_loop())

    async def _left(self, made: Made, is_done: bool = False) -> None:
        made.inside -= 1
        if is_done:
            self.done(made)
        if made.inside == 0:
            self._idle.set()
            if made.is_old:
                await self._end_later(made)

    async def _keep_later(self, made: Made) -> None:
        until = monotonic() + self.patience
        while made.inside > 0 and monotonic() < until:
            self._idle.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), until - monotonic())
        if made.inside > 0:
            return self.postpone()
        try:
            state = made.function.get_state()
            state = await state if isawaitable(state) else state
        except Exception as error:
            raise not_kept(self.name, error) from error
        self.kept(state)

    async def _replaced(self, made: Made, exception: BaseException, attempts: Attempts) -> None:
        while self._busy is not None:
            await asyncio.shield(self._busy)
        if made is self.made:
            delay = self.failed(exception, attempts.is_last)
            self._begin(self._renew_later(self.retire(exception), delay, attempts))
            assert self._busy is not None, "it was begun"
            await asyncio.shield(self._busy)
        elif attempts.is_last:
            raise exception

    async def _renew_later(self, ended: Made | None, delay: float, attempts: Attempts) -> None:
        if ended is not None:
            await self._end_later(ended)
        while True:
            attempts.is_last = not await self._rest(delay)
            try:
                return await self._renewed()
            except Exception as exception:
                delay = self.not_made(exception, attempts)

    async def _renewed(self) -> None:
        """As ``renew``."""
        function = await self.make()
        try:
            if (state := self.state()) is not None and isawaitable(restored := function.restore_state(state)):
                await restored
            self.took_over(function)
        except BaseException:
            with suppress(Exception):  # what failed first is what is told
                await self.end(function)
            raise

    async def _end_later(self, made: Made) -> None:
        if self.forget(made):
            try:
                await self.end(made.function)
            except Exception as error:
                self.noted(made, error)

    async def close_later(self) -> None:
        """As ``close``."""
        self._is_over = True
        for task in self.tasks:
            task.cancel()
        for made in list(self._old):
            await self._end_later(made)
        last, self.made = self.made, None
        try:
            if last is not None:
                await self.end(last.function)
        finally:
            self.raise_errors()
