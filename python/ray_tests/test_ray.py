"""Functions in actors of a Ray cluster of two nodes: as on threads, and what only Ray has. Ray begins once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from elsewhere import children, failed, hang, wait_for
from ray.cluster_utils import Cluster

from sage import BaseService, DataStream, JobFailed, LocalEnvironment, MapFunction, SubmitError, WorkerLost
from sage.ray import RayEnvironment


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # of its own tests, on this machine alone
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
        ray.init(address=made.address, log_to_driver=False, logging_level="error")
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture(autouse=True)
def nothing_left(cluster: Cluster) -> Iterator[None]:
    """No actor is alive, and none of its processes is there, zombies included, when a job is over."""
    before = set(_actor_processes())
    yield
    assert set(_actor_processes()) - before == set()
    assert ray.is_initialized(), "a cluster that was there is left"


def _actor_processes() -> list[int]:
    """Those of this cluster: others may run on this machine."""
    found, ours = [], children()
    logs = str(ray._private.worker._global_node.get_session_dir_path())
    for folder in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{folder}/cmdline").read_bytes() or Path(f"/proc/{folder}/comm").read_bytes()
        except OSError:
            continue
        if b"SageWorker" not in line:
            continue
        try:
            is_ours = int(folder) in ours or os.readlink(f"/proc/{folder}/fd/2").startswith(logs)
        except OSError:
            is_ours = False
        if is_ours:
            found.append(int(folder))
    return found


@pytest.fixture
def env() -> RayEnvironment:
    return RayEnvironment("on-ray")


PIPELINES: dict[str, Callable[[DataStream], DataStream]] = {
    "a chain": lambda s: s.map(lambda n: n * n).filter(lambda n: n % 2 == 0).flatmap(lambda n: [n, n]),
    "keys": lambda s: s.keyby(lambda n: n % 7).count(),
    "a state": lambda s: s.keyby(lambda n: n % 7).map_with_state(0, lambda total, n: (total + n, total + n)),
}


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
def test_the_results_and_their_order_are_those_of_threads(pipeline: Callable[[DataStream], DataStream]) -> None:
    found = []
    for env in (LocalEnvironment("threads"), RayEnvironment("on-ray")):
        records = pipeline(env.from_batch(range(40))).collect()
        assert env.submit(autostop=True).report.outcome == "succeeded"
        found.append(records)
    assert found[0] == found[1] and found[0]


class Store(BaseService):
    def __init__(self) -> None:
        self.cleaned = 0

    def get(self, n: int) -> int:
        return n + 100

    def cleanup(self) -> None:
        print("cleaned once")


class Asks(MapFunction):
    def execute(self, n: int) -> int:
        print("asks", n)
        return int(self.call_service("store", n, method="get"))


def test_services_are_called_and_cleaned_where_they_are(
    env: RayEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    env.register_service("store", Store)
    records = env.from_batch(range(4)).map(Asks, parallelism=2).collect()
    report = env.submit(autostop=True).report
    assert sorted(records) == [100, 101, 102, 103]
    assert report.services["store"]["calls"] == 4 and len(report.data["workers"]) == 2
    out = capsys.readouterr().out
    assert out.count("cleaned once") == 1 and "[Asks 0] asks 0\n" in out


def fail_at_five(n: int) -> int:
    if n == 5:
        raise ValueError("five")
    return n


def test_a_failure_names_the_function_and_the_record(env: RayEnvironment) -> None:
    env.from_batch(range(10)).map(lambda n: n).map(fail_at_five).collect()
    error = failed(env)
    assert "record 6" in str(error) and "in `fail_at_five`: ValueError: five" in str(error.report)
    assert isinstance(error.__cause__, ValueError)


def leave_at_once(n: int) -> int:
    os._exit(3)


def kill(n: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return n


@pytest.mark.parametrize("function", [leave_at_once, kill])
def test_an_actor_that_dies_is_named(env: RayEnvironment, function: Callable[[int], int]) -> None:
    env.from_batch(range(5)).map(function).collect()
    error = failed(env)
    assert isinstance(error.__cause__, WorkerLost) and f"the worker of `{function.__name__}`" in str(error.__cause__)
    assert "it had the record" in str(error.__cause__) and error.report.data["left"] == []


def test_a_function_that_hangs_is_ended_and_all_is_clean(env: RayEnvironment, tmp_path: Path) -> None:
    env.from_batch([str(tmp_path / "hung")]).map(hang).collect()
    job = env.submit()
    wait_for(tmp_path / "hung")
    job.cancel()
    with pytest.raises(JobFailed) as raised:
        job.wait()
    assert raised.value.report.data["left"] == [] and "was killed" in str(raised.value.report)


def test_what_can_never_be_placed_is_refused(env: RayEnvironment) -> None:
    many = RayEnvironment("many")
    many.from_batch([1]).map(fail_at_five, parallelism=9).collect()
    with pytest.raises(SubmitError, match="take CPU 9 at once; the cluster has CPU 4"):
        many.submit(autostop=True)
    much = RayEnvironment("much", {"ray": {"num_gpus": 1}})
    much.from_batch([1]).map(fail_at_five).collect()
    with pytest.raises(SubmitError, match="a worker of `fail_at_five` takes CPU 1, GPU 1, which no node has"):
        much.submit(autostop=True)


OWN = """
import os, signal, sys
before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
from sage.ray import RayEnvironment
for _ in range(2):
    env = RayEnvironment("own")
    records = env.from_batch(range(4)).map(lambda n: n + 1).collect()
    env.submit(autostop=True)
    assert records == [1, 2, 3, 4], records
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGTERM) is handler
    import ray
    assert not ray.is_initialized()
assert not os.path.exists(os.path.expanduser("~/.ray"))
"""


def test_a_cluster_that_is_begun_for_a_job_ends_with_it(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["HOME"] = str(tmp_path)
    ran: Any = subprocess.run([sys.executable, "-c", OWN], env=environment, timeout=240, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
