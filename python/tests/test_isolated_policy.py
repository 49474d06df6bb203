"""Services in processes of their own whose calls have a policy: a call past its timeout is killed with the process, and
the other calls inside are made again in the next one."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from conformance import Log
from elsewhere import failed, is_there, no_processes  # noqa: F401 (a fixture)

from sage import BaseService, JobFailed, LocalEnvironment, Report, Retry, ServiceError, batched

pytest.importorskip("cloudpickle")
pytestmark = pytest.mark.usefixtures("no_processes")

#: Nothing ends because of it.
LONG = 600.0


@pytest.fixture
def log(tmp_path: Any) -> Log:
    return Log(str(tmp_path))


def wait(log: Log, lines: int, begins: str) -> None:
    """Waits until so many lines that begin like this are there."""
    until = time.monotonic() + 60
    while sum(line.startswith(begins) for line in log.lines) < lines:
        assert time.monotonic() < until, log.lines
        time.sleep(0.005)


class Stuck(BaseService):
    """What it is at in its first process never ends; its next ones answer at once."""

    def __init__(self, log: Log, then: str = "") -> None:
        self.log, self.then = log, then
        self.log.add("begins")
        self.is_first = self.log.lines.count("begins") == 1

    def setup(self) -> None:
        if not self.is_first and self.then:
            self.log.reach("setup")
            if self.then == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.then == "hangs":
                time.sleep(3600)
            self.log.wait(self.then)

    def hang(self, how: str) -> int:
        self.log.add("hangs")
        if how == "once" and not self.is_first:
            return os.getpid()
        if how == "C":
            ctypes.PyDLL(None).sleep(3600)  # holds the interpreter's lock
        while how == "loop":
            pass
        time.sleep(3600)
        return 0

    async def block(self) -> None:
        self.log.add("hangs")
        time.sleep(3600)  # and so does the event loop

    def look(self, *numbers: int) -> tuple[int, int]:
        for n in numbers:
            self.log.add(f"inside {n}")
        if self.is_first:
            time.sleep(3600)
        return numbers[0] * 10, os.getpid()

    async def alook(self, n: int) -> tuple[int, int]:
        self.log.add(f"inside {n}")
        if self.is_first:
            await asyncio.sleep(3600)
        return n * 10, os.getpid()

    @batched(3, within=LONG)
    def together(self, numbers: list[int]) -> list[tuple[int, int]]:
        _, pid = self.look(*numbers)
        return [(n * 10, pid) for n in numbers]

    def pid(self) -> int:
        return os.getpid()

    def die(self) -> None:
        self.log.add("dies")
        os.kill(os.getpid(), signal.SIGKILL)

    async def heeds(self) -> None:
        self.log.add("hangs")
        try:
            await asyncio.sleep(3600)
        finally:
            self.log.reach("cancelled")

    def cleanup(self) -> None:
        self.log.add("cleanup")


def hangs(log: Log, call: Callable[[], object], times: int = 1) -> None:
    """Makes a call that hangs. On a slow machine it may be past its timeout before it gets there: so it is repeated."""
    while log.lines.count("hangs") < times:
        with pytest.raises(TimeoutError, match="did not answer .* within"):
            call()


def policy(report: Report) -> dict[str, Any]:
    told: dict[str, Any] = report.data["services"][0]["policy"]
    return told


def ends(report: Report) -> list[str]:
    return [worker["end"] for worker in report.data["workers"]]


WAYS = ["here", "on a thread", "awaited", "together"]


@pytest.mark.parametrize("workers", [None, "processes"], ids=["threads", "processes"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["sleep", "loop", "C"])
def test_contract_24_a_call_past_its_timeout_ends_with_its_process_and_the_job_is_clean(
    log: Log, how: str, way: str, workers: str | None
) -> None:
    env = LocalEnvironment("stuck", workers=workers)
    stuck: Any = env.service("stuck", Stuck, (log,), isolated=True, restarts=1, concurrency=8)
    patient, quick = stuck.with_policy(timeout=LONG, retry=Retry(3, first=0)), stuck.with_policy(timeout=0.3)

    def ask(n: int) -> Any:
        if n > 0:
            return {"here": stuck.look, "together": stuck.together}.get(way, patient.look)(n)
        wait(log, 3, "inside")
        pid = stuck.pid()
        hangs(log, lambda: quick.hang(how))
        return pid

    async def later(n: int) -> Any:
        return await (patient.alook(n) if n > 0 else asyncio.to_thread(ask, n))

    records = env.from_batch(range(4)).map(later if way == "awaited" else ask, in_flight=4).collect()
    report = env.submit(autostop=True).report
    (one, other) = [worker["pid"] for worker in report.data["workers"] if worker["operator"] == "stuck"]
    assert records == [one, (10, other), (20, other), (30, other)]
    inside = [line for line in log.lines if line.startswith("inside")]
    assert sorted(inside) == sorted(["inside 1", "inside 2", "inside 3"] * 2)
    told, service = policy(report), report.services["stuck"]
    assert (told["made_again"], told["retries"]["scheduled"]) == (3, 0)
    assert told["failed"] == told["timed_out"] >= 1
    assert report.outcome == "succeeded" and report.data["left"] == [] and service["state"] == "cleaned"
    killed = f"(process {one}) was killed by SIGKILL (`hang` was past its timeout)"
    assert len(service["lost"]) == 1 and killed in service["lost"][0] and killed in str(report)
    assert not is_there(one) and log.lines.count("cleanup") == 1


def test_an_async_call_that_does_not_heed_its_cancel_is_killed_as_well(log: Log) -> None:
    env = LocalEnvironment("blocked")
    stuck = env.service("stuck", Stuck, (log,), isolated=True, restarts=1, concurrency=8)
    quick: Any = stuck.with_policy(timeout=0.3)

    async def ask(n: int) -> Any:
        if n > 0:
            return await stuck.alook(n)
        await asyncio.to_thread(wait, log, 1, "inside")
        while "hangs" not in log.lines:
            with pytest.raises(TimeoutError):
                await quick.block()
        return 0

    records = env.from_batch(range(2)).map(ask, in_flight=2).collect()
    report = env.submit(autostop=True).report
    assert records[1][0] == 10 and policy(report)["made_again"] == 1
    assert ends(report) == ["was killed by SIGKILL", "ended with exit code 0"]
    assert "`block` was past its timeout" in report.services["stuck"]["lost"][0] and report.data["left"] == []


def test_an_async_call_that_heeds_its_cancel_costs_no_process(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage._isolated._PATIENCE", 30.0)  # of a slow machine
    env = LocalEnvironment("heeds")
    stuck: Any = env.service("stuck", Stuck, (log,), isolated=True, restarts=1, timeout=0.3)

    async def ask(n: int) -> int:
        while "hangs" not in log.lines:
            with pytest.raises(TimeoutError):
                await stuck.heeds()
        await asyncio.to_thread(log.wait, "cancelled")
        return n

    env.from_batch([1]).map(ask).collect()
    assert ends(env.submit(autostop=True).report) == ["ended with exit code 0"]


def test_a_call_past_its_timeout_is_tried_again_in_the_new_process(log: Log) -> None:
    env = LocalEnvironment("tried")
    stuck: Any = env.service("stuck", Stuck, (log,), isolated=True, restarts=1, concurrency=8)
    quick = stuck.with_policy(timeout=0.5, retry=Retry(100, first=0))
    records = env.from_batch([1]).map(lambda n: quick.hang("once")).collect()
    report = env.submit(autostop=True).report
    first, second = report.data["workers"]
    told = policy(report)
    assert records == [second["pid"]] and first["end"] == "was killed by SIGKILL"
    assert told["timed_out"] == told["retries"]["scheduled"] >= 1 and told["failed"] == 0


def test_without_restarts_no_process_is_killed_for_a_call_past_its_timeout(log: Log) -> None:
    env = LocalEnvironment("left", {"timeouts": {"stop": 0.5}})
    stuck: Any = env.service("stuck", Stuck, (log,), isolated=True, concurrency=8)

    def ask(n: int) -> bool:
        before = stuck.pid()
        hangs(log, lambda: stuck.with_policy(timeout=0.3).hang("sleep"))
        return bool(stuck.pid() == before)

    records = env.from_batch([1]).map(ask).collect()
    report = env.submit(autostop=True).report
    assert records == [True] and "1 call was still inside the process of service `stuck`" in str(report)
    assert report.services["stuck"]["lost"] == []


def told_of(call: Callable[[], object]) -> str:
    try:
        return str(call())
    except (ServiceError, TimeoutError) as error:
        return str(error)


def test_once_no_other_process_may_take_its_place_the_service_is_lost_and_calls_say_so(log: Log) -> None:
    env = LocalEnvironment("often")
    stuck: Any = env.service("stuck", Stuck, (log,), isolated=True, restarts=1, concurrency=8)

    def ask(n: int) -> list[str]:
        quick = stuck.with_policy(timeout=0.3)
        if n == 0:
            return [told_of(lambda: stuck.hang("sleep"))]
        wait(log, 1, "hangs")
        hangs(log, lambda: quick.hang("sleep"), 2)
        # The other call is inside of the new process.
        wait(log, 3, "hangs")
        hangs(log, lambda: quick.hang("sleep"), 4)
        until = time.monotonic() + 60
        while "is lost" not in (told := told_of(stuck.pid)):
            assert time.monotonic() < until, told
        return [told]

    records = env.from_batch(range(2)).map(ask, in_flight=2).collect()
    report = failed(env).report
    (inside,), (after,) = records
    why = "was killed by SIGKILL (`hang` was past its timeout) while it was in `hang`"
    assert inside.endswith(f"{why}, and as many processes have taken its place as may"), inside
    assert after == "service `stuck` is not serving: it is lost"
    assert report.outcome == "succeeded" and report.services["stuck"]["state"] == "lost"
    (left,) = report.data["left"]
    assert left["why"].count("cleanup could not run") == 1, "that of the first is none that could be expected"
    assert ends(report) == ["was killed by SIGKILL"] * 2 and policy(report)["made_again"] == 1


def test_calls_inside_a_process_that_another_kills_are_made_again(log: Log) -> None:
    env = LocalEnvironment("killed")
    stuck: Any = env.service("stuck", Stuck, (log,), isolated=True, restarts=1, retry=2)

    def ask(n: int) -> Any:
        if n > 0:
            return stuck.look(n)
        wait(log, 3, "inside")
        os.kill(stuck.pid(), signal.SIGKILL)
        return 0

    records = env.from_batch(range(4)).map(ask, in_flight=4).collect()
    report = failed(env).report
    first, second = [worker["pid"] for worker in report.data["workers"]]
    assert records == [0, (10, second), (20, second), (30, second)]
    told = policy(report)
    assert (told["made_again"], told["retries"]["scheduled"], told["failed"]) == (3, 0, 0)
    (lost,), (left,) = report.services["stuck"]["lost"], report.data["left"]
    assert lost.endswith(f"(process {first}) was killed by SIGKILL")
    assert lost in left["why"], "this job has not killed it: what it had outside is not cleaned"


def test_a_call_that_ends_its_process_each_time_fails_and_says_how_often_it_was_made_again(log: Log) -> None:
    env = LocalEnvironment("ends")
    stuck: Any = env.service("stuck", Stuck, (log,), isolated=True, restarts=9, concurrency=8)
    records = env.from_batch([1]).map(lambda n: (told_of(stuck.die), stuck.look(n))).collect()
    report = failed(env).report
    ((told, (result, _)),) = records
    assert told.endswith(
        "was killed by SIGKILL while it was in `die`; the call was made again 3 times, and the service was begun anew "
        "each time"
    )
    assert result == 10 and log.lines.count("dies") == 4 and policy(report)["made_again"] == 3


def test_a_deadline_ends_a_call_that_waits_for_the_new_process_and_a_timeout_does_not(log: Log) -> None:
    env = LocalEnvironment("waits")
    stuck: Any = env.service("stuck", Stuck, (log, "goes on"), isolated=True, restarts=1, concurrency=8)

    def ask(n: int) -> Any:
        if n == 1:
            return stuck.with_policy(timeout=LONG).look(n)
        wait(log, 1, "inside")
        hangs(log, lambda: stuck.with_policy(timeout=0.3).hang("sleep"))
        log.wait("setup")
        told = told_of(lambda: stuck.with_policy(deadline=0.01, timeout=0.01).look(n))
        log.reach("goes on")
        return told

    records = env.from_batch(range(2)).map(ask, in_flight=2).collect()
    report = env.submit(autostop=True).report
    assert records[0] == "service `stuck` had not answered `look` by the deadline of the call"
    assert records[1][0] == 10 and policy(report)["made_again"] == 1


@pytest.mark.parametrize("stop", ["drain", "cancel"])
def test_contract_04_a_job_that_is_stopped_while_another_process_begins_ends(log: Log, stop: str) -> None:
    env = LocalEnvironment("stopped", {"timeouts": {"drain": 0.2, "stop": 0.5, "cleanup": 0.5}})
    stuck: Any = env.service("stuck", Stuck, (log, "hangs"), isolated=True, restarts=1, concurrency=8)

    def ask(n: int) -> Any:
        if n == 1:
            return stuck.look(n)
        wait(log, 1, "inside")
        hangs(log, lambda: stuck.with_policy(timeout=0.3).hang("sleep"))
        return stuck.look(n)

    env.from_batch(range(2)).map(ask, in_flight=2).collect()
    job = env.submit()
    log.wait("setup")
    getattr(job, stop)()
    with pytest.raises(JobFailed) as raised:
        job.wait()
    report = raised.value.report
    assert report.outcome == ("timed_out" if stop == "drain" else "cancelled")
    assert ends(report) == ["was killed by SIGKILL"] * 2 and report.services["stuck"]["state"] == "lost"


@pytest.mark.parametrize("then", ["dies", "hangs"])
def test_one_that_cannot_be_set_up_is_lost_and_the_calls_that_wait_for_it_say_so(log: Log, then: str) -> None:
    env = LocalEnvironment("vain", {"timeouts": {"setup": 8.0}})
    stuck: Any = env.service("stuck", Stuck, (log, then), isolated=True, restarts=3, concurrency=8)

    def ask(n: int) -> str:
        if n == 1:
            return told_of(lambda: stuck.look(n))
        wait(log, 1, "inside")
        hangs(log, lambda: stuck.with_policy(timeout=0.3).hang("sleep"))
        return told_of(lambda: stuck.look(n))

    records = env.from_batch(range(2)).map(ask, in_flight=2).collect()
    report = failed(env).report
    assert records == ["service `stuck` is not serving: it is lost"] * 2
    (left,) = report.data["left"]
    assert left["why"].count("cleanup could not run") == 1 and "could not be set up" in left["why"] or then == "dies"
    assert log.lines.count("begins") == 2, "one that cannot be set up is not tried once more"
