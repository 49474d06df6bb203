"""The event loop of a job: one loop for its async functions and the async hooks of its services; when it begins and
ends.

It begins at the job's first await and ends with its last user: operators hold it while they are open, services until
they are cleaned. So a client that an async hook opened is used and closed on the loop it belongs to. Tasks that are
left on the loop are cancelled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._loop import Loop


class JobLoop:
    """The event loop of one job, which nothing is made of until it is needed."""

    def __init__(self, patience: float) -> None:
        #: How long what is left on it may take to end, in seconds.
        self.patience = patience
        #: Called on the loop's thread when the loop can run no more.
        self.on_failure: Callable[[], object] | None = None
        self._guard = threading.Lock()
        self._holders = 0
        self._running: Loop | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps it, if it has begun, or begins meanwhile."""
        self.hold()
        try:
            yield
        finally:
            self.release()

    def hold(self) -> None:
        """As ``held``, until ``release``."""
        with self._guard:
            self._holders += 1

    def release(self) -> None:
        """Ends the loop if no other user holds it. Raises ``RuntimeError`` for tasks that do not end."""
        with self._guard:
            self._holders -= 1
            if self._holders or self._running is None:
                return
            running, self._running = self._running, None
        running.end(self.patience)

    def begun(self) -> Loop:
        """The loop. The calling thread works for the job, and a user holds the loop."""
        with self._guard:
            if self._running is None:
                from ._loop import Loop  # asyncio takes longer to import than all the package

                self._running = Loop(self.on_failure)
            return self._running

    def awaited(self, result: Any) -> Any:
        """The result of a hook; if that has to be awaited, the result of awaiting it."""
        if result is None or not hasattr(type(result), "__await__"):
            return result
        with self.held():
            return self.begun().run(result)

    def abandon(self) -> None:
        """The job is over. A user that still holds the loop was abandoned."""
        with self._guard:
            running, self._running = self._running, None
        if running is not None:
            running.abandon()
