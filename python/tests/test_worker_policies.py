"""Error policies of functions in workers: what comes of each record is what comes of it on threads."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elsewhere import WHERE, failed, no_processes  # noqa: F401 (a fixture)

from sage import BaseService, DataStream, DeadLetterQueue, FlatMapFunction, LocalEnvironment, MapFunction, Retry, Skip
from sage import JobFailed, WorkerLost

pytest.importorskip("cloudpickle")

pytestmark = pytest.mark.usefixtures("no_processes")


def fail_at_sevens(n: int) -> int:
    if n % 7 == 3:
        raise ValueError(n)
    if n % 7 == 5:
        raise OSError(n)
    return n


class Second(MapFunction):
    """Works at the second attempt."""

    def __init__(self) -> None:
        self.tried: set[int] = set()

    def execute(self, n: int) -> int:
        if n % 50 == 3 and n not in self.tried:
            self.tried.add(n)
            raise ValueError(n)
        return n


class Pieces(FlatMapFunction):
    """Fails half-way."""

    def execute(self, n: int) -> None:
        self.collect(n)
        if n % 7 == 3:
            raise ValueError(n)
        self.collect(-n)


class Store(BaseService):
    def get(self, n: int) -> int:
        return fail_at_sevens(n)


class Asks(MapFunction):
    def execute(self, n: int) -> int:
        return int(self.call_service("store", n, method="get"))


def key_or_fail(n: int) -> Any:
    return [n] if n % 7 == 3 else n % 2


NOW = Retry(3, 0.0)
STEPS: dict[str, Callable[[DataStream, DeadLetterQueue], DataStream]] = {
    "skipped": lambda s, _: s.map(fail_at_sevens, name="step", on_error="skip"),
    "letters": lambda s, dead: s.map(fail_at_sevens, name="step", on_error=dead),
    "retried": lambda s, dead: s.map(fail_at_sevens, name="step", on_error=dead, retry=NOW),
    "retried for one": lambda s, dead: s.map(
        fail_at_sevens, name="step", on_error=dead, retry=Retry(2, 0.0, on=OSError)
    ),
    "second attempt": lambda s, _: s.map(Second, name="step", retry=NOW),
    "filter": lambda s, dead: s.filter(fail_at_sevens, name="step", on_error=dead),
    "flatmap": lambda s, dead: s.flatmap(Pieces, name="step", on_error=dead, retry=Retry(2, 0.0)),
    "keyby": lambda s, dead: s.keyby(key_or_fail, name="step", on_error=dead).count(),
    "split": lambda s, dead: s.split(fail_at_sevens, name="step", on_error=dead)[0],
    "service": lambda s, dead: s.map(Asks, name="step", on_error=dead, retry=Retry(2, 0.0)),
    "at most": lambda s, _: s.map(fail_at_sevens, name="step", on_error=Skip(at_most=20)),
    "then fails": lambda s, _: s.map(lambda n: fail_at_sevens(n - 1000), name="step", retry=NOW),
}


@pytest.mark.parametrize("which", STEPS)
def test_what_becomes_of_records_is_the_same(which: str) -> None:
    found = []
    for where in WHERE:
        env, dead = LocalEnvironment("policies", workers=where), DeadLetterQueue()
        env.register_service("store", Store)
        stream = STEPS[which](env.from_batch(range(1500)), dead)
        records = stream.collect()
        if which == "split":
            DataStream(env, stream._step, 1).collect()
        letters: list[Any] = []
        if dead._streams:
            letters = dead.letters.map(tuple).collect()
        try:
            report, error = env.submit(autostop=True).report, ""
        except JobFailed as raised:
            # What had come out by then is not the same.
            report, error, records = raised.report, str(raised), []
        counts = ("name", "records_in", "records_out", "failed", "retries") if not error else ("name", "retries")
        rows = [[row[count] for count in counts] for row in report.data["operators"] if "step" in row["name"]]
        rows = [[name.split(" → ")[0], *rest] for name, *rest in rows]
        found.append((records, [letter[:-1] for letter in letters], error.replace(" → collect", ""), rows[:1]))
    threads, processes = found
    assert processes == threads
    assert threads[0] or threads[2]


@pytest.mark.parametrize("where", WHERE, ids=["threads", "processes"])
def test_a_share_counts_from_the_thousandth_record_on(where: str | None) -> None:
    env = LocalEnvironment("share", workers=where)
    env.from_batch(range(1500)).map(fail_at_sevens, on_error=Skip(at_most_share=0.1)).collect()
    error = str(failed(env))
    assert "and the error policy allows 10 %" in error
    # On threads, it is looked at once for each block of records.
    record = int(error.split("record ")[1].split(":")[0])
    assert record in range(1000, 1500) if where is None else record == 1000


def test_a_result_that_cannot_be_pickled_is_its_records_failure() -> None:
    env, dead = LocalEnvironment("unsendable", workers="processes"), DeadLetterQueue()
    records = env.from_batch(range(4)).map(lambda n: (lambda: n) if n == 2 else n, on_error=dead).collect()
    letters = dead.letters.map(lambda letter: (letter.record, letter.errors[0])).collect()
    env.submit(autostop=True)
    assert records == [0, 1, 3] and len(letters) == 1
    assert letters[0][0] == 2 and "a result of type `function` cannot be pickled" in letters[0][1]


def kill_once(n: int) -> int:
    if n == 300 and not os.path.exists(os.environ["KILLED"]):
        Path(os.environ["KILLED"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return fail_at_sevens(n)


def test_another_worker_gets_what_was_not_answered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    env = LocalEnvironment("again", workers="processes")
    records = env.from_batch(range(1000)).map(
        kill_once, on_error="skip", retry=Retry(2, 0.0), on_worker_loss="restart"
    ).collect()
    report = env.submit(autostop=True).report
    assert records == [n for n in range(1000) if n % 7 not in (3, 5)]
    assert "took the place of 1 that were lost" in str(report)


def test_no_policy_lets_the_loss_of_a_worker_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    env = LocalEnvironment("lost", workers="processes")
    env.from_batch(range(1000)).map(kill_once, on_error="skip", retry=Retry(2, 0.0)).collect()
    error = failed(env)
    assert isinstance(error.__cause__, WorkerLost) and "it had the records" in str(error.__cause__)


def leave_at_five(n: int) -> int:
    if n == 5:
        raise SystemExit(4)
    return n


def test_a_function_that_exits_ends_the_job(tmp_path: Path) -> None:
    env = LocalEnvironment("exits", workers="processes")
    env.from_batch(range(100)).map(leave_at_five, on_error="skip").collect()
    with pytest.raises((SystemExit, JobFailed)):
        env.submit(autostop=True)
