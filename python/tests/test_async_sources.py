"""Async generators and async iterables as sources."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sage import DataStream, JobFailed, LocalEnvironment, SourceFunction, StopSignal


async def counted(most: int) -> AsyncIterator[int]:
    for n in range(most):
        if n % 3:
            await asyncio.sleep(0)
        yield n


def collected(begin: Any) -> list[Any]:
    env = LocalEnvironment("later")
    stream: DataStream = begin(env)
    records = stream.collect()
    env.submit(autostop=True)
    return records


class Countdown:
    """An async iterable that can be gone through again."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __aiter__(self) -> AsyncIterator[int]:
        return counted(self.most)


def test_records_come_in_their_order_and_none_is_lost() -> None:
    assert collected(lambda env: env.from_batch(counted(1000))) == list(range(1000))
    assert collected(lambda env: env.from_batch(Countdown(10)).map(lambda n: n + 1)) == list(range(1, 11))
    assert collected(lambda env: env.from_batch(counted(0))) == []
    assert collected(lambda env: env.from_source(lambda_of_ten)) == list(range(10))


async def lambda_of_ten() -> AsyncIterator[int]:
    for n in range(10):
        yield n


async def odd_values() -> AsyncIterator[Any]:
    for value in (None, 0, "", False, [], StopAsyncIteration):
        yield value


def test_values_are_data_and_a_stop_signal_ends() -> None:
    assert collected(lambda env: env.from_batch(odd_values())) == [None, 0, "", False, [], StopAsyncIteration]

    async def stops() -> AsyncIterator[Any]:
        yield 1
        yield StopSignal()
        yield 2

    assert collected(lambda env: env.from_source(stops)) == [1]


def test_a_function_begins_anew_in_each_job_and_a_generator_is_read_once() -> None:
    for begin in (lambda env: env.from_source(lambda_of_ten), lambda env: env.from_batch(Countdown(10))):
        env = LocalEnvironment("again")
        records = begin(env).collect()
        env.submit(autostop=True)
        env.submit(autostop=True)
        assert records == [*range(10)] * 2
    env = LocalEnvironment("once")
    env.from_batch(counted(3)).collect()
    env.submit(autostop=True)
    with pytest.raises(Exception, match="can be read once, and an earlier job has read it"):
        env.submit(autostop=True)


def test_no_record_is_asked_for_before_it_is_wanted() -> None:
    seen, behind = threading.Event(), []

    async def notes() -> AsyncIterator[int]:
        yield 1
        behind.append(True)
        yield 2

    env = LocalEnvironment("wanted")
    env.from_batch(notes(), delay=3600).sink(lambda n: seen.set())
    env.submit()
    assert seen.wait(60)
    env.stop()
    assert behind == []


def test_all_of_it_is_one_task_on_the_loop_of_the_job() -> None:
    told, value = set[Any](), contextvars.ContextVar("value", default=0)

    async def generator() -> AsyncIterator[int]:
        value.set(5)
        try:
            async with asyncio.timeout(3600) if hasattr(asyncio, "timeout") else _Nothing():
                for n in range(3):
                    told.add((asyncio.current_task(), asyncio.get_running_loop(), value.get()))
                    yield n
        finally:
            told.add((asyncio.current_task(), asyncio.get_running_loop(), value.get()))

    for most in (5, 2):  # to its end, or closed before that
        told.clear()
        assert collected(lambda env, most=most: env.from_batch(generator()).take(most)) == [0, 1, 2][:most]
        assert len(told) == 1 and {number for _, _, number in told} == {5}


class _Nothing:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("fails", [ValueError("late"), StopIteration("odd"), asyncio.CancelledError(), KeyError])
def test_what_it_raises_fails_the_job_and_it_is_closed(fails: Any) -> None:
    closed = []

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(0)
            raise fails
        finally:
            closed.append(True)

    with pytest.raises(JobFailed, match="generator|batch"):
        collected(lambda env: env.from_batch(generator(), name="generator"))
    assert closed == [True]


@pytest.mark.parametrize("how", ["drain", "cancel", "pause"])
@pytest.mark.parametrize("has_given", [False, True])
def test_it_is_closed_at_once_when_the_job_is_stopped(how: str, has_given: bool) -> None:
    waits, closed, seen = threading.Event(), [], list[int]()

    async def endless() -> AsyncIterator[int]:
        try:
            if has_given:
                yield 1
            waits.set()
            await asyncio.Event().wait()
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(asyncio.get_running_loop())

    env = LocalEnvironment("stopped")
    env.from_batch(endless()).sink(seen.append)
    job = env.submit()
    assert waits.wait(60)
    if how == "pause":
        job.pause()
        job.resume()
    if how == "cancel":
        job.cancel()
        with pytest.raises(JobFailed, match="cancelled"):
            job.wait()
    else:
        env.stop()
    assert len(closed) == 1 and (seen == [1] * has_given or (how, seen) == ("cancel", []))
    assert job.report is not None and not job.report.data["left"]


def test_it_is_closed_when_nothing_more_is_wanted() -> None:
    closed = []

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    assert collected(lambda env: env.from_batch(endless()).take(3)) == [1, 1, 1] and closed == [True]


def test_tasks_that_it_leaves_are_waited_for() -> None:
    events = []

    async def leaves() -> AsyncIterator[int]:
        async def task() -> None:
            await asyncio.sleep(0.01)
            events.append("task")

        asyncio.create_task(task())
        yield 1

    assert collected(lambda env: env.from_batch(leaves())) == [1] and events == ["task"]


class Client:
    """An async iterator that was made for `async with`."""

    closed = 0

    def __aiter__(self) -> Client:
        return self

    async def __anext__(self) -> int:
        return 1

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def aclose(self) -> None:
        self.closed += 1


class Given:
    """One that is none of `async with`."""

    closed = 0

    def __aiter__(self) -> Given:
        return self

    async def __anext__(self) -> int:
        return 1

    async def aclose(self) -> None:
        self.closed += 1


def test_what_was_given_is_closed_and_what_was_lent_is_not() -> None:
    client, given = Client(), Given()
    assert collected(lambda env: env.from_batch(client).take(2)) == [1, 1] and client.closed == 0
    assert collected(lambda env: env.from_batch(given).take(2)) == [1, 1] and given.closed == 1


def test_an_end_that_hangs_is_named_and_holds_nothing_up() -> None:
    env = LocalEnvironment("hangs", config={"timeouts": {"cancel": 0.5, "drain": 0.5, "cleanup": 0.5}})
    waits, gone_on = threading.Event(), threading.Event()

    async def hangs() -> AsyncIterator[int]:
        try:
            waits.set()
            await asyncio.Event().wait()
            yield 1
        finally:
            while not gone_on.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    pass

    env.from_batch(hangs()).collect()
    job = env.submit()
    assert waits.wait(60)
    job.cancel()
    with pytest.raises(JobFailed) as failed:
        job.wait()
    assert job.report is not None and job.report.data["left"]
    assert "hangs" in str(failed.value), failed.value
    gone_on.set()


def test_delays_and_other_steps_work_as_with_any_source() -> None:
    assert collected(lambda env: env.from_batch(counted(3), delay=0.001)) == [0, 1, 2]
    env = LocalEnvironment("several")
    both = env.from_batch(counted(100)).connect(env.from_batch(counted(10))).map(lambda n: n)
    sums = both.keyby(lambda n: n % 2).sum().collect()
    env.submit(autostop=True)
    assert sorted(sums) == [(0, 2450 + 20), (1, 2500 + 25)]


async def one() -> int:
    return 1


class Later(SourceFunction):
    async def execute(self) -> int:  # type: ignore[override]
        return 1


def test_what_is_no_source_is_refused() -> None:
    env = LocalEnvironment("refused")
    with pytest.raises(TypeError, match="`from_batch` needs.*pass what `counted` returns, by calling it"):
        env.from_batch(counted)
    with pytest.raises(TypeError, match="`lambda_of_ten` is a generator, which cannot go on.*no `retry`"):
        env.from_source(lambda_of_ten, retry=2)
    for function in (one, Later):
        with pytest.raises(TypeError, match="is async, and `from_source` awaits nothing"):
            env.from_source(function)


INTERRUPTED = """
import asyncio, sys
from sage import LocalEnvironment

async def endless():
    try:
        while True:
            yield 1
            print("begun", flush=True)
            await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("closed", flush=True)

env = LocalEnvironment("interrupted")
env.from_batch(endless()).collect()
env.submit(autostop=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_closed_when_a_signal_ends_the_job(number: int) -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None and program.stdout.readline() == "begun\n"
    program.send_signal(number)
    out, errors = program.communicate(timeout=60)
    assert out == "closed\n" and program.returncode in (-number, 128 + number), errors
