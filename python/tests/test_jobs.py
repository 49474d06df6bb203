"""Jobs in the background and under asyncio: ids that wait for them and steer them; environments that are used again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, MapFunction, SubmitError
from sage import _running


class Feed:
    """A source that gives a record when it is told to, and says what it sees."""

    def __init__(self) -> None:
        self.more = threading.Semaphore(0)
        self.seen = threading.Semaphore(0)
        self.records: list[int] = []
        self.env = LocalEnvironment("fed")
        self.env.from_source(self.next).sink(self.take)

    def next(self) -> int | None:
        return 1 if self.more.acquire(timeout=0.005) else None

    def take(self, record: int) -> None:
        self.records.append(record)
        self.seen.release()

    def give(self) -> None:
        self.more.release()


def test_an_id_steers_its_job() -> None:
    feed = Feed()
    job = feed.env.submit()
    assert isinstance(job, str) and feed.env.job == job
    feed.give()
    feed.seen.acquire()
    assert job.state == "running" and job.wait(0.01) is None and job.wait(0) is None
    job.pause()
    while job.state != "paused":
        pass
    for _ in range(10):
        feed.give()
    assert job.wait(0.05) is None
    assert len(feed.records) <= 2  # one that the source was being asked for already
    job.resume()
    while len(feed.records) < 11:
        feed.seen.acquire()
    job.drain()
    report = job.wait()
    assert report is not None and report.outcome == "succeeded" and job.state == "ended"
    assert feed.records == [1] * 11
    job.cancel()  # nothing any more
    assert str(feed.env.wait()) == str(report)


def test_an_id_cancels_its_job_and_tells_so() -> None:
    feed = Feed()
    job = feed.env.submit()
    job.cancel()
    with pytest.raises(JobFailed, match="cancelled") as failed:
        job.wait()
    assert failed.value.report.outcome == job.report.outcome == "cancelled"


def test_waiting_raises_from_the_functions_own_exception() -> None:
    env = LocalEnvironment("fails")
    mine = ValueError("mine")

    def fail(_: int) -> None:
        raise mine

    env.from_batch([1]).sink(fail)
    job = env.submit()
    for wait in (job.wait, env.wait):
        with pytest.raises(JobFailed) as failed:
            wait()
        assert failed.value.__cause__ is mine
    env.close()  # the failure was told


def test_a_failure_in_the_background_is_told_at_the_end_of_the_block() -> None:
    with pytest.raises(JobFailed), LocalEnvironment("unseen") as env:
        env.from_batch([0]).sink(lambda n: 1 / n)
        job = env.submit()
        while job.state != "ended":
            pass


def test_a_job_that_only_its_report_was_asked_of_is_let_go() -> None:
    env = LocalEnvironment("reported")
    env.from_batch([1]).sink(print)
    job = env.submit()
    assert job._run in _running._running
    assert job.report.outcome == "succeeded"
    assert job._run not in _running._running


def test_a_job_that_nobody_asks_of_is_let_go_with_the_next() -> None:
    env = LocalEnvironment("forgotten")
    env.from_batch([1]).sink(lambda _: None)
    first = env.submit()
    while first.state != "ended":
        pass
    other = LocalEnvironment("next")
    other.from_batch([1]).sink(lambda _: None)
    # Its state says so a moment before its last thread has ended.
    while first._run in _running._running:
        other.submit(autostop=True)


def test_submitting_while_it_runs_is_refused() -> None:
    feed = Feed()
    job = feed.env.submit()
    with pytest.raises(RuntimeError, match="is running; wait for it, or stop it"):
        feed.env.submit()
    feed.env.stop()
    assert job.report.outcome == "succeeded"


def test_an_environment_runs_again_when_its_sources_can() -> None:
    seen: list[int] = []
    env = LocalEnvironment("again")
    env.from_batch([1, 2]).sink(seen.append)
    assert env.submit(autostop=True) != env.submit(autostop=True)
    assert seen == [1, 2, 1, 2]

    once = LocalEnvironment("once")
    once.from_batch(iter([1]), name="numbers").sink(seen.append)
    once.submit(autostop=True)
    with pytest.raises(SubmitError, match="`numbers`.*can be read once"):
        once.submit()


class Totals(BaseService):
    def setup(self) -> None:
        self.total = 0

    def add(self, n: int) -> int:
        self.total += n
        return self.total


class Added(MapFunction):
    def execute(self, n: int) -> Any:
        return self.call_service("totals", n, method="add")


def test_after_close_another_pipeline_may_be_declared_and_the_old_streams_say_that_they_are_closed() -> None:
    env = LocalEnvironment("again")
    env.register_service("totals", Totals)
    stream = env.from_batch([1, 2], name="numbers")
    first = stream.map(lambda n: n).collect()
    env.submit(autostop=True)
    env.close()
    assert (first, env.pipeline, env.env_uuid) == ([1, 2], [], None)
    late: list[Any] = [
        lambda: stream.map(str),
        lambda: stream.keyby(len).count(),
        lambda: stream.connect(stream).map(str),
    ]
    for use in late:
        with pytest.raises(RuntimeError, match="the stream of `numbers` was closed with its pipeline; begin a new"):
            use()
    assert env.pipeline == []
    second = env.from_batch([3], name="numbers").map(Added).collect()
    assert [step.name for step in env.pipeline] == ["numbers", "Added", "collect"], "names begin anew"
    env.submit(autostop=True)
    assert (first, second) == ([1, 2], [3]), "services stay registered"
    env.close()
    with pytest.raises(SubmitError, match="`again` has no pipeline"):
        env.submit()


def test_a_job_is_awaited_while_the_loop_goes_on() -> None:
    feed = Feed()

    async def give() -> None:
        feed.give()
        while not feed.records:
            await asyncio.sleep(0)
        job = feed.env.job
        assert job is not None
        job.drain()

    async def program() -> str:
        job, _ = await asyncio.gather(feed.env.submit_async(), give())
        assert job.state == "ended" and job.report.outcome == "succeeded"
        return job

    assert asyncio.run(program()) == feed.env.job


def test_an_awaited_job_raises_as_submit_does() -> None:
    async def program() -> None:
        env = LocalEnvironment("awaited")
        env.from_batch([0]).sink(lambda n: 1 / n)
        await env.submit_async()

    with pytest.raises(JobFailed) as failed:
        asyncio.run(program())
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


@pytest.fixture
def cleaned() -> Iterator[list[str]]:
    Cleaned.seen.clear()
    yield Cleaned.seen


class Cleaned(BaseService):
    seen: list[str] = []

    def cleanup(self) -> None:
        self.seen.append("cleaned")


def test_cancelling_the_awaiting_task_cancels_the_job_and_waits_for_its_cleanup(cleaned: list[str]) -> None:
    feed = Feed()
    feed.env.register_service("cleaned", Cleaned)

    async def program() -> None:
        task = asyncio.ensure_future(feed.env.submit_async())
        feed.give()
        while not feed.records:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == ["cleaned"]
        assert feed.env.job is not None and feed.env.job.report.outcome == "cancelled"

    asyncio.run(program())
