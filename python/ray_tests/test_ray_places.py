"""On a Ray cluster: what workers and services take, where they are placed, and what is left of that."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
from elsewhere import failed, hang, wait_for
from ray.cluster_utils import Cluster
from ray.util import placement_group_table
from test_ray import cluster, nothing_left  # noqa: F401

from sage import BaseService, JobFailed, MapFunction, SubmitError
from sage.ray import RayEnvironment

#: A job that loses a node is over in this time, in seconds; the goal on an idle machine is 5.
IN_TIME = 15.0


@pytest.fixture
def env() -> RayEnvironment:
    return RayEnvironment("places")


def groups() -> list[dict[str, Any]]:
    """The placement groups that there are."""
    return [each for each in placement_group_table().values() if each["state"] != "REMOVED"]


@pytest.fixture(autouse=True)
def no_groups(cluster: Cluster) -> Iterator[None]:  # noqa: F811
    """None is left when a job is over."""
    yield
    assert groups() == []


class Second(NamedTuple):
    """Another node than the head, and what only that has: Ray knows only after a while that one before it is gone."""

    node: Any
    only: str


#: Takes a worker to the head.
ON_HEAD = {"num_cpus": 0.5, "resources": {"node:__internal_head__": 0.001}}


@pytest.fixture
def second(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Second]:  # noqa: F811
    only = f"only for {request.node.name}"
    node = cluster.add_node(num_cpus=3, resources={only: 2})
    yield Second(node, only)
    if node in cluster.list_all_nodes():
        cluster.remove_node(node)


def node_of(_: int) -> str:
    return str(ray.get_runtime_context().get_node_id())


def given(_: int) -> dict[str, float]:
    """What a worker was given of the cluster."""
    return dict(ray.get_runtime_context().get_assigned_resources())


# Refused.


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "one": ({"num_gpus": 1}, 1, "a worker of `f` takes CPU 1, GPU 1, which no node has; the cluster has CPU 4"),
    "packed": ({"num_cpus": 3, "placement_group": "STRICT_PACK"}, 2, "`f` take CPU 3 each on one node, which none has"),
    "spread": ({"placement_group": "STRICT_SPREAD"}, 2, "`f` take CPU 1 each on nodes of their own, and 1 of the"),
    "nothing": ({"num_cpus": 0, "placement_group": "PACK"}, 1, "takes nothing, so it has no `placement_group`"),
    "many": ({}, 9, "the 9 workers of `f` take CPU 9 at once; the cluster has CPU 4: say less by `ray`"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_can_never_be_had_is_refused_at_once(env: RayEnvironment, which: str) -> None:
    takes, count, why = REFUSED[which]
    env.from_batch([1]).map(given, parallelism=count, name="f", ray=takes).collect()
    begun = time.monotonic()
    with pytest.raises(SubmitError, match=why):
        env.submit(autostop=True)
    assert time.monotonic() - begun < 2


def test_steps_and_services_that_have_no_place_together_are_refused_at_once(env: RayEnvironment) -> None:
    env.service("db", BaseService, isolated=True, ray={"num_cpus": 2})
    first = env.from_batch([1]).map(given, name="f", ray={"placement_group": "PACK"})
    first.map(given, parallelism=2, name="g").collect()
    begun = time.monotonic()
    told = "the worker of `f`, the 2 workers of `g` and service `db` take CPU 5 at once; the cluster has CPU 4"
    with pytest.raises(SubmitError, match=told):
        env.submit(autostop=True)
    assert time.monotonic() - begun < 2


# Before any node is lost: Ray gives up what it has sent to one that it does not know to be gone.
def test_what_is_in_use_is_waited_for_and_told(env: RayEnvironment) -> None:
    class Holder:
        """Takes all that there is."""

        def is_there(self) -> bool:
            return True

    holder = ray.remote(Holder).options(num_cpus=4).remote()
    ray.get(holder.is_there.remote())
    try:
        env.config["timeouts"] = {"setup": 1.0}
        env.service("db", BaseService, isolated=True)
        env.from_batch([1]).map(given).collect()
        error = failed(env)
    finally:
        ray.kill(holder)
    assert re.search("Ray has not placed a worker within .* s: what it takes is in use", str(error))


# Placed.


def test_each_step_says_what_its_workers_take(second: Second) -> None:
    env = RayEnvironment("takes", {"ray": {"num_cpus": 0.25, "placement_group": "PACK"}})
    told = env.from_batch([1]).map(given).map(lambda d: (d, given(1)), ray={"num_cpus": 1.5}).collect()
    there = env.from_batch([1]).map(node_of, ray={"resources": {second.only: 0.5}}).collect()
    report = env.submit(autostop=True).report
    (first, other), = told
    assert first["CPU"] == 0.25 and other["CPU"] == 1.5 and there == [second.node.node_id]
    assert len(report.data["workers"]) == 3, "those that take something else have a worker of their own"


@pytest.mark.parametrize(("how", "nodes"), [("STRICT_PACK", 1), ("STRICT_SPREAD", 2)])
def test_workers_of_a_step_are_placed_together(env: RayEnvironment, second: Second, how: str, nodes: int) -> None:
    step = env.from_batch(range(8)).map(node_of, parallelism=2, name="f", ray={"placement_group": how})
    found = step.collect()
    report = env.submit(autostop=True).report
    assert len(set(found)) == nodes and len(report.data["workers"]) == 2


class Waits(MapFunction):
    """Says that it is there; fails then, or hangs later, as it is told."""

    def __init__(self, folder: str, how: str) -> None:
        Path(folder, "made").touch()
        if how == "fails when it is made":
            raise ValueError(how)
        self.folder = folder

    def execute(self, n: int) -> int:
        hang(str(Path(self.folder, "hangs")))
        return n


@pytest.mark.parametrize("how", ["fails when it is made", "hangs"])
def test_placement_groups_go_with_a_job_that_fails_or_is_cancelled(
    env: RayEnvironment, tmp_path: Path, how: str
) -> None:
    packed = {"num_cpus": 0.5, "placement_group": "PACK"}
    env.service("db", BaseService, isolated=True, ray=packed)
    env.from_batch(range(4)).map(Waits, str(tmp_path), how, parallelism=2, ray=packed).collect()
    job = env.submit()
    wait_for(tmp_path / ("hangs" if how == "hangs" else "made"))
    if how == "hangs":
        assert len(groups()) == 2
        job.cancel()
    with pytest.raises(JobFailed) as raised:
        job.wait()
    assert raised.value.report.data["left"] == [] and groups() == []


def test_placement_groups_go_though_nobody_waits_for_the_job(env: RayEnvironment) -> None:
    records = env.from_batch(range(4)).map(lambda n: n, ray={"placement_group": "PACK"}).collect()
    env.submit()
    until = time.monotonic() + 30
    while not records or groups():
        assert time.monotonic() < until
        time.sleep(0.01)
    env.wait()


def test_placement_groups_go_when_a_job_does_not_begin(env: RayEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    make = ray.util.placement_group

    def second_fails(*args: Any, **kwargs: Any) -> Any:
        asked.append(args)
        if len(asked) == 2:
            raise RuntimeError("no more")
        return make(*args, **kwargs)

    monkeypatch.setattr(ray.util, "placement_group", second_fails)
    packed = {"num_cpus": 0.5, "placement_group": "PACK"}
    env.from_batch([1]).map(given, ray=packed).map(given, name="other", parallelism=2, ray=packed).collect()
    with pytest.raises(RuntimeError, match="no more"):
        env.submit(autostop=True)
    assert len(asked) == 2 and groups() == []


# Services.


def test_a_service_runs_in_an_actor_that_takes_what_it_is_to(env: RayEnvironment, second: Second) -> None:
    class Tells(BaseService):
        def process(self, n: int) -> tuple[int, str, str]:
            return os.getpid(), ray.get_runtime_context().get_node_id(), self.call_service("near", n)

        async def later(self, n: int) -> int:
            return n + 1

        def cleanup(self) -> None:
            print("is cleaned")

    class Near(BaseService):
        def process(self, n: int) -> int:
            return 10 * n

    env.register_service("near", Near)
    there = env.service("there", Tells, isolated=True, ray={"num_cpus": 0.5, "resources": {second.only: 1}})
    assert "service there in an actor of its own" in env.explain()
    records = env.from_batch([4]).map(lambda n: there.process(n)).collect()
    report = env.submit(autostop=True).report
    worker = next(each for each in report.data["workers"] if each["operator"] == "there")
    assert records == [(worker["pid"], second.node.node_id, 40)]
    assert worker["guard"] == "ray" and worker["end"] == "has ended" and worker["peak_bytes"] > 1 << 20
    assert report.services["there"]["state"] == "cleaned" and report.services["near"]["calls"] == 1


@pytest.mark.parametrize("phase", ["setup", "call"])
def test_a_service_whose_node_is_lost_is_lost(
    env: RayEnvironment, cluster: Cluster, second: Second, tmp_path: Path, phase: str  # noqa: F811
) -> None:
    class Hangs(BaseService):
        def __init__(self, phase: str, folder: str) -> None:
            self.phase, self.folder = phase, folder

        def hang_in(self, phase: str) -> None:
            if phase == self.phase:
                Path(self.folder, "hangs").touch()
                while True:
                    time.sleep(3600)

        def setup(self) -> None:
            self.hang_in("setup")

        def process(self, n: int) -> int:
            self.hang_in("call")
            return n

    db = env.service("db", Hangs, (phase, str(tmp_path)), isolated=True, ray={"resources": {second.only: 1}})
    env.from_batch(range(3)).map(lambda n: db.process(n), ray=ON_HEAD).collect()
    job = env.submit()
    wait_for(tmp_path / "hangs")
    begun = time.monotonic()
    cluster.remove_node(second.node, allow_graceful=False)
    with pytest.raises(JobFailed) as raised:
        job.wait()
    assert time.monotonic() - begun < IN_TIME
    lost = f"was lost with its node, {second.node.node_id} at "
    assert lost in str(raised.value.report)
    ends = {each["operator"]: each["end"] for each in raised.value.report.data["workers"]}
    assert ends["db"].startswith(lost)
    assert raised.value.report.services["db"]["state"] == "lost"


def test_a_service_whose_actor_dies_is_lost_and_its_calls_fail(env: RayEnvironment) -> None:
    class Dies(BaseService):
        def process(self, n: int) -> int:
            os.kill(os.getpid(), signal.SIGKILL)
            return n

    db = env.service("db", Dies, isolated=True)
    env.from_batch(range(3)).map(lambda n: db.process(n)).collect()
    error = failed(env)
    assert "has ended" in str(error) and "while it was in `process`" in str(error)
    assert error.report.services["db"]["state"] == "lost"


def test_another_actor_takes_the_place_of_one_that_dies(env: RayEnvironment, tmp_path: Path) -> None:
    class DiesOnce(BaseService):
        def process(self, n: int) -> int:
            if not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return n

    db = env.service("db", DiesOnce, isolated=True, restarts=1)
    records = env.from_batch(range(3)).map(lambda n: db.process(n), on_error="skip").collect()
    error = failed(env)
    assert records == [1, 2] and "its cleanup could not run" in str(error.report)
    assert [each["guard"] for each in error.report.data["workers"] if each["operator"] == "db"] == ["ray", "ray"]


def test_a_hook_that_hangs_is_ended_with_its_actor(tmp_path: Path) -> None:
    class Hangs(BaseService):
        def cleanup(self) -> None:
            while True:
                pass

    env = RayEnvironment("hangs", {"timeouts": {"cleanup": 0.5}})
    env.service("db", Hangs, isolated=True)
    env.from_batch(range(3)).map(lambda n: n).collect()
    report = env.submit(autostop=True).report
    assert report.services["db"]["state"] == "abandoned" and report.data["left"] == []
    ends = {each["operator"]: each["end"] for each in report.data["workers"]}
    assert ends["db"] == "was killed"
