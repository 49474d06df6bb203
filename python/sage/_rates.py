"""Rates of a job that runs, from the moments at which somebody asked for them."""

from __future__ import annotations

import threading
import time
from collections import deque

#: A rate is told over so many seconds, and over so many records; but over no more than the time that is remembered, by
#: so many moments at most.
_WINDOW, _RECORDS, _REMEMBERED, _MOST_MOMENTS = 5.0, 10, 60.0, 256

#: What no step is called.
DONE = "\0done"


class Rates:
    """What there was at the last moments that were asked for, of which rates follow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begin = time.monotonic()
        self._moments: deque[tuple[float, dict[str, int]]] = deque([(self._begin, {})], _MOST_MOMENTS)

    def since(self, counts: dict[str, int]) -> tuple[float, dict[str, float]]:
        """How many seconds it is since the begin, and the rates up to now, where there are these counts."""
        now, done = time.monotonic(), counts[DONE]
        with self._lock:
            moments = self._moments
            while len(moments) > 1 and now - moments[1][0] >= _REMEMBERED:
                moments.popleft()
            is_enough = (
                moment
                for moment in reversed(moments)
                if now - moment[0] >= _WINDOW and done - moment[1].get(DONE, 0) >= _RECORDS
            )
            then, before = next(is_enough, moments[0])
            if now - moments[-1][0] >= _REMEMBERED / _MOST_MOMENTS:
                moments.append((now, counts))
        seconds = max(now - then, 1e-9)
        rates = {name: max(count - before.get(name, 0), 0) / seconds for name, count in counts.items()}
        return now - self._begin, rates
