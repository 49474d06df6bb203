"""Functions that work on several records at a time, on threads or a loop of the job's process and in workers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from elsewhere import WHERE, env, failed, no_processes, wait_for, workers  # noqa: F401 (fixtures)
from test_workers import Refuses

from sage import BaseService, DeadLetterQueue, JobFailed, LocalEnvironment, MapFunction, Retry, WorkerLost

pytest.importorskip("cloudpickle")

pytestmark = pytest.mark.usefixtures("no_processes")


async def later(n: int) -> int:
    await asyncio.sleep(0.001 * (n % 5))
    return 2 * n


def on_thread(n: int) -> int:
    time.sleep(0.001 * (n % 5))
    return 2 * n


BOTH = pytest.mark.parametrize("function", [later, on_thread], ids=["async", "threads"])


@BOTH
def test_results_come_in_order(env: LocalEnvironment, function: Any) -> None:
    records = env.from_batch(range(200)).map(function, in_flight=10).collect()
    env.submit(autostop=True)
    assert records == [2 * n for n in range(200)]


class Gauge(MapFunction):
    """Says in which process it is, and the most that were inside."""

    def __init__(self) -> None:
        self.inside = self.most = 0

    async def execute(self, n: int) -> tuple[int, int]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.001)
        self.inside -= 1
        return os.getpid(), self.most


def test_so_many_are_in_flight_in_each_of_the_workers(workers: LocalEnvironment) -> None:
    records = workers.from_batch(range(300)).map(Gauge, in_flight=8, ordered=False, parallelism=2).collect()
    workers.submit(autostop=True)
    assert len({pid for pid, _ in records}) == 2 and os.getpid() not in {pid for pid, _ in records}
    assert max(most for _, most in records) == 8
    assert "[Gauge] ×2 in processes" in workers.explain()


async def pieces(n: int) -> AsyncIterator[int]:
    for piece in range(n):
        yield piece


async def even_or_none(n: int) -> int | None:
    return n if n % 2 == 0 else None


async def is_even(n: int) -> bool:
    return n % 2 == 0


def test_every_kind_gives_what_it_does_elsewhere(env: LocalEnvironment) -> None:
    parts = env.from_batch(range(5)).flatmap(pieces).collect()
    some = env.from_batch(range(5)).map(even_or_none, name="some").collect()
    even = env.from_batch(range(5)).filter(is_even).collect()
    report = env.submit(autostop=True).report
    assert parts == [0, 0, 1, 0, 1, 2, 0, 1, 2, 3] and some == even == [0, 2, 4]
    assert "2 of `some`" in str(report)


async def fail_at_three(n: int) -> int:
    if n % 10 == 3:
        raise ValueError(f"{n}")
    return n


def fail_at_three_here(n: int) -> int:
    if n % 10 == 3:
        raise ValueError(f"{n}")
    return n


@pytest.mark.parametrize("function", [fail_at_three, fail_at_three_here], ids=["async", "threads"])
def test_policies_are_the_same(env: LocalEnvironment, function: Any) -> None:
    dead = DeadLetterQueue()
    skipped = env.from_batch(range(20)).map(function, in_flight=4, on_error="skip").collect()
    alive = env.from_batch(range(20)).map(function, in_flight=4, on_error=dead, retry=Retry(2, 0.0)).collect()
    letters = dead.letters.map(lambda letter: (letter.record, letter.position, letter.attempts, letter.errors[-1]))
    told = letters.collect()
    report = env.submit(autostop=True).report
    assert skipped == alive == [n for n in range(20) if n % 10 != 3]
    assert told == [(3, 4, 2, "ValueError: 3"), (13, 14, 2, "ValueError: 13")]
    assert sum(row["failed"] for row in report.data["operators"]) == 4


def test_a_failure_is_told_with_its_record(env: LocalEnvironment) -> None:
    env.from_batch(range(10)).map(fail_at_three, in_flight=1).collect()
    error = failed(env)
    assert "record 4" in str(error) and isinstance(error.__cause__, ValueError)


class Hangs(MapFunction):
    def __init__(self, log: str) -> None:
        self.log = log

    async def execute(self, n: int) -> int:
        try:
            await asyncio.sleep(0 if n else 1000)
        except asyncio.CancelledError:
            Path(self.log).write_text("cancelled")
            raise
        return n


def test_a_timeout_reaches_the_call(env: LocalEnvironment, tmp_path: Path) -> None:
    records = env.from_batch(range(5)).map(Hangs, str(tmp_path / "log"), timeout=0.2, on_error="skip").collect()
    report = env.submit(autostop=True).report
    assert records == [1, 2, 3, 4] and (tmp_path / "log").read_text() == "cancelled"
    assert "did not complete within 200ms" in str(report)


async def block(n: int) -> int:
    time.sleep(5 if n else 0)
    return n


def test_a_loop_that_is_blocked_fails_the_job() -> None:
    config = {"timeouts": {"cancel": 0.2}}
    env = LocalEnvironment("blocked", config, workers="processes")
    env.from_batch([1, 2, 3]).map(block, timeout=0.1, on_error="skip").collect()
    error = failed(env)
    assert "blocks its event loop" in str(error)
    assert error.report.data["left"] == [] and "was killed" in str(error.report)


class Hooked(MapFunction):
    def __init__(self, log: str) -> None:
        self.log = log

    async def setup(self, ctx: Any) -> None:
        self.note("setup")

    async def execute(self, n: int) -> int:
        return n

    async def teardown(self, ctx: Any) -> None:
        self.note("teardown")

    async def close(self) -> None:  # type: ignore[override]
        self.note("close")

    def note(self, word: str) -> None:
        with open(self.log, "a") as file:
            file.write(f"{word} {os.getpid()}\n")


class HookedHere(Hooked):
    def setup(self, ctx: Any) -> None:  # type: ignore[override]
        self.note("setup")

    def execute(self, n: int) -> int:  # type: ignore[override]
        return n

    def teardown(self, ctx: Any) -> None:  # type: ignore[override]
        self.note("teardown")

    def close(self) -> None:  # type: ignore[override]
        self.note("close")


@pytest.mark.parametrize("function", [Hooked, HookedHere], ids=["async", "threads"])
def test_hooks_run_in_the_worker(workers: LocalEnvironment, tmp_path: Path, function: Any) -> None:
    log = tmp_path / "log"
    workers.from_batch(range(3)).map(function, str(log), in_flight=2).collect()
    workers.submit(autostop=True)
    words = [line.split() for line in log.read_text().splitlines()]
    assert [word for word, _ in words] == ["setup", "teardown", "close"]
    assert len({pid for _, pid in words}) == 1 and str(os.getpid()) not in words[0]


class Unset(MapFunction):
    async def setup(self, ctx: Any) -> None:
        raise OSError("no room")

    async def execute(self, n: int) -> int:
        return n


class Unclosed(MapFunction):
    async def execute(self, n: int) -> int:
        return n

    async def close(self) -> None:  # type: ignore[override]
        raise OSError("cannot close")


@pytest.mark.parametrize(("function", "why"), [(Unset, "no room"), (Unclosed, "cannot close")])
def test_a_hook_that_raises_fails_the_job(env: LocalEnvironment, function: Any, why: str) -> None:
    env.from_batch([1]).map(function).collect()
    assert why in str(failed(env))


class Slow(BaseService):
    """Says how many calls are inside."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0

    def get(self, n: int) -> tuple[int, int]:
        with self.lock:
            self.inside += 1
            inside = self.inside
        time.sleep(0.02)
        with self.lock:
            self.inside -= 1
        return n, inside


class Asks(MapFunction):
    async def execute(self, n: int) -> Any:
        loop, answer = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        call = self.call_service_async("slow", n, method="get")
        call.add_done_callback(lambda done: loop.call_soon_threadsafe(answer.set_result, done.result()))
        return await answer


def test_64_calls_of_a_service_are_awaited_at_once(env: LocalEnvironment) -> None:
    env.register_service("slow", Slow)
    records = env.from_batch(range(256)).map(Asks, in_flight=64).collect()
    report = env.submit(autostop=True).report
    assert [n for n, _ in records] == list(range(256))
    assert max(inside for _, inside in records) > 32
    assert report.services["slow"]["calls"] == 256


class AsksAtTheEnd(MapFunction):
    async def setup(self, ctx: Any) -> None:
        self.first = self.call_service("slow", 1, method="get")[0]

    async def execute(self, n: int) -> int:
        return n + int(self.first) + int(self.call_service("slow", n, method="get")[0])

    async def close(self) -> None:  # type: ignore[override]
        self.logger.warning("closed with %d", self.call_service("slow", 7, method="get")[0])


def test_hooks_and_coroutines_call_services(env: LocalEnvironment, caplog: pytest.LogCaptureFixture) -> None:
    env.register_service("slow", Slow)
    records = env.from_batch([1, 2]).map(AsksAtTheEnd).collect()
    env.submit(autostop=True)
    assert records == [3, 5] and "closed with 7" in caplog.text


async def kill(n: int) -> int:
    if n == 30 and not os.path.exists(os.environ["KILLED"]):
        Path(os.environ["KILLED"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def kill_here(n: int) -> int:
    if n == 30:
        os._exit(3)
    return n


@pytest.mark.parametrize(("function", "how"), [(kill, "was killed by SIGKILL"), (kill_here, "ended with exit code 3")])
def test_a_worker_that_is_lost_fails_what_is_in_flight(
    workers: LocalEnvironment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, function: Any, how: str
) -> None:
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    workers.from_batch(range(100)).map(function, in_flight=8, on_error="skip", retry=2).collect()
    error = failed(workers)
    assert isinstance(error.__cause__, WorkerLost) and how in str(error.__cause__)
    assert "in flight" in str(error.__cause__) and error.report.data["left"] == []


def test_another_worker_gets_what_was_in_flight(
    workers: LocalEnvironment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    records = workers.from_batch(range(100)).map(kill, in_flight=8, on_worker_loss="restart").collect()
    report = workers.submit(autostop=True).report
    assert records == list(range(100)) and "took the place of 1 that were lost" in str(report)


def poison(n: int) -> int:
    os._exit(3)


def test_records_that_end_each_worker_fail_the_job(workers: LocalEnvironment) -> None:
    workers.from_batch(range(5)).map(poison, in_flight=2, on_worker_loss="restart").collect()
    error = failed(workers)
    assert isinstance(error.__cause__, WorkerLost) and len(error.report.data["workers"]) == 3


async def spin(n: int) -> None:
    Path(os.environ["HUNG"]).touch()
    while True:
        pass


def wait_long(n: int) -> None:
    Path(os.environ["HUNG"]).touch()
    threading.Event().wait()


class NeverMade(MapFunction):
    def __init__(self) -> None:
        wait_long(0)

    async def execute(self, n: int) -> int:
        return n


@pytest.mark.parametrize("function", [spin, wait_long, NeverMade])
def test_a_function_that_hangs_is_ended_and_all_is_clean(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, function: Any
) -> None:
    env = LocalEnvironment("hang", {"timeouts": {"cancel": 0.3}}, workers="processes")
    monkeypatch.setenv("HUNG", str(tmp_path / "hung"))
    env.from_batch([1]).map(function, in_flight=2).collect()
    job = env.submit()
    wait_for(tmp_path / "hung")
    job.cancel()
    with pytest.raises(JobFailed) as raised:
        job.wait()
    assert raised.value.report.outcome == "cancelled"
    assert raised.value.report.data["left"] == [] and "was killed" in str(raised.value.report)


UNSENDABLE: dict[str, tuple[Callable[[], list[Any]], Any]] = {
    "result": (lambda: [1, 2], lambda n: (lambda: n) if n == 2 else n),
    "record": (lambda: [1, Refuses()], lambda n: n),
}


@pytest.mark.parametrize("which", UNSENDABLE)
def test_what_cannot_be_pickled_is_an_error_of_its_record(workers: LocalEnvironment, which: str) -> None:
    make, function = UNSENDABLE[which]
    records = workers.from_batch(make()).map(function, in_flight=4, on_error="skip").collect()
    report = workers.submit(autostop=True).report
    assert records == [1] and report.data["operators"][1]["failed"] == 1


def test_much_goes_both_ways(workers: LocalEnvironment) -> None:
    data = [os.urandom(1 << 20) * 16 for _ in range(8)]
    records = workers.from_batch(data).map(lambda record: record, in_flight=4).collect()
    workers.submit(autostop=True)
    assert records == data


# With `fault_tolerance`.


class Flaky(MapFunction):
    """Raises in its first two objects, counted in a file, as each worker would count for itself."""

    def __init__(self, log: str, failing: int = 2) -> None:
        self.log, self.failing, self.seen = Path(log), failing, 0
        with open(log, "a") as file:
            file.write("made\n")

    def work(self, n: int) -> int:
        self.seen += 1
        if n == 3 and self.log.read_text().count("made") <= self.failing:
            raise Hostile("not by", self.failing)
        return n

    def execute(self, n: int) -> int:
        return self.work(n)

    def get_state(self) -> dict[str, int]:
        return {"seen": self.seen}

    def restore_state(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]

    def close(self) -> None:
        with open(self.log, "a") as file:
            file.write("closed\n")


class FlakyLater(Flaky):
    async def execute(self, n: int) -> int:  # type: ignore[override]
        return self.work(n)


class Hostile(Exception):
    def __init__(self, one: str, two: int) -> None:
        super().__init__(f"{one} {two}")


HOW: dict[str, tuple[type[Flaky], dict[str, Any]]] = {
    "chain": (Flaky, {}),
    "threads": (Flaky, {"in_flight": 1}),
    "async": (FlakyLater, {"in_flight": 1}),
}


@pytest.mark.parametrize("where", WHERE, ids=["threads", "processes"])
@pytest.mark.parametrize("how", HOW)
def test_a_new_instance_takes_over_in_the_worker(where: str | None, how: str, tmp_path: Path) -> None:
    tolerance = {"strategy": "checkpoint", "checkpoint_interval": 0, "checkpoint_dir": str(tmp_path / "kept")}
    env = LocalEnvironment("tolerant", {"fault_tolerance": tolerance}, workers=where)
    function, options = HOW[how]
    records = env.from_batch(range(6)).map(function, str(tmp_path / "log"), name="flaky", **options).collect()
    report = env.submit(autostop=True).report
    assert records == list(range(6))
    assert (tmp_path / "log").read_text().split() == ["made", "closed"] * 3
    assert sum(row["restarts"] for row in report.data["operators"]) == 2
    assert os.listdir(tmp_path / "kept") == [], "a job that succeeded leaves none"


@pytest.mark.parametrize("where", WHERE, ids=["threads", "processes"])
@pytest.mark.parametrize("how", HOW)
def test_instances_that_all_fail_are_told(where: str | None, how: str, tmp_path: Path) -> None:
    tolerance = {"restart_strategy": "fixed", "delay": 0.0, "max_attempts": 2}
    env = LocalEnvironment("exhausted", {"fault_tolerance": tolerance}, workers=where)
    function, options = HOW[how]
    env.from_batch(range(6)).map(function, str(tmp_path / "log"), 9, **options).collect()
    error = str(failed(env))
    assert "record 4" in error and "gave up after 3 attempts" in error and "Hostile: not by 9" in error
