"""What a job has done so far and is doing: `JobId.metrics`, from any thread, while it runs and when it is over."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sage
from sage import BaseService, JobFailed, JobId, JobMetrics, LocalEnvironment, Retry
from sage._rates import DONE, Rates


def until(job: JobId, is_so: Callable[[JobMetrics], bool]) -> JobMetrics:
    """The first metrics that are so."""
    for _ in range(20_000):
        metrics = job.metrics()
        if is_so(metrics):
            return metrics
        threading.Event().wait(0.001)  # nothing tells when a figure changes
    raise AssertionError(metrics)


class Steps:
    """Lets a function go on record by record. It is slow: what takes less than some milliseconds is counted with what
    comes next."""

    def __init__(self) -> None:
        self._may = threading.Semaphore(0)
        self.begun = 0

    def __call__(self, record: Any) -> Any:
        self.begun += 1
        assert self._may.acquire(timeout=60)
        time.sleep(0.01)
        return record

    def let(self, records: int) -> None:
        for _ in range(records):
            self._may.release()


def numbers(env: LocalEnvironment) -> Any:
    return env.from_batch(range(20))


SHAPES: dict[str, Callable[[LocalEnvironment, Steps], Any]] = {
    "a list": lambda env, steps: env.from_batch(list(range(20))).map(steps, name="enrich").collect(),
    "a generator": lambda env, steps: env.from_batch((n for n in range(20)), total=20).map(steps).collect(),
    "a slow source": lambda env, steps: env.from_batch(map(steps, range(20)), total=20).map(abs).collect(),
    "a policy": lambda env, steps: numbers(env).map(steps, name="enrich", on_error="skip").collect(),
    "a filter behind": lambda env, steps: numbers(env).map(steps).filter(lambda n: n % 2).collect(),
    "a thread behind": lambda env, steps: numbers(env).map(steps).keyby(abs).count(parallelism=2).collect(),
    "in flight": lambda env, steps: numbers(env).map(steps, in_flight=4, ordered=False).collect(),
    "a sink": lambda env, steps: numbers(env).sink(steps),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_each_record_of_a_slow_function_is_counted_when_it_is_done(
    shape: Callable[[LocalEnvironment, Steps], Any],
) -> None:
    env, steps = LocalEnvironment("enrich"), Steps()
    shape(env, steps)
    job = env.submit()
    for done in range(7):
        # The next one is being worked on. A busy machine may end a loop late, which then has two more.
        is_counted = lambda metrics, done=done: done - 2 <= metrics.done <= done and steps.begun > done  # noqa: E731
        metrics = until(job, is_counted)
        assert (metrics.total, metrics.outcome) == (20, None)
        assert metrics.state == "running" or done < 3
        steps.let(1)
    steps.let(20)
    job.wait()
    metrics = job.metrics()
    assert (metrics.read, metrics.done, metrics.total) == (20, 20, 20)
    assert (metrics.state, metrics.outcome, metrics.eta) == ("ended", "succeeded", None)


@pytest.mark.parametrize("records", [lambda: list(range(5010)), lambda: iter(range(5010))], ids=["list", "iterator"])
def test_records_are_counted_one_by_one_also_when_quick_ones_came_before(records: Callable[[], Any]) -> None:
    env, steps = LocalEnvironment("enrich"), Steps()
    env.from_batch(records()).map(lambda n: n if n < 5000 else steps(n)).collect()
    job = env.submit()
    # The first of these are in a loop with quick ones.
    steps.let(3)
    for more in range(3, 8):
        until(job, lambda metrics, more=more: 5000 + more - 2 <= metrics.done <= 5000 + more)
        steps.let(1)
    steps.let(1000)
    job.wait()


def test_the_figures_of_steps_tasks_and_queues() -> None:
    env, steps = LocalEnvironment("figures"), Steps()

    def fails(n: int) -> int:
        if n % 2:
            raise ValueError(n)
        return n

    first = env.from_batch(list(range(100)), name="numbers")
    some = first.map(fails, name="fails", retry=Retry(2, first=0.0), on_error="skip")
    some.keyby(lambda n: n % 3, name="key").map(steps, name="slow", parallelism=2).collect()
    job = env.submit()

    def is_blocked(metrics: JobMetrics) -> bool:
        # The second record has failed before both replicas had one. It is counted at the latest when its task waits.
        blocked = any(task.doing == "blocked" for task in metrics.tasks)
        return steps.begun == 2 and blocked and metrics.failed > 0 and metrics.retried > 0

    metrics = until(job, is_blocked)
    assert metrics.environment == "figures" and metrics.job == job
    assert metrics.failed == metrics.operators["fails"].failed > 0
    assert metrics.retried == metrics.operators["fails"].retried > 0
    assert metrics.operators["slow"].parallelism == 2
    blocked = next(task for task in metrics.tasks if task.doing == "blocked")
    assert blocked.blocked_by == "pace" and blocked.since <= blocked.blocked and blocked.busy > 0.0
    # Where they wait, and that they hold something.
    waiting = [queue for queue in metrics.queues if queue.records]
    assert waiting and all(queue.target in metrics.operators for queue in waiting), metrics.queues
    assert sum(queue.bytes for queue in waiting) > 0
    names = {task.name for task in metrics.tasks}
    assert {"numbers", "slow/0", "slow/1"} & names, names
    steps.let(100)
    job.wait()
    metrics = job.metrics()
    assert (metrics.failed, metrics.retried, metrics.tasks, metrics.queues) == (50, 50, [], [])
    assert metrics.operators["fails"].records_in == 100 and metrics.rate > 0.0


def test_metrics_may_be_asked_by_any_thread_and_after_a_failure() -> None:
    env = LocalEnvironment("failing")
    env.from_batch(list(range(10))).map(lambda n: 1 // (5 - n)).collect()
    job = env.submit()
    found: list[JobMetrics] = []
    threads = [threading.Thread(target=lambda: found.append(job.metrics())) for _ in range(4)]
    for thread in threads:
        thread.start()
    with pytest.raises(JobFailed):
        job.wait()
    for thread in threads:
        thread.join()
    metrics = job.metrics()
    assert len(found) == 4 and metrics.outcome == "failed" and metrics.failed == 1
    assert (metrics.read - metrics.done, metrics.total) == (job.report.data["dropped"], 10)
    there = pickle.loads(pickle.dumps(job)).metrics()
    assert (there.outcome, there.operators) == (metrics.outcome, metrics.operators)


class Sized:
    """Says its length, but once."""

    asked = 0

    def __len__(self) -> int:
        self.asked += 1
        return 3

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class Wrong(Sized):
    def __len__(self) -> int:
        raise ValueError("not yet")


def test_how_many_records_there_will_be() -> None:
    def total(records: Any, **options: Any) -> int | None:
        env = LocalEnvironment("total")
        env.from_batch(records, **options).collect()
        job = env.submit()
        total = job.metrics().total
        job.wait()
        assert job.metrics().total == total, "it stays known"
        return total

    assert total([1, 2]) == 2 and total(range(5)) == 5 and total({1: 2}.items()) == 1
    sized = Sized()
    assert total(sized) == 3 and sized.asked == 1
    assert total(Wrong()) is None and total(iter([1])) is None
    assert total(iter([1]), total=7) == total(iter([1]), total_count=7) == 7
    assert total([1, 2], total=9) == 9
    with pytest.raises(TypeError, match="`total` and `total_count` are the same"):
        total([], total=1, total_count=1)
    with pytest.raises(ValueError, match="`total_count` is a whole number"):
        total([], total=-1)
    env = LocalEnvironment("two")
    env.from_batch([1]).connect(env.from_batch([2, 3])).map(abs).collect()
    job = env.submit(autostop=True)
    assert job.metrics().total == 3


def test_nobody_is_asked_for_a_length_unless_it_is_shown() -> None:
    env, sized = LocalEnvironment("unasked"), Sized()
    env.from_batch(sized).collect()
    env.submit(autostop=True)
    assert sized.asked == 0


def test_a_rate_is_that_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    rates = Rates()

    def at(moment: float, done: int) -> float:
        nonlocal now
        now = moment
        return rates.since({DONE: done})[1][DONE]

    assert at(1.0, 1000) == 1000.0
    for second in range(2, 8):
        at(second, 1000 + (second - 1) * 10)
    assert at(8.0, 1070) == 10.0, "the quick ones at the begin are longer ago"
    # Where there are few, over more of them.
    for second in range(9, 60):
        rate = at(second, 1070 + (second - 8) // 10)
    assert 0.0 < rate < 0.5


# ---- services


class Remote(BaseService):
    def __init__(self) -> None:
        self.may = threading.Event()
        self.entered = threading.Semaphore(0)

    async def ask(self, n: int) -> int:
        self.entered.release()
        while not self.may.is_set():
            await asyncio.sleep(0.005)
        if n == 1:
            raise ValueError(n)
        return n

    def plain(self, n: int) -> int:
        if n % 2:
            raise ValueError(n)
        return n


def test_a_call_of_an_async_method_takes_until_it_was_awaited() -> None:
    env = LocalEnvironment("remote")
    remote = env.service("remote", Remote)
    held: list[Remote] = []

    class Ask(sage.MapFunction):
        async def execute(self, n: int) -> int:
            return await self.call_service("remote", n, method="ask")

    instance = Remote()
    env = LocalEnvironment("remote")
    remote = env.service("remote", lambda: held.append(instance) or instance)  # type: ignore[func-returns-value]
    out = env.from_batch(range(4)).map(Ask, in_flight=4, on_error="skip").collect()
    job = env.submit()
    for _ in range(4):
        assert instance.entered.acquire(timeout=60)
    before = job.metrics().services["remote"]
    assert (before.in_flight, before.calls, before.errors, before.p50) == (4, 4, 0, None)
    threading.Event().wait(0.05)
    instance.may.set()
    job.wait()
    assert sorted(out) == [0, 2, 3] and remote is not None
    after = job.metrics().services["remote"]
    assert (after.in_flight, after.calls, after.errors) == (0, 4, 1)
    assert after.p50 is not None and after.p50 >= 0.04, after
    assert "p50" in str(job.report) and job.report.services["remote"]["errors"] == 1


def test_calls_that_raise_are_errors() -> None:
    env = LocalEnvironment("raising")
    env.register_service("db", Remote)
    db = env.service("typed", Remote)
    calls = {
        "by name": lambda self, n: self.call_service("db", n, method="plain"),
        "with a timeout": lambda self, n: self.call_service("db", n, method="plain", timeout=60.0),
        "later": lambda self, n: self.call_service_async("db", n, method="plain").result(),
        "by a handle": lambda _self, n: db.plain(n),
    }
    for name, call in calls.items():
        function = type("Call", (sage.MapFunction,), {"execute": call})
        env.from_batch(range(10)).map(function, name=name, on_error="skip").collect()
    services = env.submit(autostop=True).report.services
    told = {name: (service["calls"], service["errors"]) for name, service in services.items()}
    assert told == {"db": (30, 15), "typed": (10, 5)}


def test_a_coroutine_that_nobody_awaits_is_warned_of_once_and_by_its_name(recwarn: pytest.WarningsRecorder) -> None:
    env = LocalEnvironment("forgotten")
    remote = env.service("remote", Remote)

    def forget(n: int) -> int:
        coroutine = remote.ask(n)
        assert coroutine.__name__ == "ask" and asyncio.iscoroutine(coroutine)
        return n

    env.from_batch([1]).map(forget).collect()
    env.submit(autostop=True)
    told = [str(warning.message) for warning in recwarn if issubclass(warning.category, RuntimeWarning)]
    assert told == ["coroutine 'Remote.ask' was never awaited"]
