"""A steady beat, for sources that give their records at a pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from ._arguments import seconds


class Metronome:
    """Beats every ``interval`` seconds, counted from the first. Beats that nobody waited for are missed, not made up.

    Called, it waits for the next beat and returns its number, so that it is a source by itself; ``stop`` ends it.
    """

    def __init__(self, interval: float) -> None:
        self.interval = seconds("an interval", interval, more=True)
        self._begin: float | None = None
        self._beat = -1
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def wait(self) -> bool:
        """Waits for the next beat; the first is at once. ``False`` when it was stopped."""
        with self._lock:
            now = time.monotonic()
            if self._begin is None:
                self._begin = now
            due = max(self._beat + 1, int((now - self._begin) / self.interval))
            self._beat = due
            rest = self._begin + due * self.interval - now
        return not self._stopped.wait(rest) if rest > 0 else not self._stopped.is_set()

    def stop(self) -> None:
        """Ends the beats, and wakes the thread that waits."""
        self._stopped.set()

    def __iter__(self) -> Iterator[int]:
        while self.wait():
            yield self._beat

    def __call__(self) -> object:
        from ._functions import StopSignal

        return self._beat if self.wait() else StopSignal("metronome")


def create_metronome(interval: float = 1.0) -> Metronome:
    """A metronome that beats every ``interval`` seconds."""
    return Metronome(interval)
