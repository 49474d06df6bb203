"""Sums, reductions and folds over windows, against those of the records that `apply` keeps; and what they keep."""

from __future__ import annotations

import gc
import itertools
import random
import traceback
import weakref
from collections import Counter
from typing import Any

import pytest

from sage import Count, DataStream, JobFailed, KeyedStream, LocalEnvironment, Session, Sliding, Tumbling, Windowed

RANDOM = random.Random(11)


def run(env: LocalEnvironment) -> None:
    env.submit(autostop=True)


def keyed(env: LocalEnvironment, records: Any) -> KeyedStream:
    return env.from_batch(records).with_timestamps(lambda r: r[1], out_of_order=50).keyby(lambda r: r[0])


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("windows", [Tumbling(1000), Sliding(1000, 250), Session(3), Count(700), Count(1)])
def test_folds_of_windows_are_those_of_their_records(windows: Any, parallelism: int) -> None:
    records = [(RANDOM.choice("aab"), n + RANDOM.randrange(20), n) for n in range(3000)]
    env = LocalEnvironment("folds")
    stream = keyed(env, records).window(windows)
    kept = stream.apply(lambda key, start, end, records: records, parallelism=parallelism).collect()
    sums = stream.sum(lambda r: r[2], parallelism=parallelism).collect()
    first = stream.reduce(lambda so_far, r: so_far, parallelism=parallelism).collect()
    lists = stream.fold(list, lambda so_far, r: [*so_far, r[2]], parallelism=parallelism).collect()
    run(env)

    def by_window(results: list[Windowed], value: Any) -> list[tuple[Any, ...]]:
        return sorted((window.key, window.start, window.end, value(window.value)) for window in results)

    # Those of three kinds are longer than a block.
    least = 0 if isinstance(windows, Session) or windows == Count(1) else 256
    assert max(len(window.value) for window in kept) > least
    assert by_window(sums, lambda n: n) == by_window(kept, lambda records: sum(r[2] for r in records))
    assert by_window(first, lambda r: r) == by_window(kept, lambda records: records[0])
    assert by_window(lists, lambda ns: ns) == by_window(kept, lambda records: [r[2] for r in records])


def test_folds_by_the_clock_and_sums_of_the_records_themselves() -> None:
    env = LocalEnvironment("clock")
    stream = env.from_batch(range(2000)).keyby(lambda n: n % 2)
    sums = stream.window_by_clock(Tumbling(3600)).sum().collect()
    slid = stream.window_by_clock(Sliding(3600, 1800)).reduce(max).collect()
    ended = stream.window_by_clock(Session(3600)).fold(0, lambda most, n: max(most, n)).collect()
    counts = env.from_batch([Counter(a=1), Counter(b=2), Counter(a=3)]).keyby(lambda _: None)
    added = counts.window(Count(2)).sum().collect()
    run(env)
    for key in (0, 1):
        assert sum(window.value for window in sums if window.key == key) == sum(range(key, 2000, 2))
        assert {window.value for window in [*slid, *ended] if window.key == key} >= {1998 + key}
    assert [window.value for window in added] == [Counter(a=1, b=2), Counter(a=3)]


@pytest.mark.parametrize("records", [3, 600])
def test_an_initial_value_is_copied_for_each_window(records: int) -> None:
    env = LocalEnvironment("copied")
    initial: list[int] = []

    def push(so_far: list[int], record: tuple[str, int]) -> list[int]:
        so_far.append(record[1])
        return so_far

    stream = keyed(env, [(key, n) for n in range(records) for key in "ab"])
    got = [stream.window(windows).fold(initial, push).collect() for windows in (Tumbling(10_000), Session(10_000))]
    run(env)
    for windows in got:
        assert [window.value for window in sorted(windows)] == [list(range(records))] * 2
    assert initial == []


def test_late_records_change_a_window_that_fired_and_the_result_before_stays() -> None:
    env = LocalEnvironment("late")

    def push(so_far: list[int], n: int) -> list[int]:
        so_far.append(n)
        return so_far

    times = [*range(3000), 5]
    stream = env.from_batch(times).map(lambda time: time, parallelism=2).map(lambda time: time)
    timed = stream.with_timestamps(lambda time: time).keyby(lambda _: "k")
    got = timed.window(Tumbling(10)).allowed_lateness(100_000).fold(list, push).collect()
    late: list[int] = []
    sums = timed.window(Tumbling(1000)).late_to(late.append).fold(list, push).collect()
    run(env)
    first = [window.value for window in got if window.start == 0]
    assert sorted(first[-1]) == sorted([*range(10), 5])
    assert all(len(before) < len(after) for before, after in zip(first, first[1:]))
    assert sorted([*late, *(n for window in sums for n in window.value)]) == sorted(times)


class Held:
    """A record that is counted while it lives."""

    living = 0

    def __init__(self, n: int) -> None:
        self.n = n
        Held.living += 1

    def __del__(self) -> None:
        Held.living -= 1


@pytest.mark.parametrize("windows", [Tumbling(10_000_000), Sliding(10_000_000, 5_000_000), Count(10_000_000)])
def test_an_open_window_keeps_no_more_than_a_block_of_its_records(windows: Any) -> None:
    most = 0
    total = 1_000_000 if isinstance(windows, Tumbling) else 200_000

    def add(so_far: int, record: Held) -> int:
        nonlocal most
        most = max(most, Held.living)
        return so_far + record.n

    env = LocalEnvironment("memory")
    stream = env.from_batch(range(total)).map(Held).with_timestamps(lambda record: record.n).keyby(lambda _: "k")
    sums = stream.window(windows).fold(0, add).collect()
    run(env)
    assert {window.value for window in sums if window.start >= 0} == {sum(range(total))}
    # What is on its way between two tasks is bounded, however many there are.
    assert 0 < most < 50_000
    gc.collect()
    assert Held.living == 0


@pytest.mark.parametrize("behind", [10, 300])
@pytest.mark.parametrize("of", ["sum", "reduce", "fold"])
def test_what_raises_in_a_fold_is_named_and_leaves_nothing(of: str, behind: int) -> None:
    watched: list[weakref.ref[Held]] = []

    def made(n: int) -> Held:
        record = Held(n)
        watched.append(weakref.ref(record))
        return record

    def broken(*records: Any) -> Any:
        if records[-1].n == behind:
            raise LookupError(f"no {behind}")
        return records[-1]

    def folded(stream: KeyedStream) -> DataStream:
        windowed = stream.window(Count(400))
        if of == "sum":
            return windowed.sum(lambda record: broken(record).n)
        return windowed.reduce(broken) if of == "reduce" else windowed.fold(None, broken)

    def failing() -> None:
        env = LocalEnvironment("raises")
        folded(env.from_batch(range(behind + 50)).map(made).keyby(lambda _: "k")).collect()
        name = "sum" if of == "sum" else "broken"
        with pytest.raises(JobFailed, match=f"`{name}.*record.*LookupError: no {behind}") as failed:
            run(env)
        assert isinstance(failed.value.__cause__, LookupError)
        assert "broken" in [frame.name for frame in traceback.extract_tb(failed.value.__cause__.__traceback__)]

    failing()
    gc.collect()
    assert watched and not any(record() for record in watched)


def test_what_raises_in_a_sum_is_said_with_its_window() -> None:
    def amount(record: tuple[str, int]) -> int:
        return next(iter(())) if record == ("b", 3) else record[1]

    env = LocalEnvironment("window")
    records = [("a", 1), ("b", 2), ("b", 3), ("a", 4)]
    stream = env.from_batch(records).with_timestamps(lambda record: record[1]).keyby(lambda record: record[0])
    stream.window(Tumbling(100)).sum(amount).collect()
    told = "operator `sum → collect`.*in `sum`, the window of 'b' from 0.0: StopIteration"
    with pytest.raises(JobFailed, match=told):
        run(env)


def test_functions_see_the_records_of_a_window_in_one_row() -> None:
    env = LocalEnvironment("row")
    calls: list[tuple[Any, Any]] = []

    def noted(so_far: Any, n: int) -> Any:
        calls.append((so_far, n))
        return so_far + n

    sums = env.from_batch(range(1000)).keyby(lambda _: "k").window(Count(1000)).reduce(noted).collect()
    run(env)
    so_far = [*itertools.accumulate(range(1000))]
    assert [window.value for window in sums] == so_far[-1:]
    assert calls == [*zip(so_far, range(1, 1000))]
