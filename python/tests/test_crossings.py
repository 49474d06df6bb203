"""Methods of services as functions of steps: the loop of a chain calls them itself, and each is a call like others."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, ServiceHandle, SinkFunction


class Numbers(BaseService):
    """Knows its callers' numbers."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def half(self, n: int) -> Any:
        self.seen.append(n)
        if n < 0:
            raise ValueError(f"{n} is negative")
        return n // 2

    def pair(self, n: int) -> list[int]:
        return [self.half(n), n]


#: How a step has a method as its function, and what it gives of the numbers 0 to 4.
STEPS: dict[str, tuple[Callable[[Any, Any], Any], list[Any]]] = {
    "map": (lambda stream, numbers: stream.map(numbers.half).collect(), [0, 0, 1, 1, 2]),
    "filter": (lambda stream, numbers: stream.filter(numbers.half).collect(), [2, 3, 4]),
    "flatmap": (lambda stream, numbers: stream.flatmap(numbers.pair).collect(), [0, 0, 0, 1, 1, 2, 1, 3, 2, 4]),
    "keyby": (lambda stream, numbers: stream.keyby(numbers.half).count().collect(), [(0, 2), (1, 2), (2, 1)]),
    "sum": (lambda stream, numbers: stream.keyby(bool).sum(numbers.half).collect(), [(False, 0), (True, 4)]),
    "dropped": (lambda stream, numbers: stream.map(numbers.half, keep_none=False).collect(), [0, 0, 1, 1, 2]),
}


def figures(report: Any) -> tuple[int, int]:
    """The calls of the service, and how many of them raised."""
    told = report.services["numbers"]
    return told["calls"], told["errors"]


@pytest.mark.parametrize("step", STEPS)
def test_each_step_calls_the_method_once_for_each_record(step: str) -> None:
    make, expected = STEPS[step]
    env = LocalEnvironment("steps")
    results = make(env.from_batch(range(5)), env.service("numbers", Numbers))
    report = env.submit(autostop=True).report
    assert list(results) == expected
    assert figures(report) == (5, 0)


def test_a_sink_may_be_a_method() -> None:
    env = LocalEnvironment("sink")
    seen: list[int] = []
    env.from_batch(range(300)).sink(env.service("seen", lambda: seen).append)
    told = env.submit(autostop=True).report.services["seen"]
    assert seen == list(range(300))
    assert told["calls"] == 300 and told["p99"] is not None, "some of the calls are timed"


@pytest.mark.parametrize("step", ["map", "filter", "flatmap", "sink"])
def test_what_a_method_raises_is_an_error_of_its_call(step: str) -> None:
    env = LocalEnvironment("raises")
    numbers = env.service("numbers", Numbers)
    method = numbers.pair if step == "flatmap" else numbers.half
    stream = getattr(env.from_batch([3, -1, 4, -2, 5]), step)(method, on_error="skip")
    if step != "sink":
        stream.collect()
    assert figures(env.submit(autostop=True).report) == (5, 2)


def test_the_first_exception_fails_the_job_and_names_step_and_record() -> None:
    env = LocalEnvironment("fails")
    numbers = env.service("numbers", Numbers)
    env.from_batch([1, 2, -3, 4]).map(numbers.half, name="halves").map(lambda n: n).collect()
    with pytest.raises(JobFailed, match="halves.*record 3") as failed:
        env.submit(autostop=True)
    cause = failed.value.__cause__
    assert isinstance(cause, ValueError)
    names = [frame.name for frame in traceback.extract_tb(cause.__traceback__)]
    assert names == ["run", "half"], "as if the loop of the chain were a program's own"
    assert figures(failed.value.report) == (3, 1)


def test_a_method_that_is_gone_meanwhile_is_an_error_that_names_those_close() -> None:
    class Odd(BaseService):
        def __init__(self) -> None:
            self.take = self._take

        def taken(self, n: int) -> int:
            return n

        def _take(self, n: int) -> int:
            if n == 2:
                del self.take
            return n

    env = LocalEnvironment("gone")
    env.from_batch([1, 2, 3]).map(env.service("odd", Odd).take).collect()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert str(failed.value.__cause__) == "`Odd` has no method `take`; did you mean one of these: taken?"
    assert failed.value.report.services["odd"]["errors"] == 1


def test_a_coroutine_that_comes_unasked_is_one_of_the_engines() -> None:
    class Late(BaseService):
        async def later(self, n: int) -> int:
            return n

        def now(self, n: int) -> Any:
            return n if n < 2 else self.later(n)

    env = LocalEnvironment("coroutines")
    late = env.service("late", Late)
    made: list[str] = []

    def close(result: Any) -> Any:
        if not isinstance(result, int):
            made.append(result.cr_code.co_name)
            result.close()
        return None

    env.from_batch([0, 1, 2]).map(late.now).sink(close)
    env.submit(autostop=True)
    assert made == ["counted"], "the engine knows how long it is awaited"


def test_a_use_by_such_a_call_is_noticed_and_one_behind_it_is_not() -> None:
    events: list[str] = []

    class Inner(BaseService):
        def same(self, n: int) -> int:
            return n

        def cleanup(self) -> None:
            events.append(f"{self.name} cleaned")

    class Outer(Inner):
        def twice(self, n: int) -> int:
            if n == 1:
                raise ValueError
            return 2 * int(inner.same(n))

    env = LocalEnvironment("uses")
    outer, inner = env.service("outer", Outer), env.service("inner", Inner)
    # What functions behind it call, the service does not use, also where its own call has failed: that would be a
    # cycle.
    other = env.service("other", Inner, after=[outer])
    results = env.from_batch(range(4)).map(outer.twice, on_error="skip").map(lambda n: other.same(n)).collect()
    env.submit(autostop=True)
    assert results == [0, 4, 6]
    assert events == ["other cleaned", "outer cleaned", "inner cleaned"]


def test_contract_07a_a_task_that_was_given_up_gets_no_more_from_the_service() -> None:
    arrived, goes_on, ended = threading.Event(), threading.Event(), threading.Event()
    seen: list[int] = []

    class Slow(BaseService):
        def process(self, n: int) -> int:
            if n == 3:
                arrived.set()
                goes_on.wait()
            return n

        def again(self, n: int) -> int:
            seen.append(n)
            return n

    class Behind(SinkFunction):
        def execute(self, n: int) -> None:
            pass

        def close(self) -> None:
            ended.set()

    env = LocalEnvironment("given-up", config={"timeouts": {"cancel": 0.3, "stop": 0.3, "cleanup": 0.3}})
    slow = env.service("slow", Slow)
    env.from_batch(range(10)).map(slow.process).map(slow.again).sink(Behind)
    job = env.submit()
    assert arrived.wait(20)
    job.cancel()
    with pytest.raises(JobFailed) as failed:
        job.wait()
    assert failed.value.report.services["slow"]["state"] == "abandoned"
    goes_on.set()
    assert ended.wait(20)
    assert seen == [0, 1, 2], "the record that came back late is worked on by no service any more"


def test_a_handle_gives_the_method_it_was_asked_for() -> None:
    env = LocalEnvironment("asked")
    numbers = env.service("numbers", Numbers)
    assert isinstance(numbers, ServiceHandle)
    for name in ("half", "pair", "half", "".join(["ha", "lf"]), "pair"):
        assert getattr(numbers, name).__name__ == name
    assert numbers.half is numbers.half is vars(numbers)["half"]
