"""What the tests of functions in other processes share: where they run, what ends them, and what is left of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage import JobFailed, LocalEnvironment

#: Where functions run: on threads of this process, and in workers.
WHERE = [None, "processes"]


def failed(env: LocalEnvironment) -> JobFailed:
    """How the job of an environment fails."""
    with pytest.raises(JobFailed) as raised:
        env.submit(autostop=True)
    return raised.value


def hang(path: str) -> None:
    """A function that never returns; its file tells that it was called."""
    Path(path).touch()
    while True:
        pass


def wait_for(path: Path) -> None:
    """Waits until another process has made a file."""
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} is not there"
        time.sleep(0.005)


def is_there(pid: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children() -> set[int]:
    """The processes below this one, zombies included."""
    parents = {}
    for folder in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{folder}/stat").read_text()
        except OSError:
            continue
        parents[int(folder)] = int(stat.rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


@pytest.fixture
def no_processes() -> Iterator[None]:
    """Nothing is left when a job returns."""
    before = children()
    yield
    assert children() == before


@pytest.fixture(params=WHERE, ids=["threads", "processes"])
def env(request: pytest.FixtureRequest) -> LocalEnvironment:
    """Functions run in each of these places."""
    return LocalEnvironment("where", workers=request.param)


@pytest.fixture
def workers() -> LocalEnvironment:
    """Functions run in workers."""
    return LocalEnvironment("workers", workers="processes")
