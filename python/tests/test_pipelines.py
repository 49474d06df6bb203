"""What pipelines compute."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sage import (
    BatchFunction,
    FilterFunction,
    FlatMapFunction,
    JobFailed,
    LocalEnvironment,
    MapFunction,
    SinkFunction,
    SourceFunction,
    StopSignal,
    SubmitError,
)


class Count(BatchFunction):
    def __init__(self, most: int) -> None:
        self.n = 0
        self.most = most

    def execute(self) -> int | None:
        if self.n == self.most:
            return None
        self.n += 1
        return self.n


class Endless(SourceFunction):
    def __init__(self) -> None:
        self.n = 0

    def execute(self) -> Any:
        self.n += 1
        return StopSignal("enough") if self.n > 7 else self.n


class Times(MapFunction):
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def execute(self, n: int) -> int:
        return n * self.factor


class Even(FilterFunction):
    def execute(self, n: int) -> bool:
        return n % 2 == 0


class Twice(FlatMapFunction):
    def execute(self, n: int) -> None:
        self.collect(n)
        self.collect(n)


closed: list[str] = []


class Keep(SinkFunction):
    def __init__(self, kept: list[Any]) -> None:
        self.kept = kept

    def execute(self, record: Any) -> None:
        self.kept.append((self.name, record))

    def close(self) -> None:
        closed.append(self.name)


def test_classes_and_callables_are_operators() -> None:
    kept: list[Any] = []
    closed.clear()
    env = LocalEnvironment("classes")
    env.from_batch(Count, 5).map(Times, factor=3).filter(Even).flatmap(Twice).sink(Keep, kept)
    plain = env.from_batch(range(5)).map(lambda n: n + 1).filter(lambda n: n % 2).flatmap(lambda n: [n] * 2).collect()
    job = env.submit(autostop=True)
    assert [record for _, record in kept] == [6, 6, 12, 12]
    assert kept[0][0] == "Keep" and closed == ["Keep"]
    assert plain == [1, 1, 3, 3, 5, 5]
    assert isinstance(job, str) and job.report.outcome == "succeeded"


def test_a_source_function_ends_with_a_stop_signal() -> None:
    env = LocalEnvironment("source")
    numbers = env.from_source(Endless).collect()
    env.submit(autostop=True)
    assert numbers == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("records", [[], [None, 0, "", False], "text", (1, 2), range(3), {"a": 1}])
def test_every_iterable_is_a_batch_and_none_in_it_is_data(records: Any) -> None:
    env = LocalEnvironment("iterables")
    got = env.from_batch(records).collect()
    env.submit(autostop=True)
    assert got == list(records)


def test_a_source_that_waits_holds_nothing_back() -> None:
    seen, answered = [], threading.Event()

    def requests() -> Iterator[int]:
        yield from (1, 2, 3)
        # Would never end if one of the three were kept until the next comes.
        assert answered.wait(30)
        yield 4

    def answer(request: int) -> None:
        seen.append(request)
        if request == 3:
            answered.set()

    env = LocalEnvironment("bridge")
    env.from_batch(requests()).map(lambda n: n).filter(bool).sink(answer)
    env.submit(autostop=True)
    assert seen == [1, 2, 3, 4]


def test_a_stream_may_have_several_followers() -> None:
    env = LocalEnvironment("fork")
    numbers = env.from_batch(range(100))
    evens, odds = numbers.filter(lambda n: n % 2 == 0).collect(), numbers.filter(lambda n: n % 2).collect()
    env.submit(autostop=True)
    assert evens == list(range(0, 100, 2)) and odds == list(range(1, 100, 2))


def test_replicas_lose_nothing() -> None:
    env = LocalEnvironment("replicas")
    got = env.from_batch(range(10_000)).map(lambda n: n * 2, parallelism=3).collect()
    env.submit(autostop=True)
    assert sorted(got) == list(range(0, 20_000, 2))


def test_an_environment_runs_again() -> None:
    env = LocalEnvironment("again")
    got = env.from_batch([1, 2]).map(Times, 2).collect()
    env.submit(autostop=True)
    env.submit(autostop=True)
    assert got == [2, 4, 2, 4]


class Broken(Exception):
    pass


def fails(n: int) -> int:
    if n == 1234:
        raise Broken("at 1234")
    return n


@pytest.mark.parametrize("kind", ["map", "filter", "flatmap", "sink"])
def test_the_users_exception_is_the_cause_with_operator_record_and_traceback(kind: str) -> None:
    env = LocalEnvironment("broken")
    stream = env.from_batch(range(5000)).map(lambda n: n)
    if kind == "sink":
        stream.sink(fails)
    else:
        getattr(stream, kind)(lambda n: [fails(n)] if kind == "flatmap" else fails(n), name="fails").sink(lambda _: None)
    with pytest.raises(JobFailed, match="in `fails`, at record 1235: Broken: at 1234") as failed:
        env.submit(autostop=True)
    cause = failed.value.__cause__
    assert isinstance(cause, Broken)
    traceback, functions = cause.__traceback__, []
    while traceback is not None:
        functions.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert functions[-1] == "fails"
    assert failed.value.report.outcome == "failed"


class BadSource(BatchFunction):
    def execute(self) -> Any:
        raise Broken("no records")


class BadConstructor(MapFunction):
    def __init__(self) -> None:
        raise Broken("no operator")


def test_a_source_or_a_constructor_that_raises_fails_the_job_at_once() -> None:
    env = LocalEnvironment("source")
    env.from_batch(BadSource).sink(print)
    with pytest.raises(JobFailed, match="no records") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, Broken)
    env = LocalEnvironment("constructor")
    env.from_batch([1]).map(BadConstructor).sink(print)
    with pytest.raises(JobFailed, match="no operator"):
        env.submit(autostop=True)


def test_a_declaration_that_cannot_run_is_refused() -> None:
    with pytest.raises(SubmitError, match="has no pipeline"):
        LocalEnvironment("empty").submit()
    env = LocalEnvironment("open")
    env.from_batch([1]).map(lambda n: n)
    with pytest.raises(SubmitError, match="`lambda` has no sink"):
        env.submit()
    env = LocalEnvironment("wrong")
    with pytest.raises(TypeError, match="needs a function"):
        env.from_batch([1]).map(5)
    with pytest.raises(TypeError, match="pass the class"):
        env.from_batch([1]).map(Times(3))
    with pytest.raises(ValueError, match="parallelism"):
        env.from_batch([1]).map(str, parallelism=0)
    with pytest.raises(TypeError, match="iterable"):
        env.from_batch(5)


def test_a_flatmap_that_returns_no_iterable_names_its_operator() -> None:
    env = LocalEnvironment("flat")
    env.from_batch([1]).flatmap(lambda n: n, name="flat").sink(print)
    with pytest.raises(JobFailed, match="in `flat`, at record 1: TypeError"):
        env.submit(autostop=True)
