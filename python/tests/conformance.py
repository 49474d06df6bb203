"""Functions and services of the scenarios in ``scenarios.py``. Each worker imports this module, and little with it."""

from __future__ import annotations

import os
import time
from typing import Any

from sage import BaseService, FilterFunction, FlatMapFunction, MapFunction, SinkFunction


class Log:
    """Lines that several processes write, and points that they reach."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def add(self, line: str) -> None:
        with open(f"{self.folder}/log", "a") as file:
            file.write(line + "\n")

    @property
    def lines(self) -> list[str]:
        if not os.path.exists(f"{self.folder}/log"):
            return []
        with open(f"{self.folder}/log") as file:
            return file.read().splitlines()

    def reach(self, point: str) -> None:
        """Says that this point is reached."""
        open(f"{self.folder}/{point}", "w").close()

    def wait(self, point: str) -> None:
        """Waits until another thread or process is there."""
        until = time.monotonic() + 60
        while not os.path.exists(f"{self.folder}/{point}"):
            assert time.monotonic() < until, f"{point} is not reached"
            time.sleep(0.005)


class Broken(Exception):
    pass


async def moment(n: int) -> None:
    import asyncio  # not in workers that run nothing async

    await asyncio.sleep(0.001 * (n % 3))


class Noted:
    """Notes its hooks; one of them raises, or it raises at the record 5."""

    def __init__(self, log: Log, fails: str = "") -> None:
        self.log, self.fails = log, fails
        self.at("__init__")

    def at(self, hook: str) -> None:
        self.log.add(f"{type(self).__name__}.{hook}")
        if self.fails == hook:
            raise Broken(f"in {hook}")

    def work(self, n: int) -> int:
        if self.fails == "execute" and n == 5:
            raise Broken("at five")
        return n

    def setup(self, _: Any) -> None:
        self.at("setup")

    def teardown(self, _: Any) -> None:
        self.at("teardown")

    def close(self) -> None:
        self.at("close")


class Step(Noted, MapFunction):
    def execute(self, n: int) -> int:
        return self.work(n) * 10


class Later(Noted, MapFunction):
    async def execute(self, n: int) -> int:
        await moment(n)
        return self.work(n) * 10


class Kept(Noted, FilterFunction):
    def execute(self, n: int) -> bool:
        return self.work(n) % 2 == 1


class Twice(Noted, FlatMapFunction):
    def execute(self, n: int) -> list[int]:
        self.collect(n)
        return [self.work(n)]


class Sink(Noted, SinkFunction):
    def execute(self, n: int) -> None:
        self.log.add(f"got {self.work(n)}")


class Db(BaseService):
    """Notes its hooks; one of them raises."""

    def __init__(self, log: Log, fails: str = "", other: str = "") -> None:
        self.log, self.fails, self.other = log, fails, other
        self.at("__init__")

    def at(self, hook: str) -> None:
        self.log.add(f"{self.name}.{hook}")
        if self.fails == hook:
            raise Broken(f"in {hook}")

    def setup(self) -> None:
        self.at("setup")

    def start(self) -> None:
        self.at("start")

    def process(self, n: int) -> int:
        if self.fails == "process" and n == 5:
            raise Broken("at five")
        return n + 100

    def bounce(self, n: int) -> list[str]:
        """A → B → A → …"""
        rest: list[str] = self.call_service(self.other, n - 1, method="bounce") if n else []
        return [self.name, *rest]

    async def later(self, n: int) -> int:
        await moment(n)
        return self.process(n)

    def stop(self) -> None:
        self.at("stop")

    def cleanup(self) -> None:
        self.at("cleanup")


class Asks(MapFunction):
    def execute(self, n: int) -> int:
        by_name: int = self.call_service("db", n)
        by_item: int = self.call_service["db"].process(n)
        beside = self.call_service_async("db", n, timeout=30)
        return by_name + by_item + int(beside.result())


class Bounces(MapFunction):
    def execute(self, n: int) -> str:
        return "".join(self.call_service("a", n, method="bounce"))


class Awaits(MapFunction):
    async def execute(self, n: int) -> int:
        return int(await self.call_service("db", n, method="later")) + int(self.call_service("db", n))


def fail_at_threes(n: int) -> int:
    if n % 7 == 3:
        raise ValueError(f"bad {n}")
    return n


async def fail_at_threes_later(n: int) -> int:
    return fail_at_threes(n)


class Second(MapFunction):
    """Works at the second attempt."""

    def __init__(self) -> None:
        self.tried: set[int] = set()

    def execute(self, n: int) -> int:
        if n not in self.tried:
            self.tried.add(n)
            fail_at_threes(n)
        return n


def key_of(n: int) -> int:
    return fail_at_five(n) % 3


def fail_at_five(n: int) -> int:
    if n == 5:
        raise Broken("at five")
    return n


def add(total: int, n: int) -> tuple[int, int]:
    return total + fail_at_five(n), total + n


class Holds(MapFunction):
    """Says that it is at its first record, and is held there: until the job is drained, and then as it is told."""

    def __init__(self, log: Log, how: str) -> None:
        self.log, self.how = log, how

    def execute(self, n: int) -> int:
        if n == 0:
            self.log.reach("works")
            self.log.wait("drained")
            self.log.reach("drains")
            if self.how == "for long":
                time.sleep(0.7)  # longer than the drain may take
            else:
                self.log.wait("over")
        return n

    def close(self) -> None:
        self.log.add("close")
