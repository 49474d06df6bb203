"""The end of functions: each is closed once, the last of a task first, and an exception there fails the job."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sage import (
    BaseCoMapFunction,
    FilterFunction,
    FlatMapFunction,
    JobFailed,
    LocalEnvironment,
    MapFunction,
    SinkFunction,
)

closed: list[str] = []


class First(MapFunction):
    def execute(self, record: int) -> int:
        return record

    def close(self) -> None:
        closed.append("first")


class Second(FilterFunction):
    def execute(self, record: int) -> bool:
        return True

    def close(self) -> None:
        closed.append("second")


class Third(FlatMapFunction):
    def execute(self, record: int) -> list[int]:
        return [record]

    def close(self) -> None:
        closed.append("third")


class Last(SinkFunction):
    def execute(self, record: int) -> None:
        pass

    def close(self) -> None:
        closed.append("last")


class Fails(First):
    def execute(self, record: int) -> int:
        raise LookupError(f"no {record}")


@pytest.fixture(autouse=True)
def forget() -> None:
    closed.clear()


def test_functions_of_one_task_are_closed_the_last_first() -> None:
    env = LocalEnvironment("order")
    env.from_batch([1, 2]).map(First).filter(Second).flatmap(Third).sink(Last)
    env.submit(autostop=True)
    assert closed == ["last", "third", "second", "first"]


def test_and_so_they_are_after_a_failure() -> None:
    env = LocalEnvironment("order")
    env.from_batch([1, 2]).map(Fails).filter(Second).sink(Last)
    with pytest.raises(JobFailed, match="LookupError: no 1"):
        env.submit(autostop=True)
    assert closed == ["last", "second", "first"]


def raising(kind: type, text: str) -> type:
    """A function class whose ``close`` raises."""

    def close(self: Any) -> None:
        closed.append(text)
        raise OSError(text)

    return type("Raising", (kind,), {"close": close})


@pytest.mark.parametrize("kind", [First, Second, Third, Last])
def test_an_exception_of_close_fails_the_job_and_closes_the_others(kind: type) -> None:
    kinds = [raising(each, "stuck") if each is kind else each for each in (First, Second, Third, Last)]
    env = LocalEnvironment("raises")
    env.from_batch([1]).map(kinds[0]).filter(kinds[1]).flatmap(kinds[2]).sink(kinds[3])
    with pytest.raises(JobFailed, match="OSError: stuck") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, OSError)
    assert len(closed) == 4 and "stuck" in closed
    report = failed.value.report
    assert report is not None and "while closing" in str(report)


def test_of_several_exceptions_the_first_that_came_is_the_cause() -> None:
    env = LocalEnvironment("raises")
    env.from_batch([1]).map(raising(First, "first")).filter(raising(Second, "second")).sink(Last)
    with pytest.raises(JobFailed, match="OSError: second"):
        env.submit(autostop=True)
    assert closed == ["last", "second", "first"]


def test_an_exception_of_close_is_no_less_where_the_function_is_not_in_a_loop() -> None:
    class Both(BaseCoMapFunction):
        def map0(self, record: int) -> int:
            return record

        def map1(self, record: int) -> int:
            return record

    class Awaited(MapFunction):
        async def execute(self, record: int) -> int:
            return record

    for declare in (
        lambda env: env.from_batch([1]).connect(env.from_batch([2])).comap(raising(Both, "stuck")).sink(Last),
        lambda env: env.from_batch([1]).map(raising(Awaited, "stuck")).sink(Last),
        lambda env: env.from_batch([1]).keyby(raising(First, "stuck")).map(First).sink(Last),
    ):
        closed.clear()
        env = LocalEnvironment("raises")
        declare(env)
        with pytest.raises(JobFailed, match="OSError: stuck"):
            env.submit(autostop=True)
        assert closed.count("stuck") == closed.count("last") == 1


_AT_RETURN = """
import os
from sage import BaseService, LocalEnvironment
class Service(BaseService):
    pass
async def later(record):
    return record
def job():
    env = LocalEnvironment("x")
    env.register_service("s", Service)
    env.from_batch(range(10)).map(lambda record: record, parallelism=2).map(later).sink(lambda record: None)
    env.submit(autostop=True)
def now():
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
job(); job()
before, more = now(), []
for _ in range(200):
    job()
    if now() != before:
        more.append(now())
print(before, more)
"""


def test_contract_24_nothing_is_left_at_the_very_return() -> None:
    # Others keep the machine busy meanwhile, so that a thread that is ending is seen to do so.
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        command = [sys.executable, "-c", _AT_RETURN]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert told.stdout.strip().endswith(" []"), told.stdout
