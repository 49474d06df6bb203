"""Schedulers: who is asked about a task, and what is told of how tasks were started."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment
from sage.kernel.scheduler.api import BaseScheduler
from sage.kernel.scheduler.decision import PlacementDecision
from sage.kernel.scheduler.impl import FIFOScheduler, LoadAwareScheduler


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        (None, "FIFO"),
        ("fifo", "FIFO"),
        ("FIFO", "FIFO"),
        ("load_aware", "LoadAware"),
        ("LoadAware", "LoadAware"),
        (FIFOScheduler(), "FIFO"),
        (LoadAwareScheduler(max_concurrent=4), "LoadAware"),
    ],
)
def test_the_tasks_that_were_started_are_counted(scheduler: Any, told: str) -> None:
    env = LocalEnvironment("counted", scheduler=scheduler)
    env.from_batch([1, 2]).map(str, parallelism=3).collect()
    empty = {"scheduler_type": told, "total_scheduled": 0, "avg_latency_ms": 0.0, "decisions": 0, "platform": "local"}
    assert env.scheduler.get_metrics() == empty
    env.submit(autostop=True)
    metrics = env.get_scheduler_metrics()
    assert (metrics["total_scheduled"], metrics["decisions"], metrics["scheduler_type"]) == (5, 5, told)
    assert 0 < metrics["avg_latency_ms"] < 60_000
    env.submit(autostop=True)
    assert env.scheduler.get_metrics()["total_scheduled"] == 10


def test_a_scheduler_of_two_environments_counts_the_tasks_of_both() -> None:
    scheduler = FIFOScheduler()
    for name in ("a", "b"):
        env = LocalEnvironment(name, scheduler=scheduler)
        env.from_batch([1]).collect()
        env.submit(autostop=True)
    assert scheduler.get_metrics()["total_scheduled"] == 2


def test_a_task_that_never_started_is_not_counted() -> None:
    class Broken(BaseService):
        def setup(self) -> None:
            raise OSError("no disk")

    env = LocalEnvironment("none")
    env.register_service("broken", Broken)
    env.from_batch([1]).collect()
    with pytest.raises(JobFailed):
        env.submit(autostop=True)
    assert env.get_scheduler_metrics()["total_scheduled"] == 0


def test_the_latency_includes_the_start_of_services() -> None:
    begun = threading.Event()

    class Slow(BaseService):
        def setup(self) -> None:
            begun.wait(0.05)

    env = LocalEnvironment("late")
    env.register_service("slow", Slow)
    env.from_batch([1]).collect()
    env.submit(autostop=True)
    assert env.get_scheduler_metrics()["avg_latency_ms"] >= 50


@pytest.mark.parametrize(
    ("scheduler", "error"), [("best", ValueError), (3, TypeError), (object(), TypeError), (FIFOScheduler, TypeError)]
)
def test_what_is_no_scheduler_is_refused(scheduler: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`scheduler` is"):
        LocalEnvironment("refused", scheduler=scheduler)


class Asked(BaseScheduler):
    """Notes what it is asked about. It does not call its base's constructor."""

    def __init__(self, **decision: Any) -> None:
        self.asked: list[tuple[str, list[str], int, int]] = []
        self.completed: list[str] = []
        self.decision = decision

    def make_decision(self, task_node: Any) -> PlacementDecision:
        steps = [step.function_class.__name__ for step in task_node.transformations]
        assert task_node.transformation is task_node.transformations[0]
        self.asked.append((task_node.name, steps, task_node.parallel_index, task_node.parallelism))
        return PlacementDecision(**self.decision)

    def task_completed(self, task_name: str) -> None:
        self.completed.append(task_name)


def test_a_scheduler_of_the_programs_own_is_asked_about_each_task_and_told_of_its_end() -> None:
    scheduler = Asked()
    env = LocalEnvironment("asked", scheduler=scheduler)
    env.from_batch([1, 2], name="numbers").map(str, parallelism=2).sink(print)
    assert scheduler.asked == []
    env.submit(autostop=True)
    assert scheduler.asked == [
        ("numbers", ["SimpleBatchFunction"], 0, 1),
        ("str/0", ["str"], 0, 2),
        ("str/1", ["str"], 1, 2),
        ("print", ["print"], 0, 1),
    ]
    assert scheduler.completed == ["numbers", "str/0", "str/1", "print"]
    metrics = env.get_scheduler_metrics()
    assert (metrics["scheduler_type"], metrics["total_scheduled"]) == ("Asked", 4)


def test_any_object_with_make_decision_is_a_scheduler() -> None:
    class Plain:
        def make_decision(self, node: Any) -> None:
            self.last = node.name

    env = LocalEnvironment("plain", scheduler=Plain())
    env.from_batch([1]).collect()
    env.submit(autostop=True)
    assert env.scheduler.last == "batch"
    assert env.get_scheduler_metrics()["scheduler_type"] == "Plain"
    assert env.get_scheduler_metrics()["total_scheduled"] == 1

    asked: list[Any] = []
    env = LocalEnvironment("without a class", scheduler=SimpleNamespace(make_decision=asked.append))
    env.from_batch([1]).collect()
    env.submit(autostop=True)
    assert [node.name for node in asked] == ["batch"]


def test_a_delay_of_a_decision_is_waited_for_before_anything_starts() -> None:
    env = LocalEnvironment("delayed", scheduler=Asked(delay=0.04))
    env.from_batch([1]).collect()
    env.submit(autostop=True)
    assert env.get_scheduler_metrics()["avg_latency_ms"] >= 40


def test_a_delay_is_awaited_by_submit_async_while_the_event_loop_goes_on() -> None:
    made: list[int] = []

    def declared(scheduler: Asked) -> LocalEnvironment:
        env = LocalEnvironment("awaited", scheduler=scheduler)
        env.register_service("s", lambda: made.append(1))
        env.from_batch([1]).collect()
        return env

    async def run() -> None:
        scheduler = Asked(delay=3600.0)
        env = declared(scheduler)
        held = asyncio.ensure_future(env.submit_async())
        while not scheduler.asked:
            await asyncio.sleep(0)
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        assert made == [] and not env.is_running and env.env_uuid is None
        env = declared(Asked(delay=0.02))
        job = await env.submit_async()
        assert job.report.outcome == "succeeded" and made == [1]
        assert env.get_scheduler_metrics()["avg_latency_ms"] >= 20

    asyncio.run(run())


@pytest.mark.parametrize("delay", [-1, "soon", float("nan")])
def test_a_delay_that_is_none_starts_nothing(delay: Any) -> None:
    made: list[int] = []
    env = LocalEnvironment("wrong", scheduler=Asked(delay=delay))
    env.register_service("s", lambda: made.append(1))
    env.from_batch([1]).collect()
    with pytest.raises(ValueError, match="`delay` of a scheduler's decision"):
        env.submit(autostop=True)
    assert made == [] and not env.is_running and env.env_uuid is None


@pytest.mark.parametrize("decision", [5, "now", {"delay": 1}])
def test_what_is_no_decision_starts_nothing(decision: Any) -> None:
    env = LocalEnvironment("wrong", scheduler=SimpleNamespace(make_decision=lambda node: decision))
    seen = env.from_batch([1]).collect()
    with pytest.raises(TypeError, match="`make_decision` of a scheduler returns a `PlacementDecision`, or `None`"):
        env.submit(autostop=True)
    assert seen == [] and not env.is_running


def test_a_scheduler_that_raises_starts_nothing_and_one_that_fails_at_the_end_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refuses(Asked):
        def make_decision(self, task_node: Any) -> PlacementDecision:
            raise LookupError("no room")

    made: list[int] = []
    env = LocalEnvironment("refused", scheduler=Refuses())
    env.register_service("s", lambda: made.append(1))
    env.from_batch([1]).collect()
    with pytest.raises(LookupError, match="no room"):
        env.submit(autostop=True)
    assert made == []

    class Fails(Asked):
        def task_completed(self, task_name: str) -> None:
            raise LookupError("forgotten")

    env = LocalEnvironment("fails", scheduler=Fails())
    seen = env.from_batch([1]).collect()
    env.submit(autostop=True)
    assert seen == [1] and "forgotten" in caplog.text


def test_decisions_are_made_by_hand_as_well() -> None:
    assert FIFOScheduler().make_decision(None).delay == 0
    assert PlacementDecision.with_delay(2.0).delay == 2.0 and not PlacementDecision.with_delay(2.0).immediate
    assert PlacementDecision.with_node("n").target_node == "n"
    assert PlacementDecision.with_resources(cpu=2).resource_requirements == {"cpu": 2}
    assert PlacementDecision.immediate_default("why").reason == "why"
