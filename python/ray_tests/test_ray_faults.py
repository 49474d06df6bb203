"""On a Ray cluster: functions of all kinds do what they do on threads, and losses of workers and nodes are told."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from elsewhere import failed, wait_for
from ray._private.state import actors
from ray.cluster_utils import Cluster
from ray.util import placement_group_table
from test_ray import _actor_processes, cluster, nothing_left  # noqa: F401

from sage import BaseService, DataStream, DeadLetterQueue, JobFailed, LocalEnvironment, MapFunction, Retry
from sage import WorkerLost
from sage.ray import RayEnvironment

#: A job that loses a node is over in this time, in seconds; the goal on an idle machine is 5.
IN_TIME = 15.0


@pytest.fixture
def env() -> RayEnvironment:
    return RayEnvironment("faults")


# As on threads.


async def doubled_later(n: int) -> int:
    await asyncio.sleep(0.001 * (n % 5))
    return 2 * n


def doubled_on_a_thread(n: int) -> int:
    time.sleep(0.001 * (n % 5))
    return 2 * n


def fail_at_threes(n: int) -> int:
    if n % 7 == 3:
        raise ValueError(n)
    return n


async def fail_at_threes_later(n: int) -> int:
    return fail_at_threes(n)


class SecondAttempt(MapFunction):
    """Works then."""

    def __init__(self) -> None:
        self.tried: set[int] = set()

    def execute(self, n: int) -> int:
        if n % 7 == 3 and n not in self.tried:
            self.tried.add(n)
            raise ValueError(n)
        return n


def summed(total: int, n: int) -> tuple[int, int]:
    return total + n, total + n


NOW = Retry(2, 0.0)
STEPS: dict[str, Callable[[DataStream, DeadLetterQueue], DataStream]] = {
    "async, as they come": lambda s, _: s.map(doubled_later, in_flight=10, ordered=False, parallelism=2),
    "in flight on threads": lambda s, _: s.map(doubled_on_a_thread, in_flight=10),
    "skipped": lambda s, _: s.map(fail_at_threes, on_error="skip"),
    "letters after attempts": lambda s, dead: s.map(fail_at_threes, on_error=dead, retry=NOW),
    "letters of async": lambda s, dead: s.map(fail_at_threes_later, on_error=dead, retry=NOW),
    "second attempt": lambda s, _: s.map(SecondAttempt, retry=NOW),
    "keys on replicas": lambda s, _: s.keyby(lambda n: n % 5).map(lambda n: n + 1, parallelism=3),
    "states on replicas": lambda s, _: s.keyby(lambda n: n % 5).map_with_state(0, summed, parallelism=2),
}


@pytest.mark.parametrize("which", STEPS)
def test_functions_do_what_they_do_on_threads(which: str) -> None:
    found = []
    for env in (LocalEnvironment("same"), RayEnvironment("same", {"ray": {"num_cpus": 0.5}})):
        dead = DeadLetterQueue()
        records = STEPS[which](env.from_batch(range(60)), dead).collect()
        letters: list[Any] = dead.letters.map(tuple).collect() if dead._streams else []
        try:
            report, error = env.submit(autostop=True).report, ""
        except JobFailed as raised:
            report, error, records = raised.report, str(raised).replace(" → collect", ""), []
        if "replicas" in which or "come" in which:
            records.sort()
        rows = [(row["failed"], row["retries"]) for row in report.data["operators"][1:2]]
        found.append((records, [letter[:-1] for letter in letters], error, rows))
        assert report.data["left"] == []
        assert {worker["end"] for worker in report.data["workers"]} <= {"has ended"}, "none had to be killed"
    threads, on_ray = found
    assert on_ray == threads and (threads[0] or threads[2])


def test_isolated_services_call_each_other(env: RayEnvironment, capsys: pytest.CaptureFixture[str]) -> None:
    # Of the function, so that their processes do not import this file, and Ray with it.
    class Bounces(BaseService):
        def __init__(self, other: str) -> None:
            self.other = other

        def bounce(self, n: int) -> list[str]:
            """A → B → A → …"""
            rest: list[str] = self.call_service(self.other, n - 1, method="bounce") if n else []
            return [self.name, *rest]

        def cleanup(self) -> None:
            print(f"{self.name} is cleaned")

    class Asks(MapFunction):
        def execute(self, n: int) -> str:
            return "".join(self.call_service("a", n, method="bounce"))

    env.register_service("a", Bounces, "b", remote=True)
    env.service("b", Bounces, ("a",), isolated=True)
    records = env.from_batch([4]).map(Asks).collect()
    report = env.submit(autostop=True).report
    assert records == ["ababa"]
    assert {name: service["state"] for name, service in report.services.items()} == {"a": "cleaned", "b": "cleaned"}
    assert [worker["guard"] for worker in report.data["workers"]] == ["ray"] * 3
    out = capsys.readouterr().out
    assert out.count("[a] a is cleaned\n") == out.count("[b] b is cleaned\n") == 1


# Workers that are lost.


def kill_once(path: str) -> Callable[[int], int]:
    def function(n: int) -> int:
        if n == 30 and not os.path.exists(path):
            Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    return function


@pytest.mark.parametrize("options", [{}, {"in_flight": 8}, {"on_error": "skip"}], ids=["chain", "in flight", "judged"])
def test_another_actor_takes_the_place_of_one_that_is_lost(
    env: RayEnvironment, tmp_path: Path, options: dict[str, Any]
) -> None:
    function = kill_once(str(tmp_path / "killed"))
    records = env.from_batch(range(60)).map(function, on_worker_loss="restart", **options).collect()
    report = env.submit(autostop=True).report
    assert records == list(range(60)) and "took the place of 1 that were lost" in str(report)
    assert len(report.data["workers"]) == 2


# Nodes that are lost.


class Phase(MapFunction):
    """Hangs in one of its phases, and says that it is there."""

    def __init__(self, phase: str, folder: str) -> None:
        self.phase = phase
        self.folder = folder
        self.hang_in("setup")

    def hang_in(self, phase: str) -> None:
        if phase == self.phase:
            Path(self.folder, "hangs").touch()
            while True:
                time.sleep(3600)

    def execute(self, n: int) -> int:
        Path(self.folder, "runs").touch()
        self.hang_in("running")
        if self.phase == "drain":
            while not Path(self.folder, "drained").exists():
                time.sleep(0.005)
            self.hang_in("drain")
        return n

    def close(self) -> None:
        self.hang_in("cleanup")


class Keeps(BaseService):
    def cleanup(self) -> None:
        print("the service is cleaned")


@pytest.mark.parametrize("phase", ["setup", "running", "drain", "cleanup"])
def test_a_node_that_is_lost_ends_the_job_in_time_and_is_named(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], phase: str  # noqa: F811
) -> None:
    node = cluster.add_node(num_cpus=1, resources={"second": 1})
    env = RayEnvironment("lost", {"ray": {"resources": {"second": 1}}})
    env.service("keeps", Keeps)
    env.from_batch(range(3)).map(Phase, phase, str(tmp_path)).collect()
    job = env.submit()
    if phase == "drain":
        wait_for(tmp_path / "runs")
        job.drain()
        (tmp_path / "drained").touch()
    wait_for(tmp_path / "hangs")
    begun = time.monotonic()
    cluster.remove_node(node, allow_graceful=False)
    with pytest.raises(JobFailed) as raised:
        job.wait()
    assert time.monotonic() - begun < IN_TIME
    report, lost = raised.value.report, f"was lost with its node, {node.node_id} at "
    assert isinstance(raised.value.__cause__, WorkerLost)
    assert lost in str(raised.value) and [lost in worker["end"] for worker in report.data["workers"]] == [True]
    assert capsys.readouterr().out.count("the service is cleaned") == 1


def test_a_worker_that_can_be_placed_no_more_ends_the_job(cluster: Cluster) -> None:  # noqa: F811
    class Holder:
        """Takes what a worker waits for."""

        def is_there(self) -> bool:
            return True

    node = cluster.add_node(num_cpus=1, resources={"second": 1})
    holder = ray.remote(Holder).options(resources={"second": 1}).remote()
    ray.get(holder.is_there.remote())
    env = RayEnvironment("waits", {"ray": {"resources": {"second": 1}}})
    env.from_batch(range(3)).map(doubled_on_a_thread).collect()
    job = env.submit()
    begun = time.monotonic()
    cluster.remove_node(node)
    # Ray may have begun to start it there, as the holder went with the node.
    refused = "a worker of `doubled_on_a_thread` takes CPU 1, second 1, (which no node has|and no node that has it)"
    with pytest.raises(JobFailed, match=f"{refused}|a worker could not be started on Ray: has ended"):
        job.wait()
    assert time.monotonic() - begun < IN_TIME


def test_twenty_jobs_leave_no_process_no_actor_and_no_placement_group() -> None:
    for number in range(20):
        env = RayEnvironment("one of many")
        records = env.from_batch(range(4)).map(lambda n: n + 1, parallelism=1 + (number % 5 == 0)).collect()
        env.submit(autostop=True)
        assert sorted(records) == [1, 2, 3, 4], number
        assert _actor_processes() == []
    assert {actor["State"] for actor in actors().values()} == {"DEAD"}
    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}
