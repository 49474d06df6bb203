"""Functions in workers call services whose methods are async: the job awaits these on its own loop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from elsewhere import env, failed, no_processes, wait_for, workers  # noqa: F401 (fixtures)

from sage import BaseService, JobFailed, LocalEnvironment, MapFunction

pytest.importorskip("cloudpickle")
pytestmark = pytest.mark.usefixtures("no_processes")


class Slow(BaseService):
    def __init__(self, log: str = "") -> None:
        self.log = log
        self.inside = self.most = 0

    async def get(self, n: int) -> int:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.02)
        self.inside -= 1
        if n < 0:
            raise KeyError(n)
        return n * 10

    async def unsendable(self) -> Any:
        return lambda: 1

    async def forever(self, n: int) -> None:
        Path(self.log, "begun").touch()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            Path(self.log, "cancelled").touch()
            raise

    def at_most(self) -> int:
        return self.most


ISOLATED = pytest.mark.parametrize("isolated", [False, True], ids=["here", "isolated"])


@ISOLATED
def test_a_plain_function_is_given_the_result(workers: LocalEnvironment, isolated: bool) -> None:
    slow = workers.service("slow", Slow, isolated=isolated)

    def ask(n: int) -> int:
        try:
            return int(slow.get(n))
        except KeyError:
            return -1

    records = workers.from_batch([1, -2, 3]).map(ask).map(lambda n: n + 1).collect()
    beside = workers.from_batch([4, 5]).map(ask, in_flight=2).collect()
    report = workers.submit(autostop=True).report
    assert records == [11, 0, 31] and beside == [40, 50]
    assert report.services["slow"]["calls"] == 5


class Beside(MapFunction):
    def execute(self, n: int) -> int:
        calls = [self.call_service_async("slow", n + more, method="get") for more in range(4)]
        return sum(int(call.result(10)) for call in calls)


def test_a_plain_function_has_several_awaited_at_once(workers: LocalEnvironment) -> None:
    slow = workers.service("slow", Slow)
    records = workers.from_batch([1]).map(Beside).map(lambda n: (n, slow.at_most())).collect()
    workers.submit(autostop=True)
    assert records == [(100, 4)]


@ISOLATED
def test_an_async_function_awaits_it(env: LocalEnvironment, isolated: bool) -> None:
    slow = env.service("slow", Slow, isolated=isolated)

    async def ask(n: int) -> Any:
        try:
            first, second = await asyncio.gather(slow.get(n), slow.get(n + 1))
        except KeyError:
            return "negative"
        return first + second, slow.at_most() > 1

    records = env.from_batch([1, -5, 3]).map(ask, in_flight=3).collect()
    env.submit(autostop=True)
    assert records == [(30, True), "negative", (70, True)]


def test_a_plain_function_has_a_loop_of_its_own(env: LocalEnvironment) -> None:
    slow = env.service("slow", Slow)

    async def ask(n: int) -> int:
        return int(await slow.get(n))

    records = env.from_batch([1, 2]).map(lambda n: asyncio.run(ask(n))).collect()
    env.submit(autostop=True)
    assert records == [10, 20]


class Asks(BaseService):
    """Asks another service."""

    def plain(self, n: int) -> Any:
        return self.call_service("slow", n, method="get")

    async def later(self, n: int) -> int:
        return int(await self.call_service("slow", n, method="get")) + 1


def test_a_service_in_a_process_of_its_own_awaits_another(env: LocalEnvironment) -> None:
    env.service("slow", Slow)
    asks = env.service("asks", Asks, isolated=True)

    async def ask(n: int) -> int:
        return int(await asks.later(n))

    plain = env.from_batch([1, 2]).map(lambda n: asks.plain(n)).collect()
    later = env.from_batch([1, 2]).map(ask).collect()
    env.submit(autostop=True)
    assert plain == [10, 20] and later == [11, 21]


def test_what_would_wait_for_its_own_loop_is_refused() -> None:
    env = LocalEnvironment("blocks")
    env.service("slow", Slow)
    asks = env.service("asks", Asks, isolated=True)

    async def ask(n: int) -> Any:
        return asks.plain(n)

    env.from_batch([1]).map(ask).collect()
    assert "make what the function calls async, and await it" in str(failed(env))


@ISOLATED
def test_what_is_given_up_is_given_up_there(workers: LocalEnvironment, tmp_path: Path, isolated: bool) -> None:
    slow = workers.service("slow", Slow, (str(tmp_path),), isolated=isolated)

    async def ask(n: int) -> int:
        if n:
            await slow.forever(n)
        return n

    records = workers.from_batch([0, 1, 0]).map(ask, timeout=0.3, on_error="skip").collect()
    report = workers.submit(autostop=True).report
    assert records == [0, 0] and "did not complete within 300ms" in str(report)
    assert (tmp_path / "cancelled").exists() and report.services["slow"]["state"] == "cleaned"


@pytest.mark.parametrize("options", [{}, {"in_flight": 2}], ids=["chain", "in flight"])
def test_a_cancel_ends_what_a_plain_function_waits_for(tmp_path: Path, options: dict[str, Any]) -> None:
    env = LocalEnvironment("cancel", {"timeouts": {"cancel": 1.0}}, workers="processes")
    slow = env.service("slow", Slow, (str(tmp_path),))
    env.from_batch([1]).map(lambda n: slow.forever(n), **options).collect()
    job = env.submit()
    wait_for(tmp_path / "begun")
    job.cancel()
    with pytest.raises(JobFailed) as raised:
        job.wait()
    report = raised.value.report
    assert report.outcome == "cancelled" and report.data["left"] == []
    assert (tmp_path / "cancelled").exists() and report.services["slow"]["state"] == "cleaned"


def test_a_result_that_cannot_be_pickled_is_told(workers: LocalEnvironment) -> None:
    slow = workers.service("slow", Slow)
    workers.from_batch([1]).map(lambda n: slow.unsendable()).collect()
    assert "the result of a service cannot be taken to a worker" in str(failed(workers))


class Together(BaseService):
    """Has its callers wait until 64 of them are inside."""

    def setup(self) -> None:
        self.inside, self.are_there = 0, asyncio.Event()

    async def get(self, n: int) -> int:
        self.inside, are_there = self.inside + 1, self.are_there
        if self.inside == 64:
            self.inside, self.are_there = 0, asyncio.Event()
            are_there.set()
        await are_there.wait()
        return n


def test_64_awaits_are_inside_at_once_time_and_again(env: LocalEnvironment) -> None:
    together = env.service("together", Together)

    async def ask(n: int) -> int:
        return int(await together.get(n))

    records = env.from_batch(range(640)).map(ask, in_flight=64, timeout=60).collect()
    env.submit(autostop=True)
    assert records == list(range(640))


def test_no_more_awaits_are_inside_than_are_in_flight(env: LocalEnvironment) -> None:
    slow = env.service("slow", Slow)

    async def ask(n: int) -> int:
        await slow.get(n)
        return int(slow.at_most())

    records = env.from_batch(range(256)).map(ask, in_flight=64).collect()
    env.submit(autostop=True)
    assert max(records) <= 64
