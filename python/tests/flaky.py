"""Functions that raise now and then, for the tests of fault tolerance."""

from __future__ import annotations

import threading
from typing import Any

from sage import LocalEnvironment, MapFunction, SourceFunction, StopSignal

AT_ONCE = {"restart_strategy": "fixed", "delay": 0.0}


def tolerant(name: str, **more: Any) -> LocalEnvironment:
    return LocalEnvironment(name, {"fault_tolerance": {**AT_ONCE, **more}})


def row(job: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in job.report.data["operators"] if row["name"] == name)
    return found


class Counted:
    """What is made and ended of the functions of a test, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.made = 0
        self.guard = threading.Lock()

    def note(self, event: str) -> None:
        with self.guard:
            self.events.append(event)


class Flaky(MapFunction):
    """Its first `bad` objects raise on the record 2."""

    def __init__(self, seen: Counted, bad: int = 1) -> None:
        seen.made += 1
        self.seen, self.number, self.is_bad = seen, seen.made, seen.made <= bad

    def setup(self, context: Any) -> None:
        self.seen.note(f"setup {self.number}")

    def execute(self, n: Any) -> Any:
        if self.is_bad and n == 2:
            raise ValueError(f"not by {self.number}")
        return n * 10

    def teardown(self, context: Any) -> None:
        self.seen.note(f"teardown {self.number}")

    def close(self) -> None:
        self.seen.note(f"close {self.number}")


class Once:
    """Raises at the first call with each record that is in `bad`, in whichever object."""

    def __init__(self, *bad: Any) -> None:
        self.bad = list(bad)
        self.calls: list[Any] = []

    def check(self, record: Any) -> None:
        self.calls.append(record)
        if record in self.bad:
            self.bad.remove(record)
            raise ValueError(f"bad {record}")


class Map(MapFunction):
    def __init__(self, once: Once) -> None:
        self.once = once

    def execute(self, record: Any) -> Any:
        self.once.check(record)
        return record


class Numbers(SourceFunction):
    """Counts to five; its first object raises before the four."""

    def __init__(self, seen: Counted) -> None:
        seen.made += 1
        self.seen, self.is_bad, self.n = seen, seen.made == 1, 0

    def execute(self, data: Any = None) -> Any:
        if self.n == 5:
            return StopSignal()
        if self.n == 3 and self.is_bad:
            raise OSError("gone")
        self.n += 1
        return self.n

    def close(self) -> None:
        self.seen.note("close")
