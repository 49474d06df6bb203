"""In a worker: a coroutine's call of a service. A method that is async is awaited on the job's loop."""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, Future
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ._wire import DROP, unpacked
from ._worker import outcome

if TYPE_CHECKING:
    from ._worker import Link


class Later:
    """What waits for the answer to a call: for its result, or to be told that this comes later, if that is not known.
    """

    def __init__(self, link: Link, number: int, loop: AbstractEventLoop, is_known: bool) -> None:
        self.number = number
        self._link = link
        self._loop = loop
        self._first: SimpleQueue[Any] = SimpleQueue()
        self._future: Future[Any] | None = loop.create_future() if is_known else None

    def put(self, came: Any) -> None:
        """Gives it the answer; ``None`` if that comes later."""
        if self._future is not None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._set, came)
            return
        if came is None:
            self._future = self._loop.create_future()
        self._first.put(came)

    def get(self) -> Any:
        """Waits for that on the thread of the loop: it is a moment, if the method is async."""
        return self._first.get()

    def _set(self, came: Any) -> None:
        assert self._future is not None, "the result comes later"
        if not self._future.done():
            self._future.set_result(came)

    async def awaited(self) -> Any:
        """The result. The job gives up what is given up here."""
        assert self._future is not None, "the result comes later"
        try:
            came = await self._future
        except CancelledError:
            self._link.send(DROP, None, self.number)
            raise
        return outcome(*unpacked(*came))


async def given(is_result: bool, value: Any, was_awaited: bool) -> Any:
    """What gives, when it is awaited, a result that is there."""
    return outcome(is_result, value, was_awaited)
