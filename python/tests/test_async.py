"""Async functions, and functions on threads: how many are in flight, in which order, and how they end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sage import (
    BaseService,
    DeadLetter,
    FilterFunction,
    FlatMapFunction,
    JobFailed,
    Letter,
    LocalEnvironment,
    MapFunction,
    Retry,
    SinkFunction,
)


class Gauge:
    """How many are inside, and the most that were."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.inside -= 1


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("ordered", [True, False])
def test_so_many_are_in_flight_and_no_more(ordered: bool, parallelism: int) -> None:
    gauge = Gauge()

    async def double(n: int) -> int:
        with gauge:
            await asyncio.sleep(0.001 * (n % 7))
        return 2 * n

    env = LocalEnvironment("flight")
    got = env.from_batch(range(300)).map(double, in_flight=10, ordered=ordered, parallelism=parallelism).collect()
    env.submit(autostop=True)
    assert 5 <= gauge.most <= 10 * parallelism
    assert (
        got == [2 * n for n in range(300)]
        if ordered and parallelism == 1
        else sorted(got) == [2 * n for n in range(300)]
    )


class Lookup(MapFunction):
    """Made, called and closed on one loop."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.loop = asyncio.get_running_loop()

    async def execute(self, n: int) -> Any:
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        return n, self.name, self.ctx.replica

    async def close(self) -> None:  # type: ignore[override]
        assert asyncio.get_running_loop() is self.loop
        self.events.append("closed")


def test_a_class_lives_on_its_loop() -> None:
    events: list[str] = []
    env = LocalEnvironment("class")
    got = env.from_batch([1, 2]).map(Lookup, events).map(lambda record: record).collect()
    env.submit(autostop=True)
    assert got == [(1, "Lookup", 0), (2, "Lookup", 0)] and events == ["closed"]


class Keeps(FilterFunction):
    async def execute(self, n: int) -> bool:
        return n % 2 == 0


class Twice(FlatMapFunction):
    async def execute(self, n: int) -> Any:
        self.collect(n)
        await asyncio.sleep(0.001)
        self.collect(-n)


class Store(SinkFunction):
    def __init__(self, stored: list[int]) -> None:
        self.stored = stored

    async def execute(self, n: int) -> None:
        await asyncio.sleep(0)
        self.stored.append(n)


async def generated(n: int) -> AsyncIterator[int]:
    yield n
    await asyncio.sleep(0)
    yield n + 100


def test_every_kind_of_operator() -> None:
    stored: list[int] = []
    env = LocalEnvironment("kinds")
    env.from_batch(range(6)).filter(Keeps).flatmap(Twice).flatmap(generated).sink(Store, stored)
    env.submit(autostop=True)
    assert sorted(stored) == sorted(m + k for n in (0, 2, 4) for m in (n, -n) for k in (0, 100))
    with pytest.raises(TypeError, match="cannot come from an async function"):
        env.from_batch([1]).keyby(generated)


def test_a_function_that_is_not_async_is_called_on_threads() -> None:
    gauge = Gauge()
    barrier = threading.Barrier(5)

    def slow(n: int) -> list[int]:
        with gauge:
            barrier.wait(timeout=30)
        return [n]

    env = LocalEnvironment("threads")
    got = env.from_batch(range(20)).flatmap(slow, in_flight=5).collect()
    env.submit(autostop=True)
    assert got == list(range(20)) and gauge.most == 5


def test_results_go_on_while_no_record_comes() -> None:
    seen = threading.Event()

    async def quick(n: int) -> int:
        return n

    def source() -> Any:
        yield 1
        assert seen.wait(30)

    env = LocalEnvironment("slow-source")
    env.from_batch(source()).map(quick).sink(lambda _: seen.set())
    env.submit(autostop=True)


async def no_threes(n: int) -> int:
    if n == 3:
        raise KeyError(n)
    await asyncio.sleep(0)
    return n


def test_an_exception_comes_out_as_it_is() -> None:
    env = LocalEnvironment("fails")
    env.from_batch(range(10)).map(no_threes).collect()
    with pytest.raises(JobFailed, match="`no_threes`, record 4") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, KeyError)
    assert failed.value.__cause__.__traceback__ is not None


def test_policies_and_timeouts() -> None:
    letters: list[Letter] = []
    env = LocalEnvironment("letters")
    got = (
        env.from_batch(range(5))
        .map(no_threes, retry=Retry(2, 0.001, 0.001), on_error=DeadLetter(letters.append))
        .collect()
    )
    env.submit(autostop=True)
    assert got == [0, 1, 2, 4] and [(letter.record, letter.attempts) for letter in letters] == [(3, 2)]

    cancelled: list[int] = []

    async def hangs(n: int) -> int:
        try:
            await asyncio.sleep(0 if n else 3600)
        except asyncio.CancelledError:
            cancelled.append(n)
            raise
        return n

    env = LocalEnvironment("timeouts")
    got = env.from_batch(range(3)).map(hangs, timeout=0.05, on_error="skip").collect()
    env.submit(autostop=True)
    assert got == [1, 2] and cancelled == [0]
    env = LocalEnvironment("timeout")
    env.from_batch([0]).map(hangs, timeout=0.05).collect()
    with pytest.raises(JobFailed, match="50ms") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, TimeoutError)


def test_a_cancel_ends_what_is_in_flight() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def waits(_: int) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    env = LocalEnvironment("cancel")
    env.from_batch(range(100)).map(waits, in_flight=10).collect()
    job = env.submit()
    assert begun.wait(30)
    job.cancel()
    with pytest.raises(JobFailed, match="cancelled"):
        env.wait()
    assert ended.is_set()


class Broken(MapFunction):
    def __init__(self) -> None:
        raise ValueError("no function")


def test_a_constructor_that_raises_fails_the_job() -> None:
    env = LocalEnvironment("broken")
    env.from_batch([1]).map(Broken, in_flight=3).collect()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, ValueError)


class Slow(BaseService):
    def process(self, n: int) -> int:
        return n + 1


class Asks(MapFunction):
    async def execute(self, n: int) -> Any:
        return await asyncio.to_thread(self.call_service, "slow", n)


def test_services_are_called_from_async_functions() -> None:
    env = LocalEnvironment("services")
    env.register_service("slow", Slow)
    got = env.from_batch(range(50)).map(Asks, in_flight=8).collect()
    env.submit(autostop=True)
    assert got == list(range(1, 51))


def test_options_that_cannot_be() -> None:
    stream = LocalEnvironment("mistakes").from_batch([1])
    for in_flight in (0, 2.5, 1 << 21):
        with pytest.raises(ValueError, match="in_flight"):
            stream.map(no_threes, in_flight=in_flight)
    with pytest.raises(ValueError, match="more than 0"):
        stream.map(no_threes, timeout=0)
