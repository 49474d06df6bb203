"""Results that are no records: the ``None`` that a ``map`` returns, by which programs filter and end their loops.

They are counted, by step. At the end of the job one line says how many there were, so that nobody loses records without
hearing of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count


class Nones:
    """The counts of one job."""

    def __init__(self) -> None:
        self._counters: list[tuple[str, count[int]]] = []
        self._counts: dict[str, int] | None = None

    def counter(self, step: str) -> Callable[[], int]:
        """What counts one more for a replica of this step, on whichever thread."""
        counter = count()
        self._counters.append((step, counter))
        return counter.__next__

    def add(self, step: str, number: int) -> None:
        """Counts so many that a worker has counted."""
        self._counters.append((step, count(number)))

    def told(self) -> tuple[dict[str, int], list[str]]:
        """The counts, by step, of those that have any; and what is to be said of them. For when the job is over."""
        if self._counts is None:
            counts: dict[str, int] = {}
            for step, counter in self._counters:
                counts[step] = counts.get(step, 0) + next(counter)
            self._counts = {step: number for step, number in counts.items() if number}
        if not self._counts:
            return {}, []
        each = ", ".join(f"{number:,} of `{step}`" for step, number in self._counts.items())
        return self._counts, [f"results that were None are no records: {each}; with `keep_none=True` they are"]

    def say(self, environment: str) -> None:
        """Says it, once."""
        _, lines = self.told()
        for line in lines:
            logging.getLogger(f"sage.{environment}").warning(line)
