"""How callers of a service in a process of its own wait for what comes of their calls: see ``_isolated.py``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic

from ._sage import Wait, is_cancelled_here

#: How long a call may go on after its job was cancelled, in seconds.
AFTER_CANCEL = 1.0

#: How often a source that is to end looks whether its job was cancelled meanwhile, in seconds.
_SOON = 0.05

#: What whoever waits is given: a kind, a number and the parts of a frame.
Came = tuple[int, int, bytes, list[bytes | bytearray]]


class Late(Exception):
    """Nothing has come in time."""


class Waiting:
    """A thread that waits for what comes of its call, and can serve other calls meanwhile."""

    def __init__(self) -> None:
        self._came: SimpleQueue[Came] = SimpleQueue()
        self._wait = Wait()

    def put(self, came: Came) -> None:
        """Gives it a frame."""
        self._came.put(came)
        self._wait.end()

    def get(self, until: float | None) -> Came:
        """The next frame. Raises ``Late``, also a moment after the job of the thread's task was cancelled."""
        while True:
            # Made before the queue is looked into: what comes behind that ends it.
            wait = self._wait = Wait(left_until(until))
            if not self._came.empty():
                return self._came.get()
            is_over = wait.here()
            if is_over is None:
                return self._got(until)  # the thread has no task
            if is_over:
                raise Late
            if self._came.empty():
                break
        # A source that nothing more is wanted of goes on with what it is at.
        while not is_cancelled_here():
            try:
                return self._came.get(timeout=_SOON)
            except Empty:
                if until is not None and monotonic() > until:
                    raise Late from None
        return self._got(min(monotonic() + AFTER_CANCEL, until or inf))

    def _got(self, until: float | None) -> Came:
        try:
            return self._came.get(timeout=left_until(until))
        except Empty:
            raise Late from None


class Awaiting:
    """A coroutine that waits for what comes of its call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[Came] = loop.create_future()

    def put(self, came: Came) -> None:
        """Gives it a frame."""
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._set, came)

    def _set(self, came: Came) -> None:
        if not self.future.done():
            self.future.set_result(came)


def left_until(until: float | None) -> float | None:
    return None if until is None else max(until - monotonic(), 0.0)
