"""Batches: ``batch`` and ``map_batches``."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from sage import DeadLetterQueue, JobFailed, LocalEnvironment, MapFunction, StopSignal


def run(env: LocalEnvironment) -> Any:
    return env.submit(autostop=True).report


def test_lists_of_a_size_come_in_order_and_the_last_has_the_rest() -> None:
    env = LocalEnvironment("batches")
    batches = env.from_batch(range(10)).batch(4).collect()
    report = run(env)
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    rows = [(row["name"], row["records_in"], row["records_out"]) for row in report.data["operators"]]
    assert rows[1] == ("batch of 4", 10, 3)


def test_records_of_any_kind_are_the_same_objects_in_a_batch() -> None:
    records = [object(), None, {"a": [1]}, float("nan"), "é", 1 << 80]
    env = LocalEnvironment("batches")
    batches = env.from_batch(records).batch(100).collect()
    run(env)
    assert len(batches) == 1 and all(one is other or one == other for one, other in zip(batches[0], records))


def test_a_list_goes_on_within_its_time_though_no_record_comes() -> None:
    more, arrived = threading.Event(), threading.Event()
    numbers = iter([1, 2])

    def source() -> Any:
        number = next(numbers, None)
        if number is None:
            more.wait()
            return StopSignal()
        return number

    batches: list[list[int]] = []

    def took(batch: list[int]) -> None:
        batches.append(batch)
        arrived.set()

    env = LocalEnvironment("batches")
    env.from_source(source).batch(100, within=0.01).sink(took)
    job = env.submit()
    assert arrived.wait(30)  # the source itself still waits
    more.set()
    job.wait()
    assert sum(batches, []) == [1, 2]


def test_a_drain_sends_on_the_records_that_are_there() -> None:
    given = threading.Event()

    def source() -> Any:
        if given.is_set():
            return None
        given.set()
        return 1

    env = LocalEnvironment("batches")
    batches = env.from_source(source, delay=0.001).batch(100).collect()
    env.submit()
    assert given.wait(30)
    env.stop()
    assert batches == [[1]]


def test_map_batches_calls_the_function_with_lists_and_emits_what_it_returns_one_by_one() -> None:
    sizes: list[int] = []

    def embed(texts: list[str]) -> list[int]:
        sizes.append(len(texts))
        return [len(text) for text in texts]

    env = LocalEnvironment("batches")
    lengths = env.from_batch(["a" * n for n in range(10)]).map_batches(embed, 4).collect()
    report = run(env)
    assert lengths == list(range(10)) and sizes == [4, 4, 2]
    assert [(o["name"], o["records_in"]) for o in report.data["operators"]] == [("batch", 10), ("embed → collect", 10)]


def test_map_batches_takes_classes_and_async_functions_and_replicas() -> None:
    class Times(MapFunction):
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def execute(self, numbers: list[int]) -> list[int]:
            return [n * self.factor for n in numbers]

    async def half(numbers: list[int]) -> list[float]:
        await asyncio.sleep(0)
        return [n / 2 for n in numbers]

    env = LocalEnvironment("batches")
    numbers = env.from_batch(range(100))
    times = numbers.map_batches(Times, 7, 3, parallelism=2).collect()
    halves = env.from_batch(range(100)).map_batches(half, 7, in_flight=3, ordered=False).collect()
    run(env)
    assert sorted(times) == [3 * n for n in range(100)]
    assert sorted(halves) == [n / 2 for n in range(100)]


def test_a_batch_fails_as_a_whole_and_is_the_record_of_a_dead_letter() -> None:
    dead = DeadLetterQueue()

    def inverse(numbers: list[int]) -> list[float]:
        return [1 / n for n in numbers]

    env = LocalEnvironment("batches")
    results = env.from_batch([1, 2, 0, 4]).map_batches(inverse, 2, on_error=dead).collect()
    letters = dead.letters.collect()
    run(env)
    assert results == [1, 0.5] and [letter.record for letter in letters] == [[0, 4]]


def test_a_failure_names_the_function() -> None:
    def fails(_numbers: list[int]) -> list[int]:
        raise KeyError("broken")

    env = LocalEnvironment("batches")
    env.from_batch(range(3)).map_batches(fails, 2).print()
    with pytest.raises(JobFailed, match="`fails"):
        env.submit(autostop=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0,), {}), "the size of a batch is a whole number from 1 to 16,777,216, not 0"),
        (((2,), {"within": 0}), "`within` is more than 0 seconds, not 0; leave it out for none"),
        (((True,), {}), "not True"),
    ],
)
def test_bad_arguments_are_errors_at_once(arguments: Any, message: str) -> None:
    stream = LocalEnvironment("batches").from_batch([1])
    args, kwargs = arguments
    with pytest.raises(ValueError, match=message):
        stream.batch(*args, **kwargs)
    with pytest.raises(ValueError, match=message):
        stream.map_batches(list, *args, **kwargs)
