"""What a job tells the reaper of its program, which ``SAGE_JOB_SOCKET`` names."""

from __future__ import annotations

import gc
import json
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, MapFunction, SourceFunction


class Reaper:
    """Stands for the reaper: hears what one job tells, and tells it something."""

    def __init__(self, path: Path) -> None:
        self._listens = socket.socket(socket.AF_UNIX)
        self._listens.bind(str(path))
        self._listens.listen()
        self._told: queue.Queue[Any] = queue.Queue()
        self._link: socket.socket | None = None
        self._has_come = threading.Event()
        #: Whether the end of a job is noted, which the job waits for.
        self.notes = threading.Event()
        self.notes.set()
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()

    def _hear(self) -> None:
        try:
            self._link, _ = self._listens.accept()
        except OSError:
            return  # nobody came
        self._has_come.set()
        with self._link.makefile("rb") as lines:
            for line in lines:
                said = json.loads(line)
                self._told.put(said)
                if "ended" in said:
                    self.notes.wait()
                    self.say("noted")
        self._told.put(None)

    def say(self, message: Any) -> None:
        assert self._has_come.wait(60) and self._link is not None
        self._link.sendall(json.dumps(message).encode() + b"\n")

    def next(self) -> Any:
        """What it is told next; ``None`` when the job is gone."""
        return self._told.get(timeout=60)

    def until(self, is_it: Callable[[Any], bool]) -> Any:
        while (said := self.next()) is not None:
            if is_it(said):
                return said
        raise AssertionError("the job is gone before that")

    def until_state(self, state: str) -> None:
        self.until(lambda said: said.get("changed", {}).get("job", {}).get("to") == state)

    def rest(self) -> list[Any]:
        return list(iter(self.next, None))

    def close(self) -> None:
        self.notes.set()
        self._listens.shutdown(socket.SHUT_RDWR)
        if self._link is not None:
            # Of a test that has failed, the job may be there.
            with suppress(OSError):
                self._link.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listens.close()
        if self._link is not None:
            self._link.close()


@pytest.fixture
def reaper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reaper]:
    made = Reaper(tmp_path / "socket")
    monkeypatch.setenv("SAGE_JOB_SOCKET", str(tmp_path / "socket"))
    yield made
    made.close()


class Plus(MapFunction):
    def execute(self, n: int) -> int:
        return n + 1


class Endless(SourceFunction):
    def execute(self) -> int:
        return 1


class Db(BaseService):
    def process(self, n: int) -> int:
        return n


def test_a_job_is_told_from_its_begin_to_its_report(reaper: Reaper) -> None:
    env = LocalEnvironment("told")
    env.service("db", Db)
    env.from_batch([1, 2, 3]).map(Plus).map(str).collect()
    job = env.submit(autostop=True)
    begins, *changes, ended = reaper.rest()
    begins = begins["job"]
    assert (begins["job"], begins["environment"], begins["pid"]) == (job, "told", os.getpid())
    assert [service["name"] for service in begins["graph"]["services"]] == ["db"]
    states = [change["changed"]["job"]["to"] for change in changes if "job" in change["changed"]]
    assert states == ["starting", "running", "stopping", "ended"]
    # The final one, with the steps of the program.
    assert ended["ended"] == job.report.data and job.report.functions


def test_a_job_that_fails_tells_its_cause(reaper: Reaper) -> None:
    env = LocalEnvironment("fails")
    env.from_batch(["x"]).map(int).collect()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    told = reaper.rest()[-1]["ended"]
    assert told == failed.value.report.data and "invalid literal" in told["first_cause"]["message"]


def test_the_reaper_pauses_and_drains_a_job_and_asks_for_figures(reaper: Reaper) -> None:
    env = LocalEnvironment("steered")
    given: list[int] = []
    env.from_source(Endless).sink(given.append)
    job = env.submit()
    reaper.until_state("running")
    reaper.say({"do": "pause"})
    reaper.until_state("paused")
    reaper.say({"do": "resume"})
    reaper.until_state("running")
    reaper.say({"figures": {"request": 7}})
    figures = reaper.until(lambda said: "figures" in said)["figures"]
    assert figures["request"] == 7 and figures["figures"]["metrics"]["operators"]
    reaper.say({"do": "drain"})
    reaper.until_state("stopping")
    report = job.wait()
    assert report is not None and report.outcome == "succeeded"
    assert reaper.rest()[-1]["ended"]["reason"] == "drain"


def test_the_reaper_cancels_a_job(reaper: Reaper) -> None:
    env = LocalEnvironment("cancelled")
    env.from_source(Endless).sink(lambda _: None)
    env.submit()
    reaper.until_state("running")
    reaper.say({"do": "cancel"})
    with pytest.raises(JobFailed, match="cancelled"):
        env.wait()


def test_the_end_of_a_job_that_nobody_waits_for_is_told_when_the_next_one_starts(reaper: Reaper) -> None:
    env = LocalEnvironment("dropped")
    env.from_batch([1]).collect()
    over = threading.Event()
    run = env.submit()._run
    run.job.on_end(over.set)  # type: ignore[union-attr]
    over.wait()
    other = LocalEnvironment("next")
    other.from_batch([1]).collect()
    del env, run
    gc.collect()
    os.environ.pop("SAGE_JOB_SOCKET")
    other.submit(autostop=True)
    assert "ended" in reaper.rest()[-1]


def test_all_that_wait_return_when_the_end_is_noted(reaper: Reaper) -> None:
    env = LocalEnvironment("waited")
    env.from_source(Endless).sink(lambda _: None)
    job = env.submit()
    reaper.until_state("running")
    reaper.notes.clear()
    left: list[int] = []
    waits = [threading.Thread(target=lambda: (job.wait(), left.append(1))) for _ in range(3)]
    for thread in waits:
        thread.start()
    job.drain()
    reaper.until(lambda said: "ended" in said)
    waits[0].join(0.05)
    assert left == [] and all(thread.is_alive() for thread in waits)
    reaper.notes.set()
    for thread in waits:
        thread.join()
    assert len(left) == 3 and reaper.rest() == []


def _socket(_: Any) -> str | None:
    return os.environ.get("SAGE_JOB_SOCKET")


class Reads(BaseService):
    def process(self, n: int) -> str | None:
        return _socket(n)


def test_workers_and_isolated_services_do_not_tell_of_jobs_as_the_program_does(reaper: Reaper) -> None:
    pytest.importorskip("cloudpickle")
    env = LocalEnvironment("workers")
    db = env.service("db", Reads, isolated=True)
    records = env.from_batch([1]).map(_socket, workers="processes", keep_none=True).collect()
    asked = env.from_batch([1]).map(lambda n: db.process(n), keep_none=True).collect()
    here = env.from_batch([1]).map(_socket, keep_none=True).collect()
    env.submit(autostop=True)
    assert records == asked == [None] and here == [os.environ["SAGE_JOB_SOCKET"]]


@pytest.mark.parametrize("there", ["", "nothing", "folder"])
def test_a_job_goes_on_where_nobody_listens(there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("SAGE_JOB_SOCKET", str(tmp_path / there) if there else "")
    env = LocalEnvironment("untold")
    records = env.from_batch([1]).map(Plus).collect()
    env.submit(autostop=True)
    assert records == [2]


def test_where_the_threads_of_a_job_are_is_told_with_their_python_stacks(reaper: Reaper) -> None:
    inside, go = threading.Event(), threading.Event()

    def stuck_here(n: int) -> int:
        inside.set()
        go.wait()
        return n

    env = LocalEnvironment("stuck")
    env.from_batch([1]).map(stuck_here).sink(print, name="told")
    env.submit()
    assert inside.wait(60)
    reaper.say({"figures": {"request": 7}})
    figures = reaper.until(lambda said: "figures" in said)["figures"]
    assert figures["request"] == 7
    threads = figures["figures"]["threads"]
    assert [thread for thread in threads if thread["stack"] and "in stuck_here" in thread["stack"]], threads
    assert not any(thread["name"] in ("sage-commands", "sage-changes", "sage-figures") for thread in threads)
    go.set()
    env.close()
