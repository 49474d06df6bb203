"""Threads for calls that do not block their caller.

They are daemons, unlike those of ``concurrent.futures``: a call that never returns keeps no interpreter from ending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

_Work = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Workers:
    """Up to ``most`` threads, made when they are needed, which end with ``close``."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._count = 0

    def submit(self, call: Callable[..., Any], *args: Any) -> Future[Any]:
        """Has a thread make the call."""
        future: Future[Any] = Future()
        with self._lock:
            self._work.put((future, call, args))
            if not self._idle.acquire(blocking=False) and self._count < self._most:
                self._count += 1
                threading.Thread(target=self._run, name=f"{self._name}-{self._count}", daemon=True).start()
        return future

    def close(self) -> None:
        """Cancels the calls that have not begun, and has the threads end when theirs have."""
        with self._lock:
            try:
                while (work := self._work.get_nowait()) is not None:
                    work[0].cancel()
            except Empty:
                pass
            for _ in range(self._count):
                self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            _make(*work)
            del work
            self._idle.release()


def _make(future: Future[Any], call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call(*args)
    except BaseException as exception:  # whatever it is, it is for who waits for the call
        future.set_exception(exception)
    else:
        future.set_result(result)
