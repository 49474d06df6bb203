"""What a job came to, pickled and copied, and brought home by pools of processes."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_tracker
from typing import Any, NoReturn

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, Report, Retry, ServiceError, Skip, StopSignal, SubmitError
from sage._pickling import RemoteCause


class Unreadable(Exception):
    """Can be written and not read."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


class Unwritable(Exception):
    def __reduce__(self) -> NoReturn:
        raise RuntimeError("never")


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("never")


def local() -> Exception:
    class Local(Exception):
        pass

    return Local("of a function")


def raises(kind: str) -> NoReturn:
    if kind == "unreadable":
        raise Unreadable("one", "other")
    if kind == "unwritable":
        raise Unwritable("kept")
    if kind == "silent":
        raise Silent from Unwritable("inner")
    if kind == "local":
        raise local()
    if kind == "lock":
        import threading

        raise ValueError("holds", threading.Lock())
    raise ValueError("plain") from KeyError("inner")


def failing(kind: str) -> Any:
    env = LocalEnvironment("pickled")
    env.from_batch([kind]).map(raises).collect()
    return env.submit(autostop=True)


def fails(kind: str) -> JobFailed:
    with pytest.raises(JobFailed) as failed:
        failing(kind)
    return failed.value


CAUSES = {
    "unreadable": (RemoteCause, "Unreadable: one and other"),
    "unwritable": (RemoteCause, "Unwritable: kept"),
    "silent": (Silent, None),
    "local": (RemoteCause, "local.<locals>.Local: of a function"),
    "lock": (RemoteCause, "ValueError: ('holds'"),
    "plain": (ValueError, "plain"),
}


def check(failed: BaseException, kind: str) -> None:
    assert type(failed) is JobFailed and "record 1: in `raises`" in str(failed)
    assert failed.report.outcome == "failed" and "NOT" not in str(failed.report)
    expected, text = CAUSES[kind]
    cause = failed.__cause__
    assert type(cause) is expected
    if text is not None:
        assert str(cause).startswith(text)
    if isinstance(cause, RemoteCause):
        assert "in raises" in cause.traceback_text
    if kind == "plain":
        assert isinstance(cause, BaseException) and isinstance(cause.__cause__, KeyError)
    if kind == "silent":
        assert isinstance(cause, BaseException) and str(cause.__cause__) == "Unwritable: inner"


@pytest.mark.parametrize("kind", CAUSES)
def test_a_failure_is_pickled_and_copied(kind: str) -> None:
    failed = fails(kind)
    brought = pickle.loads(pickle.dumps(failed))
    check(brought, kind)
    check(pickle.loads(pickle.dumps(brought)), kind)
    for copied in (copy.copy(failed), copy.deepcopy(failed)):
        assert type(copied) is JobFailed and str(copied) == str(failed)
        assert copied.__cause__ is failed.__cause__ and copied.report is failed.report


@pytest.fixture(scope="module", autouse=True)
def tracker() -> Iterator[None]:
    """Pools start a process beside their own, which lives as long as the program."""
    resource_tracker.ensure_running()
    yield
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def test_failures_come_out_of_a_pool() -> None:
    pool = multiprocessing.get_context("spawn").Pool(1)
    for kind in CAUSES:
        with pytest.raises(JobFailed) as failed:
            pool.apply_async(failing, (kind,)).get(timeout=60)
        check(failed.value, kind)
    pool.close()
    pool.join()
    # Its pipes are closed when it is released.
    del pool, failed
    gc.collect()


def test_a_failure_comes_out_of_an_executor() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        with pytest.raises(JobFailed) as failed:
            executor.submit(failing, "plain").result(timeout=60)
        check(failed.value, "plain")
        cause = failed.value.__cause__
        # Where it was raised is told behind it.
        assert cause is not None and cause.__cause__ is not None and "in raises" in str(cause.__cause__.__cause__)


def test_an_id_tells_in_another_process_what_its_job_came_to() -> None:
    env = LocalEnvironment("id")
    env.from_batch([1, 2]).map(lambda number: number).collect()
    job = env.submit(autostop=True)
    assert copy.copy(job) is job and copy.deepcopy({"job": job})["job"] is job
    for brought in (pickle.loads(pickle.dumps(job)), pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(job))))):
        assert brought == job and brought.state == "ended"
        assert isinstance(brought.report, Report) and brought.report.outcome == "succeeded"
        assert str(brought.wait()) == str(job.report)
        with pytest.raises(RuntimeError, match="belongs to another process, where it was ended"):
            brought.cancel()
    env = LocalEnvironment("failed")
    env.from_batch(["plain"]).map(raises).collect()
    job = env.submit()
    assert job.report.outcome == "failed"
    with pytest.raises(JobFailed) as failed:
        pickle.loads(pickle.dumps(job)).wait()
    check(failed.value, "plain")
    with pytest.raises(JobFailed):
        job.wait()


def test_an_id_of_a_job_that_runs_says_so() -> None:
    env = LocalEnvironment("runs")
    env.from_source(lambda: None).sink(print)
    job = env.submit()
    brought = pickle.loads(pickle.dumps(job))
    env.stop()
    for use in (brought.wait, brought.drain, lambda: brought.report):
        with pytest.raises(RuntimeError, match="belongs to another process"):
            use()


def test_reports_errors_and_values_are_pickled_and_copied() -> None:
    env = LocalEnvironment("values")
    env.from_batch([1, 2]).map(lambda number: number).filter(bool).collect()
    report = env.submit(autostop=True).report
    for copied in (pickle.loads(pickle.dumps(report)), copy.copy(report), copy.deepcopy(report)):
        assert str(copied) == str(report) and copied.data == report.data and copied.functions == report.functions
    for error in (SubmitError("no"), ServiceError("not there")):
        assert type(pickle.loads(pickle.dumps(error))) is type(error)
    for value in (Retry(2), Skip(1)):
        assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)
    assert pickle.loads(pickle.dumps(StopSignal("end"))).name == "end"


class Db(BaseService):
    def get(self) -> int:
        return 1


def test_what_belongs_to_its_process_says_so() -> None:
    env = LocalEnvironment("kept")
    db = env.service("db", Db)
    assert copy.copy(db) is db and copy.deepcopy(db) is db
    stream = env.from_batch([1])
    for value, what in ((db, "handle of service db"), (env, "environment `kept`"), (stream, "environment `kept`")):
        with pytest.raises(TypeError, match=f"{what}.* cannot be pickled"):
            pickle.dumps(value)
    stream.collect()
