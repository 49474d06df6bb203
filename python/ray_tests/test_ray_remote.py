"""A job that the job manager runs, whose functions run in actors of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from daemons import RunningDaemon
from ray.cluster_utils import Cluster

from sage import JobFailed, MapFunction, RemoteEnvironment


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # of its own tests, on this machine alone
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        yield made.address
        made.shutdown()


@pytest.fixture
def manager(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDaemon]:
    running = RunningDaemon(tmp_path / "sage")
    monkeypatch.setenv("SAGE_HOME", str(running.home))
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    yield running
    RemoteEnvironment(port=running.port).client.cleanup_all_jobs()
    assert running.left() == []
    assert running.end() == 0


class Where(MapFunction):
    """The process that it runs in, and that of its job."""

    def execute(self, n: int) -> str:
        if n < 0:
            raise ValueError("below zero")
        return f"{n * n} {os.getpid()} {ray.is_initialized()}"


def test_a_job_of_the_job_manager_runs_on_ray(manager: RunningDaemon, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write(line: str) -> None:
        with out.open("a") as file:
            print(line, os.getpid(), file=file)

    env = RemoteEnvironment("on-ray", port=manager.port, workers="ray", variables=["RAY_ADDRESS", "RAY_AUTH_MODE"])
    env.from_batch([1, 2, 3]).map(Where).sink(write)
    env.submit(autostop=True)
    lines = [line.split() for line in out.read_text().splitlines()]
    assert [line[0] for line in lines] == ["1", "4", "9"]
    assert all(actor != job and is_on_ray == "True" for _, actor, is_on_ray, job in lines), lines

    env = RemoteEnvironment("fails", port=manager.port, workers="ray", variables=["RAY_ADDRESS", "RAY_AUTH_MODE"])
    env.from_batch([1, -1]).map(Where).sink(print)
    with pytest.raises(JobFailed, match="below zero"):
        env.submit(autostop=True)
