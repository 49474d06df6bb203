"""Metronomes: a steady beat, for sources that give their records at a pace; and a lock, for one record at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from inspect import iscoroutinefunction
from typing import Any, overload

from ._arguments import seconds
from ._keywords import spelt
from ._sage import Wait


@spelt
class Metronome:
    """Beats every ``interval`` seconds, counted from the first. Beats that nobody waited for are missed, not made up.

    Called, it waits for the next beat and returns its number, so that it is a source by itself; ``stop`` ends it.

    A wait in a source ends before its beat when nothing more is wanted of the source; in another function of a job,
    which may keep to a pace until its records are worked on, when the job is cancelled.
    """

    def __init__(self, interval: float) -> None:
        self.interval = seconds("an interval", interval, more=True)
        self._begin: float | None = None
        self._beat = -1
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        #: Those of tasks that wait for a beat.
        self._waits: set[Wait] = set()

    def wait(self) -> bool:
        """Waits for the next beat; the first is at once. ``False`` when it was stopped, or the wait was cut off."""
        with self._lock:
            now = time.monotonic()
            if self._begin is None:
                self._begin = now
            due = max(self._beat + 1, int((now - self._begin) / self.interval))
            self._beat = due
            rest = self._begin + due * self.interval - now
        return (rest <= 0 or self._rest(rest)) and not self._stopped.is_set()

    def _rest(self, rest: float) -> bool:
        wait = Wait(rest)
        self._waits.add(wait)
        try:
            # `stop` may have come before the wait was among those that it ends.
            is_whole = False if self._stopped.is_set() else wait.here()
        finally:
            self._waits.discard(wait)
        return not self._stopped.wait(rest) if is_whole is None else is_whole

    def stop(self) -> None:
        """Ends the beats, and wakes the thread that waits."""
        self._stopped.set()
        for wait in tuple(self._waits):
            wait.end()

    def __iter__(self) -> Iterator[int]:
        while self.wait():
            yield self._beat

    def __call__(self) -> object:
        from ._packet import StopSignal

        return self._beat if self.wait() else StopSignal("metronome")


@spelt
class Lock:
    """Has a source give one record at a time, as SAGE's metronome does.

    A source and a sink share it: each has the attributes ``use_metronome = True`` and ``metronome``. The source waits
    until it is released before it makes a record, and locks it with each record; the sink releases it behind each. A
    program releases it once to begin. A record that does not reach the sink has to be released by whoever drops it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._released = threading.Event()
        self._guard = threading.Lock()
        #: Those of sources that wait for the release.
        self._waits: list[Wait] = []

    def wait_for_release(self, timeout: float | None = None) -> bool:
        """Waits until it is released, or for ``timeout`` seconds; says whether it is."""
        return self._released.wait(timeout)

    def awaited(self) -> Wait | None:
        """What the engine waits for, until it is released; ``None`` if it is."""
        with self._guard:
            if self._released.is_set():
                return None
            self._waits.append(Wait())
            return self._waits[-1]

    def release_once(self) -> None:
        """Lets the source make one record."""
        with self._guard:
            waits, self._waits = self._waits, []
            self._released.set()
        for wait in waits:
            wait.end()

    #: The name under which SAGE releases it at the end.
    force_release = release_once

    def lock_after_send(self) -> None:
        """Has the source wait for the next release."""
        self._released.clear()


@overload
def create_metronome(name: str = ...) -> Lock: ...
@overload
def create_metronome(name: float) -> Metronome: ...


@spelt
def create_metronome(name: str | float = "metronome") -> Lock | Metronome:
    """A ``Lock`` of this name; or, of a number of seconds, a ``Metronome`` that beats so often."""
    return Lock(name) if isinstance(name, str) else Metronome(name)


def lock_of(function: object) -> Lock | None:
    """The lock that a function goes by, if it does."""
    lock = getattr(function, "metronome", None) if getattr(function, "use_metronome", False) is True else None
    return lock if isinstance(lock, Lock) else None


def releasing(execute: Callable[..., Any], lock: Lock) -> Callable[..., Any]:
    """As ``execute`` of a sink, and releases the lock, whatever happened."""
    if iscoroutinefunction(execute):

        async def execute_later(record: Any) -> Any:
            try:
                return await execute(record)
            finally:
                lock.release_once()

        return execute_later

    def execute_once(record: Any) -> Any:
        try:
            return execute(record)
        finally:
            lock.release_once()

    return execute_once
