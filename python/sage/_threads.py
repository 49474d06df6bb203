"""Threads that call a program's functions, none of which keeps the program from ending.

Those of the standard library's pools are waited for at the end of the interpreter, for ever if a call never returns.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any

from ._sage import WorksFor, await_end
from ._session import OF_JOB
from ._stacks import where_stuck


def started(run: Callable[..., None], name: str, *args: Any) -> threading.Thread:
    """Starts a thread that works for the same job as this one."""
    job, of_job = WorksFor.here(), OF_JOB.get()

    def begin() -> None:
        if job is not None:
            job.enter()
        OF_JOB.set(of_job)
        run(*args)

    # Linux keeps 15 bytes of a thread's name.
    thread = threading.Thread(target=begin, name=name[:15], daemon=True)
    thread.start()
    return thread


def joined(thread: threading.Thread) -> None:
    """Waits for the end of a thread that has nothing more to do, until the system has none of it."""
    thread.join()
    # The interpreter may say so, and the system wake whoever waits, in the moment before the thread is gone.
    if thread.native_id is not None:
        await_end(thread.native_id)


class Threads(ThreadPoolExecutor):
    """The threads of an event loop, started as they are needed. ``known`` gets the result of each call."""

    def __init__(self, most: int, name: str, known: Callable[[Future[Any]], None]) -> None:
        super().__init__(1)  # for its type, which event loops ask for
        self._most = most
        self._name = name
        self._known = known
        self._change = threading.Condition()
        self._queue: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = deque()
        self._all: list[threading.Thread] = []
        self._idle = 0
        self._inside: dict[threading.Thread, Future[Any]] = {}
        self._is_over = False

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Has a thread call the function."""
        future: Future[Any] = Future()
        with self._change:
            if self._is_over:
                raise RuntimeError("the job is over, and calls nothing any more")
            self._queue.append((future, function, args, kwargs))
            if self._idle >= len(self._queue):
                self._change.notify()
            elif len(self._all) < self._most:
                self._all.append(started(self._run, self._name))
        self._known(future)
        return future

    def _run(self) -> None:
        while True:
            with self._change:
                self._inside.pop(threading.current_thread(), None)
                self._change.notify_all()
                self._idle += 1
                self._change.wait_for(lambda: self._queue or self._is_over)
                self._idle -= 1
                if not self._queue:
                    return
                future, function, args, kwargs = self._queue.popleft()
                self._inside[threading.current_thread()] = future
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*args, **kwargs)
                except BaseException as exception:  # whatever it is, who waits has to hear of it
                    future.set_exception(_settled(exception))
                else:
                    future.set_result(result)
                    del result
            del future, function, args, kwargs

    def close(self, patience: float) -> list[str]:
        """Ends the threads; says where those are whose calls do not return within ``patience`` seconds."""
        until = monotonic() + patience
        with self._change:
            self._is_over = True
            for future, *_ in self._queue:
                future.cancel()
            self._queue.clear()
            self._change.notify_all()
            self._change.wait_for(lambda: not self._inside, until - monotonic())
            inside = list(self._inside)
        for thread in self._all:
            if thread not in inside:
                joined(thread)
        return [_told(thread) for thread in inside]

    def left(self, futures: set[Future[Any]]) -> list[str]:
        """Where those of these calls are that have not returned."""
        with self._change:
            return [_told(thread) for thread, future in self._inside.items() if future in futures]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Does nothing: the job ends them."""


def _told(thread: threading.Thread) -> str:
    return f"a thread, here:\n{where_stuck(thread.ident or 0)}"


def _settled(exception: BaseException) -> BaseException:
    """As an event loop takes it: it would wait for ever for a ``StopIteration``."""
    if not isinstance(exception, StopIteration):
        return exception
    instead = RuntimeError("a call on a thread raised StopIteration")
    instead.__cause__ = exception
    return instead
