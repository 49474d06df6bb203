"""What a job with ``fault_tolerance`` has beside its functions: counts for the report, the files of its checkpoints,
and the pause between two attempts on a thread of the package's."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from ._sage import Cancelled


class Restarts:
    """What one job counts of it, by step, and the files of its checkpoints."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._files: set[str] = set()

    def count(self, step: str, restarts: int = 0, lost: int = 0, retries: int = 0) -> None:
        """Adds to the counts of a step: new objects, records whose changes of a state were lost, further calls of the
        same object."""
        with self._guard:
            counts = self._counts.setdefault(step, [0, 0, 0])
            counts[:] = [counts[0] + restarts, counts[1] + lost, counts[2] + retries]

    def wrote(self, path: str) -> None:
        """A checkpoint is in this file."""
        with self._guard:
            self._files.add(path)

    def told(self) -> dict[str, tuple[int, ...]]:
        """The counts, for the report."""
        with self._guard:
            return {step: tuple(counts) for step, counts in self._counts.items()}

    def add(self, counts: dict[str, tuple[int, ...]], files: list[str]) -> None:
        """What a worker has counted, and the files that it wrote."""
        for step, counted in counts.items():
            self.count(step, *counted)
        for path in files:
            self.wrote(path)

    @property
    def files(self) -> list[str]:
        """Those of the checkpoints."""
        with self._guard:
            return sorted(self._files)

    def over(self, is_success: bool) -> None:
        """The job is over. Of one that succeeded, nobody needs the files; of another, they can be looked at."""
        with self._guard:
            files, self._files = self._files, set()
        for path in files if is_success else ():
            with suppress(OSError):
                os.unlink(path)


class Halt:
    """A pause on a thread of the package's, which the end of the job ends."""

    def __init__(self) -> None:
        self._hurried = threading.Event()
        self._is_cancelled = False

    def __call__(self, seconds: float) -> bool:
        """As ``Pause``."""
        is_whole = not self._hurried.wait(seconds)
        if self._is_cancelled:
            raise Cancelled("the job is being cancelled")
        return is_whole

    def hurry(self) -> None:
        """The job is drained."""
        self._hurried.set()

    def cancel(self) -> None:
        """The job is over, or being cancelled."""
        self._is_cancelled = True
        self._hurried.set()
