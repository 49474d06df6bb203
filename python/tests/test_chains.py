"""Chains of any length, what their functions find around them, and what becomes of their sources."""

from __future__ import annotations

import datetime
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage import (
    BatchFunction,
    Count,
    DataStream,
    JobFailed,
    KeyedStream,
    LocalEnvironment,
    Session,
    Sliding,
    Tumbling,
    ops,
)


def run(env: LocalEnvironment) -> None:
    env.submit(autostop=True)


def failed(env: LocalEnvironment) -> str:
    with pytest.raises(JobFailed) as error:
        env.submit(autostop=True)
    return str(error.value)


@pytest.mark.parametrize("steps", [15, 16, 20, 47, 200])
def test_any_number_of_loops_may_be_inside_of_one_another(steps: int) -> None:
    env = LocalEnvironment("loops")
    stream = env.from_batch([1, 2, 3])
    for _ in range(steps):
        stream = stream.flatmap(lambda n: [n] if n % 2 else [])
    got = stream.collect()
    run(env)
    assert got == [1, 3]


def test_any_number_of_filters_and_of_keys_with_states() -> None:
    env = LocalEnvironment("filters")
    stream = env.from_batch(range(10))
    for index in range(300):
        stream = stream.filter(lambda n: n != 5) if index % 2 else stream.keyby(lambda n: n).distinct()
    got = stream.keyby(lambda n: n % 2).count().collect()
    run(env)
    assert sorted(got) == [(0, 5), (1, 4)]


def test_times_and_keys_go_along_a_chain_of_several_loops() -> None:
    env = LocalEnvironment("along")
    stream = env.from_batch(range(20)).with_timestamps(lambda n: n)
    for _ in range(40):
        stream = stream.flatmap(lambda n: [n])
    got = stream.keyby(lambda n: n % 2).window(Tumbling(10)).count().collect()
    run(env)
    assert sorted((window.key, window.start, window.value) for window in got) == [
        *((0, 0.0, 5), (0, 10.0, 5), (1, 0.0, 5), (1, 10.0, 5))
    ]


def steps_of(count: int) -> tuple[float, LocalEnvironment, list[Any]]:
    begun = time.process_time()
    env = LocalEnvironment("long")
    stream = env.from_batch([0, 1])
    for _ in range(count):
        stream = stream.map(lambda n: n + 1)
    got = stream.collect()
    run(env)
    return time.process_time() - begun, env, got


def test_ten_thousand_steps_are_declared_and_run_in_time_that_grows_with_their_number() -> None:
    short, _, _ = steps_of(1_000)
    long, env, got = steps_of(10_000)
    assert got == [10_000, 10_001]
    # Twice what would be linear, and more than a job takes by itself; the square would be a hundred times.
    assert long < 20 * max(short, 0.05)
    assert "lambda-10000" in env.explain()


def test_a_failure_in_a_long_chain_names_its_step_and_its_record() -> None:
    env = LocalEnvironment("blame")
    stream = env.from_batch(range(100))
    for index in range(40):
        stream = stream.flatmap(lambda n: [n, n] if n % 3 == 0 and index == 0 else [n], name=f"step {index}")

    def fails(n: int) -> int:
        return n // (n - 33)

    stream.map(fails).sink(print)
    assert "record 34: in `fails`: ZeroDivisionError" in failed(env)


def test_a_thousand_steps_with_a_policy() -> None:
    env = LocalEnvironment("policies")
    stream = env.from_batch([0])
    for _ in range(1_000):
        stream = stream.map(lambda n: n + 1, on_error="skip")
    got = stream.collect()
    run(env)
    assert got == [1_000]


def test_functions_find_the_builtins_that_those_of_c_look_for() -> None:
    blobs = [pickle.dumps(datetime.date(2024, 1, 2))]
    dates = [datetime.date(2024, 1, 2)]
    env = LocalEnvironment("builtins")
    got = env.from_batch(blobs).map(pickle.loads).collect()
    kept = env.from_batch(blobs).map(pickle.loads, on_error="skip").collect()
    sums = env.from_batch(["1 + 1", "len('ab')"]).map(eval).collect()
    read = env.from_batch(map(eval, ["1 + 1", "__import__('math').floor(2.5)"])).collect()
    dated = env.from_batch(map(pickle.loads, blobs)).collect()
    keys = env.from_batch(["1", "1"]).keyby(eval).count().collect()
    folded = env.from_batch(["1", "2"]).keyby(lambda _: 0).window(Count(2)).sum(eval).collect()
    env.from_batch(["assert True"]).sink(exec)
    run(env)
    assert got == kept == dated == dates
    assert sums == read == [2, 2] and keys == [(1, 2)] and folded[0].value == 3


STOPS: list[type[BaseException]] = [StopIteration, StopAsyncIteration, GeneratorExit]


def stops(at: int, stop: type[BaseException]) -> Callable[..., Any]:
    def amount(*records: Any) -> Any:
        if records[-1] == at:
            raise stop
        return records[-1]

    return amount


def keyed(stream: DataStream) -> KeyedStream:
    return stream.with_timestamps(lambda n: n).keyby(lambda n: 0)


IN: dict[str, Callable[[DataStream, Callable[..., Any]], DataStream]] = {
    "map": lambda s, f: s.map(f),
    "filter": lambda s, f: s.filter(f),
    "flatmap": lambda s, f: s.flatmap(lambda n: [f(n)]),
    "keyby": lambda s, f: s.keyby(f).count(),
    "with_timestamps": lambda s, f: s.with_timestamps(f),
    "sum": lambda s, f: s.sum(f),
    "reduce": lambda s, f: s.reduce(f),
    "fold": lambda s, f: s.fold(0, f),
    "top_k": lambda s, f: s.keyby(lambda n: 0).top_k(3, f),
    "tumbling sum": lambda s, f: keyed(s).window(Tumbling(1000)).sum(f),
    "sliding sum": lambda s, f: keyed(s).window(Sliding(1000, 500)).sum(f),
    "session sum": lambda s, f: keyed(s).window(Session(10)).sum(f),
    "late sum": lambda s, f: keyed(s).window(Tumbling(1000)).allowed_lateness(5).sum(f),
    "count sum": lambda s, f: keyed(s).window(Count(400)).sum(f),
    "reduce in windows": lambda s, f: keyed(s).window(Count(400)).reduce(f),
    "fold in windows": lambda s, f: keyed(s).window(Count(400)).fold(0, f),
    "generator": lambda s, f: s.flatmap(lambda n: (f(n) for _ in range(1))),
    "state": lambda s, f: s.keyby(lambda n: 0).map_with_state(0, lambda state, n: (f(n), n)),
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("at", [2, 350])
@pytest.mark.parametrize("where", IN)
def test_an_exception_that_ends_iterators_is_a_failure_like_others(where: str, at: int, stop: Any) -> None:
    env = LocalEnvironment("stops")
    IN[where](env.from_batch(range(1, 600)), stops(at, stop)).collect()
    with pytest.raises(JobFailed) as error:
        env.submit(autostop=True)
    cause = error.value.__cause__
    # From within a generator, Python makes another one of it.
    assert isinstance(cause, stop) or (isinstance(cause, RuntimeError) and isinstance(cause.__cause__, stop))
    assert "operator `" in str(error.value)


def test_an_operator_of_the_engine_names_the_record_that_it_fails_at() -> None:
    texts = ["1", "2", "x", "4", "5", "6", "7", "8", "9"]
    for records in (texts, iter(texts)):
        env = LocalEnvironment("ops")
        env.from_batch(records).map(ops.to_int()).collect()
        assert "record 3: ValueError" in failed(env)
    for stream in (
        lambda s: s.filter(ops.contains("")).map(ops.to_int()).map(ops.identity()),
        lambda s: s.keyby(ops.identity()).sum(ops.to_int()),
        lambda s: s.flatmap(ops.split()).map(ops.to_float()).keyby(ops.identity()).count(),
    ):
        env = LocalEnvironment("ops")
        stream(env.from_batch(texts)).collect()
        assert "record 3: ValueError" in failed(env)


class Rows:
    """A source that can be closed, and notes on which thread it was."""

    def __init__(self, closed: list[int]) -> None:
        self.closed = closed

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return 1

    def close(self) -> None:
        self.closed.append(threading.get_ident())


def generated(closed: list[int]) -> Iterator[int]:
    try:
        while True:
            yield 1
    finally:
        closed.append(threading.get_ident())


class Iterable:
    """Gives a generator of its own for each job."""

    def __init__(self, closed: list[int]) -> None:
        self.closed = closed

    def __iter__(self) -> Iterator[int]:
        return generated(self.closed)


class Batch(BatchFunction):
    def __init__(self, closed: list[int]) -> None:
        self.closed = closed

    def execute(self) -> int:
        return 1

    def close(self) -> None:
        self.closed.append(threading.get_ident())


ENDINGS = ["take", "failure", "cancel", "drain"]


@pytest.mark.parametrize("made", [generated, Rows, Iterable, Batch])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_source_is_closed_on_its_own_thread_when_its_job_is_over(made: Any, ending: str) -> None:
    closed: list[int] = []
    begun = threading.Event()
    env = LocalEnvironment("closed")
    stream = env.from_batch(made, closed) if isinstance(made, type) and made is Batch else env.from_batch(made(closed))

    def take(n: int) -> None:
        begun.set()
        assert ending != "failure"

    (stream.take(3) if ending == "take" else stream).sink(take)
    job = env.submit()
    assert begun.wait(30)
    if ending in ("cancel", "drain"):
        getattr(job, ending)()
    try:
        job.wait()
    except JobFailed:
        assert ending not in ("take", "drain")
    assert len(closed) == 1 and closed[0] != threading.get_ident()


def test_a_source_that_was_read_to_its_end_is_closed_and_what_raises_there_fails_the_job() -> None:
    def rows() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            raise OSError("the file is gone")

    env = LocalEnvironment("raises")
    env.from_batch(rows()).take(1).collect()
    assert "the file is gone" in failed(env)


def test_a_file_that_the_program_opened_is_its_own_to_close(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("a\nb\n")
    with open(path) as file:
        env = LocalEnvironment("file")
        got = env.from_batch(file).collect()
        run(env)
        assert got == ["a\n", "b\n"] and not file.closed
