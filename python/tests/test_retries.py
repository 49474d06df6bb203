"""Retries by kind of exception, of functions and of sources, and what no policy lets pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage import DeadLetter, JobFailed, Letter, LocalEnvironment, Retry, Sliding, SourceFunction, StopSignal
from sage.core.api.function.simple_batch_function import SimpleBatchFunction
from sage.libs.io_utils.source import FileSource

AT_ONCE = {"first": 0.0, "longest": 0.0}


class Calls:
    """Raises what it is given, one exception at each call, and then gives back the record."""

    def __init__(self, *exceptions: BaseException) -> None:
        self.left = list(exceptions)
        self.count = 0

    def __call__(self, record: Any) -> Any:
        self.count += 1
        if self.left:
            raise self.left.pop(0)
        return record


def awaited(calls: Calls) -> Callable[[Any], Any]:
    async def call(record: Any) -> Any:
        await asyncio.sleep(0)
        return calls(record)

    return call


@pytest.mark.parametrize("is_async", [False, True])
def test_a_function_is_called_again_after_the_exceptions_that_the_retry_is_on(is_async: bool) -> None:
    retry = Retry(5, on=(TimeoutError, ConnectionError), **AT_ONCE)
    calls = Calls(TimeoutError("a"), ConnectionResetError("b"), ValueError("c"))
    letters: list[Letter] = []
    env = LocalEnvironment("on")
    function = awaited(calls) if is_async else calls
    options = {"in_flight": 1} if is_async else {}
    stream = env.from_batch([1, 2]).map(function, retry=retry, on_error=DeadLetter(letters.append), **options)
    kept = stream.collect()
    env.submit(autostop=True)
    assert kept == [2] and calls.count == 4
    (letter,) = letters
    # A `ConnectionResetError` is a `ConnectionError`; a `ValueError` is none of them, so it is the last.
    assert (letter.record, letter.attempts) == (1, 3)
    assert letter.errors == ["gave up after 3 attempts", "ValueError: c"]


def test_one_class_will_do_and_an_exception_that_is_not_tried_again_is_the_cause_itself() -> None:
    env = LocalEnvironment("one")
    env.from_batch([1]).map(Calls(KeyError("no")), retry=Retry(5, on=OSError, **AT_ONCE)).collect()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, KeyError) and "gave up" not in str(failed.value)


@pytest.mark.parametrize("on", [(), KeyboardInterrupt, (OSError, "timeout"), [OSError], BaseException])
def test_what_is_no_class_of_exceptions_is_refused(on: Any) -> None:
    env = LocalEnvironment("refused")
    with pytest.raises(TypeError, match="`on` of a Retry is a class of exceptions or a tuple of them"):
        env.from_batch([1]).map(str, retry=Retry(3, on=on))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("policy", ["skip", "letters", "retry", "stateful"])
def test_no_policy_lets_pass_what_is_no_exception(kind: type[BaseException], is_async: bool, policy: str) -> None:
    calls, letters = Calls(kind("ends")), list[Letter]()
    env = LocalEnvironment("ends")
    stream = env.from_batch([1, 2, 3])
    function = awaited(calls) if is_async else calls
    match policy:
        case "skip":
            stream.map(function, on_error="skip").collect()
        case "letters":
            stream.map(function, on_error=DeadLetter(letters.append)).collect()
        case "retry":
            stream.map(function, retry=Retry(5, **AT_ONCE), on_error="skip").collect()
        case _ if not is_async:
            stream.keyby(lambda n: n).map(function, on_error="skip").sink(print)
        case _:
            stream.sink(function, on_error="skip")
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert type(failed.value.__cause__) is kind, failed.value
    assert not letters and calls.count <= 3
    assert failed.value.report.data["cleanliness"] == "clean"


class Polled(SourceFunction):
    """Counts up to five, and raises what it is given on the way, before the record that it then gives."""

    made = 0

    def __init__(self, raised: dict[int, list[BaseException]]) -> None:
        type(self).made += 1
        self.raised = raised
        self.number = 0

    def execute(self) -> Any:
        if self.raised.get(self.number):
            raise self.raised[self.number].pop(0)
        if self.number == 5:
            return StopSignal("done")
        self.number += 1
        return self.number


def test_a_source_is_called_again_of_the_same_object() -> None:
    Polled.made = 0
    raised: dict[int, list[BaseException]] = {0: [OSError("a")], 3: [OSError("b"), OSError("c")], 5: [OSError("d")]}
    env = LocalEnvironment("source")
    out = env.from_source(Polled, raised, name="polled", retry=Retry(3, **AT_ONCE)).collect()
    job = env.submit(autostop=True)
    assert out == [1, 2, 3, 4, 5] and Polled.made == 1
    (row,) = [row for row in job.report.data["operators"] if row["name"] == "polled"]
    assert row["retries"] == 4


def test_a_callable_is_called_again_and_given_up_after_the_last_attempt_or_another_exception() -> None:
    for on, attempts, message in [(OSError, 2, "gave up after 2 attempts"), (ValueError, 1, "OSError: gone")]:
        count = 0

        def poll() -> Any:
            nonlocal count
            count += 1
            raise OSError("gone")

        env = LocalEnvironment("callable")
        env.from_source(poll, retry=Retry(2, on=on, **AT_ONCE)).collect()
        with pytest.raises(JobFailed, match=message) as failed:
            env.submit(autostop=True)
        assert isinstance(failed.value.__cause__, OSError) and count == attempts


class Until(SourceFunction):
    """Gives 0 and 1, and then ends as Python's iterators do."""

    def __init__(self) -> None:
        self.numbers = iter(range(2))

    def execute(self) -> int:
        return next(self.numbers)


@pytest.mark.parametrize("retry", [None, 3])
@pytest.mark.parametrize("declare", ["from_source", "from_batch"])
def test_a_source_ends_by_a_stop_iteration_and_others_go_on(declare: str, retry: int | None) -> None:
    env = LocalEnvironment("until")
    options = {"retry": retry} if declare == "from_source" else {}
    ended = getattr(env, declare)(Until, **options).collect()
    others = env.from_batch(range(1000)).collect()
    job = env.submit(autostop=True)
    assert ended == [0, 1] and len(others) == 1000 and job.report.outcome == "succeeded"


def test_a_generator_that_raised_is_no_end_of_a_source_that_is_called_again() -> None:
    def lines() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    env = LocalEnvironment("lost")
    read = lines()
    env.from_source(lambda: next(read), retry=Retry(3, **AT_ONCE)).collect()
    with pytest.raises(JobFailed, match="StopIteration"):
        env.submit(autostop=True)


def test_a_source_that_is_told_to_exit_is_not_called_again() -> None:
    raised: dict[int, list[BaseException]] = {2: [SystemExit(3)]}
    env = LocalEnvironment("exit")
    env.from_source(Polled, raised, retry=Retry(3, **AT_ONCE)).collect()
    with pytest.raises(JobFailed, match="record 3") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, SystemExit)


def test_what_a_generator_gives_cannot_be_tried_again() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    env = LocalEnvironment("generator")
    with pytest.raises(TypeError, match="retry"):
        env.from_batch(numbers(), retry=3)
    with pytest.raises(TypeError, match="generator"):
        env.from_source(numbers, retry=3)


def test_what_a_source_of_lines_or_of_an_iterable_could_not_read_is_not_passed_over(tmp_path: Path) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    class Numbers(SimpleBatchFunction):
        def __init__(self) -> None:
            super().__init__(numbers())

    path = tmp_path / "lines.txt"
    path.write_bytes(b"one\n\xff\nthree\n")
    for source, arguments, error in [(FileSource, (path,), "lines.txt"), (Numbers, (), "gone")]:
        env = LocalEnvironment("lines")
        env.from_source(source, *arguments, retry=Retry(3, **AT_ONCE)).collect()
        with pytest.raises(JobFailed, match=f"gave up after 3 attempts.*{error}"):
            env.submit(autostop=True)


def test_a_class_that_has_a_retry_of_its_own_gets_it() -> None:
    class Own(SourceFunction):
        def __init__(self, retry: str) -> None:
            self.retry = [retry]

        def execute(self) -> Any:
            return self.retry.pop() if self.retry else StopSignal("done")

    env = LocalEnvironment("own")
    out = env.from_source(Own, retry="mine").collect()
    env.submit(autostop=True)
    assert out == ["mine"]


def test_too_many_windows_for_a_record_are_refused_where_they_are_declared() -> None:
    env = LocalEnvironment("slices")
    keyed = env.from_batch([1.0]).with_timestamps(lambda n: n).keyby(lambda _: 0)
    with pytest.raises(ValueError, match="3,600,000 windows, and 100,000 is the most"):
        keyed.window(Sliding(3600, 0.001))
    counts = keyed.window(Sliding(100, 0.001)).count().collect()
    env.submit(autostop=True)
    assert len(counts) == 100_000
