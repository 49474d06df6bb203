"""Faults of programs, workers and functions: kills, stops, forks, closed descriptors, strangers, too large records."""

from __future__ import annotations

import asyncio
import mmap
import os
import pickle
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from elsewhere import failed, no_processes, wait_for, workers  # noqa: F401 (fixtures)

from sage import BaseService, DeadLetterQueue, JobFailed, LocalEnvironment, MapFunction, Report, Retry, WorkerLost

pytest.importorskip("cloudpickle")
pytestmark = pytest.mark.usefixtures("no_processes")

#: Functions follow each other in a worker, or several records are in flight there.
BOTH = pytest.mark.parametrize("options", [{}, {"in_flight": 2}], ids=["chain", "in flight"])
SHORT = {"timeouts": {"drain": 0.5, "cancel": 1.0}}


def cancelled(env: LocalEnvironment, reached: Path) -> Report:
    """Cancels the job when this file is there."""
    job = env.submit()
    wait_for(reached)
    job.cancel()
    with pytest.raises(JobFailed) as raised:
        job.wait()
    assert raised.value.report.outcome == "cancelled" and raised.value.report.data["left"] == []
    return raised.value.report


# The program is killed.


def test_contract_20_a_program_that_is_killed_at_random_moments_leaves_nothing() -> None:
    program = [sys.executable, str(Path(__file__).with_name("kills.py")), "--runs", "20", "--seed", str(os.getpid())]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr


# Much data.


def megabytes(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * (1 << 20)


MUCH = """
from test_worker_faults import megabytes
from sage import LocalEnvironment

sums = [0, 0]

def note(record):
    sums[0] += 1
    sums[1] += record[0]

env = LocalEnvironment("much", workers="processes")
env.from_batch(megabytes(1000)).map(lambda record: record).sink(note, workers=None)
report = env.submit(autostop=True).report
assert sums == [1000, sum(number % 256 for number in range(1000))], sums
# `getrusage` would tell of whoever started this process as well.
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) >> 10, report.data["workers"][0]["peak_bytes"] >> 20)
"""


def test_a_thousand_records_of_a_megabyte_take_bounded_memory() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MUCH], capture_output=True, text=True, timeout=300, cwd=Path(__file__).parent
    )
    assert ran.returncode == 0, ran.stderr
    assert all(int(megabytes) < 350 for megabytes in ran.stdout.split()), ran.stdout


def test_batches_are_smaller_where_records_are_larger(workers: LocalEnvironment) -> None:
    """However fast they come."""
    held = list(megabytes(300))
    workers.from_batch(held).map(lambda record: record).sink(len, workers=None)
    report = workers.submit(autostop=True).report
    assert report.data["workers"][0]["peak_bytes"] < 150 << 20


def test_a_large_record_is_there_once_in_its_worker(workers: LocalEnvironment) -> None:
    large = bytes(256 << 20)
    records = workers.from_batch([large]).map(lambda record: record).collect()
    report = workers.submit(autostop=True).report
    assert records == [large]
    assert report.data["workers"][0]["peak_bytes"] < 350 << 20


class Huge:
    """Has more bytes than one frame may have, none of which takes memory."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce_ex__(self, _: Any) -> Any:
        with open(self.path, "r+b") as file:
            file.truncate(5 << 30)
            return len, (pickle.PickleBuffer(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)),)


class Grows(MapFunction):
    def __init__(self, path: str) -> None:
        self.path = path

    def execute(self, n: int) -> Any:
        return Huge(self.path) if n == 1 else n


@BOTH
def test_what_is_too_large_for_a_frame_is_refused_by_the_limit(tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "huge").touch()
    env = LocalEnvironment("record", workers="processes")
    env.from_batch([0, Huge(str(tmp_path / "huge"))]).map(lambda n: n, name="takes", **options).sink(id, workers=None)
    error = str(failed(env))
    assert "`takes`, record 2" in error and "at most 4,294,967,296" in error
    env = LocalEnvironment("first", workers="processes")
    given = [Huge(str(tmp_path / "huge")), 0, 1]
    env.from_batch(given).map(lambda n: n, name="takes", **options).sink(id, workers=None)
    assert "`takes`, record 1" in str(failed(env))
    env = LocalEnvironment("result", workers="processes")
    env.from_batch(range(3)).map(Grows, str(tmp_path / "huge"), name="grows", **options).sink(id, workers=None)
    error = str(failed(env))
    assert "`grows`" in error and "a result of type `Huge`" in error and "at most 4,294,967,296" in error
    env = LocalEnvironment("skipped", workers="processes")
    records = env.from_batch(range(3)).map(Grows, str(tmp_path / "huge"), on_error="skip", **options).collect()
    env.submit(autostop=True)
    assert records == [0, 2]


@BOTH
@pytest.mark.parametrize("retry", [None, Retry(2, 0.0)], ids=["at once", "retried"])
def test_what_cannot_be_sent_to_a_worker_is_an_error_of_its_record(
    workers: LocalEnvironment, tmp_path: Path, options: dict[str, Any], retry: Retry | None
) -> None:
    (tmp_path / "huge").touch()
    given = [0, Huge(str(tmp_path / "huge")), 2, lambda: 3, 4]
    dead = DeadLetterQueue()
    stream = workers.from_batch(given).map(lambda n: n, name="takes", on_error=dead, retry=retry, **options)
    records, letters = stream.collect(), dead.letters.map(tuple, workers=None).collect()
    report = workers.submit(autostop=True).report
    assert records == [0, 2, 4] and [letter[0] for letter in letters] == [given[1], given[3]]
    assert "at most 4,294,967,296" in str(letters[0]) and "pickle" in str(letters[1])
    (row,) = (row for row in report.data["operators"] if "takes" in row["name"])
    assert (row["failed"], row["retries"]) == (2, 0 if retry is None else 2)


def test_what_is_too_large_for_a_frame_together_is_not_alone(
    workers: LocalEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sage._wire.most_frame_bytes", 100_000)
    data = [bytes([n]) * 40_000 for n in range(6)]
    for options in ({}, {"on_error": "skip"}):
        records = workers.from_batch(data).map(lambda record: record, **options).collect()
        workers.submit(autostop=True)
        assert records == data


# A worker is stopped.


class Stops(MapFunction):
    """Stops its process in a function or in a hook, and tells which it is."""

    def __init__(self, told: str, where: str) -> None:
        self.told, self.where = Path(told), where
        self.stop("__init__")

    def stop(self, where: str) -> None:
        if where == self.where:
            self.told.with_suffix(".new").write_text(str(os.getpid()))
            self.told.with_suffix(".new").rename(self.told)
            # To this thread, which would go on for a while if another one took it.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def execute(self, n: int) -> int:
        self.stop("execute")
        return n

    def close(self) -> None:
        self.stop("close")


WHERE_IT_STOPS = pytest.mark.parametrize("where", ["__init__", "execute", "close"])


@BOTH
@WHERE_IT_STOPS
def test_a_worker_that_is_stopped_is_ended_by_a_cancel(tmp_path: Path, where: str, options: dict[str, Any]) -> None:
    env = LocalEnvironment("stopped", SHORT, workers="processes")
    env.from_batch([1]).map(Stops, str(tmp_path / "pid"), where, **options).collect()
    report = cancelled(env, tmp_path / "pid")
    assert [worker["end"] for worker in report.data["workers"]] == ["was killed by SIGKILL"]


@BOTH
def test_a_worker_that_is_stopped_is_ended_at_the_deadline(tmp_path: Path, options: dict[str, Any]) -> None:
    env = LocalEnvironment("stopped", SHORT, workers="processes")
    env.from_batch([1]).map(Stops, str(tmp_path / "pid"), "execute", **options).collect()
    job = env.submit()
    wait_for(tmp_path / "pid")
    job.drain()
    with pytest.raises(JobFailed) as raised:
        job.wait()
    report = raised.value.report
    assert report.data["left"] == [] and "the drain's deadline of 500ms has passed" in str(report)


@BOTH
@WHERE_IT_STOPS
def test_a_worker_that_goes_on_again_is_as_if_it_had_not_stopped(
    workers: LocalEnvironment, tmp_path: Path, where: str, options: dict[str, Any]
) -> None:
    records = workers.from_batch([1]).map(Stops, str(tmp_path / "pid"), where, **options).collect()
    job = workers.submit()
    wait_for(tmp_path / "pid")
    pid = int((tmp_path / "pid").read_text())
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)
    os.kill(pid, signal.SIGCONT)
    job.wait()
    assert records == [1] and job.report.outcome == "succeeded"


class HangsInClose(MapFunction):
    def __init__(self, reached: str) -> None:
        self.reached = reached

    def execute(self, n: int) -> int:
        return n

    def close(self) -> None:
        Path(self.reached).touch()
        while True:
            pass


@BOTH
def test_contract_14_a_close_that_hangs_is_ended_with_its_worker(tmp_path: Path, options: dict[str, Any]) -> None:
    env = LocalEnvironment("close", SHORT, workers="processes")
    records = env.from_batch([1]).map(HangsInClose, str(tmp_path / "closes"), **options).collect()
    report = cancelled(env, tmp_path / "closes")
    assert records == [1] and "was killed: a function had not closed 0.75 s after" in str(report)


# What is no worker of this job.


@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "null"])
@pytest.mark.parametrize("arguments", [[], ["service"], ["--help"]], ids=["none", "service", "help"])
def test_whoever_starts_a_worker_by_hand_is_told_what_it_is(is_terminal: bool, arguments: list[str]) -> None:
    ours, its = pty.openpty() if is_terminal else (-1, os.open(os.devnull, os.O_RDONLY))
    ran = subprocess.run(
        [sys.executable, "-m", "sage.worker", *arguments], stdin=its, capture_output=True, text=True, timeout=60
    )
    for descriptor in (ours, its):
        if descriptor != -1:
            os.close(descriptor)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("sage.worker: a job starts this program itself") and ran.stderr.count("\n") == 1


def test_a_worker_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, workers: LocalEnvironment) -> None:
    monkeypatch.setattr("sage._worker_process.version", "0.0.9")
    workers.from_batch([1]).map(lambda n: n, name="old").collect()
    error = failed(workers)
    assert "the worker of `old` (process " in str(error) and "of the package, and not 0.0.9" in str(error)
    assert error.report.data["left"] == []


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os, time; os.write(0, b'GET / HTTP/1.1' * 9); time.sleep(1000)", "this is no frame of version 2"),
        ("import os, time; os.write(0, bytes([2, 1]) + bytes([255] * 99)); time.sleep(1000)", "this is no frame"),
        ("pass", "ended with exit code 0"),
    ],
    ids=["garbage", "nearly a frame", "nothing"],
)
@BOTH
def test_what_does_not_speak_as_a_worker_is_refused(
    monkeypatch: pytest.MonkeyPatch, workers: LocalEnvironment, code: str, why: str, options: dict[str, Any]
) -> None:
    monkeypatch.setattr("sage._processes.command", lambda _="": [sys.executable, "-c", code])
    workers.from_batch([1]).map(lambda n: n, name="stranger", **options).collect()
    error = failed(workers)
    assert why in str(error) and "`stranger`" in str(error) and error.report.data["left"] == []


# Functions that fork.


def comes_back(n: int) -> int:
    if child := os.fork():
        os.waitpid(child, 0)
    return n


def raises_there(n: int) -> int:
    if (child := os.fork()) == 0:
        raise ValueError("of the child")
    os.waitpid(child, 0)
    return n


def exits_there(n: int) -> int:
    if (child := os.fork()) == 0:
        sys.exit(3)
    os.waitpid(child, 0)
    return n


async def comes_back_later(n: int) -> int:
    return comes_back(n)


def asks_there(n: int) -> int:
    if (child := os.fork()) == 0:
        print(f"the child of {n}")
        os._exit(0)
    os.waitpid(child, 0)
    return n


@pytest.mark.parametrize("function", [comes_back, raises_there, exits_there, asks_there, comes_back_later])
@pytest.mark.parametrize("options", [{}, {"in_flight": 2}, {"on_error": "skip"}], ids=["chain", "in flight", "policy"])
def test_no_record_is_doubled_by_a_fork(
    workers: LocalEnvironment, function: Callable[[int], Any], options: dict[str, Any]
) -> None:
    records = workers.from_batch(range(5)).map(function, **options).collect()
    report = workers.submit(autostop=True).report
    assert records == list(range(5)) and report.data["operators"][1]["failed"] == 0


class Counted(MapFunction):
    """Forks at its first record, and both processes come back; notes each record."""

    def __init__(self, log: str) -> None:
        self.log, self.first = log, True

    def execute(self, n: int) -> int:
        with open(self.log, "a") as file:
            file.write(f"{n}\n")
        if self.first:
            self.first = False
            return comes_back(n)
        return n


@pytest.mark.parametrize("options", [{}, {"on_error": "skip"}], ids=["chain", "policy"])
def test_a_process_that_was_forked_off_works_on_no_other_record(
    workers: LocalEnvironment, tmp_path: Path, options: dict[str, Any]
) -> None:
    workers.from_batch(range(500)).map(Counted, str(tmp_path / "log"), **options).collect()
    workers.submit(autostop=True)
    assert [int(line) for line in (tmp_path / "log").read_text().splitlines()] == list(range(500))


def lives_on(n: int) -> int:
    if os.fork() == 0:
        signal.pause()
    return n


def lives_on_and_ends(n: int) -> int:
    lives_on(n)
    os._exit(3)


def starts_and_ends(n: int) -> int:
    subprocess.Popen(["sleep", "1000"], close_fds=False)
    os._exit(3)


@BOTH
def test_a_process_that_was_forked_off_and_lives_on_is_killed_and_told(
    workers: LocalEnvironment, options: dict[str, Any]
) -> None:
    records = workers.from_batch(range(3)).map(lives_on, **options).collect()
    report = workers.submit(autostop=True).report
    assert records == [0, 1, 2] and "3 processes that workers had started and left was killed" in str(report)


@BOTH
@pytest.mark.parametrize("function", [lives_on_and_ends, starts_and_ends])
def test_the_end_of_a_worker_is_noticed_though_what_it_started_lives_on(
    workers: LocalEnvironment, function: Callable[[int], int], options: dict[str, Any]
) -> None:
    workers.from_batch([1]).map(function, **options).collect()
    error = failed(workers)
    assert isinstance(error.__cause__, WorkerLost) and "ended with exit code 3" in str(error.__cause__)
    assert "1 process that workers had started" in str(error.report) and error.report.data["left"] == []


# Functions that close descriptors.


def closes_all(n: int) -> int:
    os.closerange(0, 256)
    return n


async def closes_all_later(n: int) -> int:
    await asyncio.sleep(0.001)
    closes_all(n)
    await asyncio.sleep(0.001)
    return n


@BOTH
@pytest.mark.parametrize("function", [closes_all, closes_all_later], ids=["plain", "async"])
def test_a_worker_whose_descriptors_are_closed_is_lost(
    workers: LocalEnvironment, function: Callable[[int], Any], options: dict[str, Any]
) -> None:
    workers.from_batch(range(3)).map(function, on_error="skip", **options).collect()
    error = failed(workers)
    assert isinstance(error.__cause__, WorkerLost) and "ended with exit code 1" in str(error.__cause__)
    assert error.report.data["left"] == []


class Closes(BaseService):
    def process(self, n: int) -> int:
        return closes_all(n)


def test_a_service_whose_descriptors_are_closed_is_lost(workers: LocalEnvironment) -> None:
    closes = workers.service("closes", Closes, isolated=True)
    workers.from_batch([1]).map(lambda n: closes.process(n)).collect()
    error = failed(workers)
    assert "the process of service `closes`" in str(error) and "ended with exit code 1" in str(error)


def closes_streams(n: int) -> int:
    sys.stdout.close()
    sys.stderr.close()
    os.closerange(0, 3)
    print("still told", n)
    return n


@BOTH
def test_standard_streams_may_be_closed(
    workers: LocalEnvironment, options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    records = workers.from_batch([1, 2]).map(closes_streams, **options).collect()
    workers.submit(autostop=True)
    assert records == [1, 2] and capfd.readouterr().out.count("still told") == 2
