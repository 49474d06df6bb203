"""Two streams that become one, and one that becomes two."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import pytest

from sage import (
    BaseCoMapFunction,
    BaseJoinFunction,
    Count,
    DeadLetter,
    FilterFunction,
    JobFailed,
    LocalEnvironment,
    SubmitError,
    Tumbling,
)


def run(env: LocalEnvironment) -> None:
    env.submit(autostop=True)


def test_zip_pairs_by_order_and_ends_with_the_shorter() -> None:
    env = LocalEnvironment("zip")
    words = env.from_batch(["a", None, ["c"]])
    endless = env.from_source(itertools.count().__next__)
    pairs = words.zip(endless).collect()
    left = env.from_batch(range(5000)).map(lambda n: n + 1)
    right = env.from_batch(range(3000)).filter(lambda n: n % 2)
    shorter = left.zip(right).map(lambda pair: pair[0] - pair[1]).collect()
    nothing = env.from_batch([]).zip(env.from_batch([1])).collect()
    run(env)
    assert pairs == [("a", 0), (None, 1), (["c"], 2)]
    assert shorter == [n + 1 - (2 * n + 1) for n in range(1500)]
    assert nothing == []


def test_zip_of_one_stream_with_itself_and_with_what_became_of_it() -> None:
    env = LocalEnvironment("itself")
    numbers = env.from_batch(range(100))
    twice = numbers.zip(numbers).collect()
    squares = numbers.zip(numbers.map(lambda n: n * n)).collect()
    run(env)
    assert twice == [(n, n) for n in range(100)]
    assert squares == [(n, n * n) for n in range(100)]


def test_zip_fails_when_one_stream_is_too_far_ahead() -> None:
    env = LocalEnvironment("ahead")
    env.from_batch(range(100)).zip(env.from_source(lambda: None), max_ahead=10).collect()
    with pytest.raises(JobFailed, match="`zip`.*left stream is more than 10 records ahead.*`max_ahead`"):
        run(env)


def test_zips_that_cannot_be() -> None:
    stream = LocalEnvironment("mistakes").from_batch([1])
    with pytest.raises(TypeError, match="`zip` needs another stream"):
        stream.zip([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two environments"):
        stream.zip(LocalEnvironment("other").from_batch([1]))
    for ahead in (0, True, 1.5):
        with pytest.raises(ValueError, match="`max_ahead` is a whole number"):
            stream.zip(stream, max_ahead=ahead)  # type: ignore[arg-type]


class Held:
    """A record that can be watched."""


def test_zip_leaves_no_record_behind() -> None:
    records = [Held() for _ in range(50)]
    watched = [weakref.ref(record) for record in records]
    env = LocalEnvironment("held")
    seen = env.from_batch(records).zip(env.from_batch(range(20))).map(lambda pair: pair[1]).collect()
    run(env)
    assert seen == list(range(20))
    del records, env
    gc.collect()
    assert not any(record() for record in watched)


class Above(FilterFunction):
    def __init__(self, least: int) -> None:
        self.least = least

    def execute(self, n: int) -> Any:
        return "yes" if n > self.least else ""


@pytest.mark.parametrize("parallelism", [1, 2])
def test_split_sends_each_record_one_way(parallelism: int) -> None:
    env = LocalEnvironment("split")
    large, small = env.from_batch(range(2000)).map(lambda n: n * 2).split(Above, 1000, parallelism=parallelism)
    large, small = large.map(lambda n: n + 1), small.filter(lambda n: n % 3 == 0)
    got = large.collect(), small.collect()
    run(env)
    assert sorted(got[0]) == [n + 1 for n in range(1002, 4000, 2)]
    assert sorted(got[1]) == [n for n in range(0, 1002, 2) if n % 3 == 0]


def test_split_keeps_the_times_of_records_and_one_side_may_end_before_the_other() -> None:
    env = LocalEnvironment("times")
    timed = env.from_batch(range(100)).with_timestamps(lambda n: n)
    even, odd = timed.split(lambda n: n % 2 == 0)
    counts = even.keyby(lambda n: "k").window(Tumbling(50)).count().collect()
    first = odd.take(3).collect()
    run(env)
    assert [(count.start, count.value) for count in counts] == [(0, 25), (50, 25)]
    assert first == [1, 3, 5]


def test_what_raises_in_a_split_is_named_or_set_apart() -> None:
    def fails(n: int) -> bool:
        if n == 3:
            raise LookupError("no threes")
        return n > 3

    env = LocalEnvironment("raises")
    for side in env.from_batch(range(5)).split(fails):
        side.collect()
    with pytest.raises(JobFailed, match="`fails`.*record 4.*LookupError: no threes") as failed:
        run(env)
    assert isinstance(failed.value.__cause__, LookupError)
    env = LocalEnvironment("apart")
    dead = DeadLetter()
    large, small = env.from_batch(range(6)).split(fails, on_error=dead)
    got = large.collect(), small.collect(), dead.letters.map(lambda letter: letter.record).collect()
    run(env)
    assert got == ([4, 5], [0, 1, 2], [3])


def test_one_side_of_a_split_can_go_round() -> None:
    env = LocalEnvironment("round")
    again = env.from_future("again")
    stream = env.from_batch(range(50)).connect(again).map(lambda n: n - 7)
    more, done = stream.split(lambda n: n > 0)
    more.fill_future(again)
    got = done.collect()
    run(env)
    assert len(got) == 50 and all(-7 <= n <= 0 for n in got)


def test_the_letters_of_an_async_function_are_a_stream() -> None:
    async def fails(n: int) -> int:
        return 1 // n

    env = LocalEnvironment("async")
    dead = DeadLetter()
    got = env.from_batch([0, 1, 0]).map(fails, on_error=dead).collect()
    errors = dead.letters.map(lambda letter: letter.errors[0].split(":")[0]).collect()
    run(env)
    assert got == [1] and errors == ["ZeroDivisionError"] * 2


def test_splits_that_cannot_be() -> None:
    env = LocalEnvironment("mistakes")
    stream = env.from_batch([1])
    with pytest.raises(TypeError, match="`split` needs a function or a FilterFunction"):
        stream.split(5)
    with pytest.raises(TypeError, match="side of a record cannot come from an async function"):
        stream.split(lambda n: n, in_flight=3)
    env = LocalEnvironment("half")
    even, _odd = env.from_batch([1]).split(lambda n: n, name="halves")
    even.collect()
    with pytest.raises(SubmitError, match="second stream of the split `halves` has no sink"):
        run(env)


def test_dead_letters_are_a_stream_to_go_on_with() -> None:
    env = LocalEnvironment("letters")
    dead = DeadLetter()
    numbers = env.from_batch(["1", "two", "3", "four"]).map(int, on_error=dead, name="parse")
    written: list[int] = []

    def write(n: int) -> None:
        if n == 3:
            raise LookupError("no threes")
        written.append(n)

    numbers.sink(write, on_error=dead, name="write")
    failed = dead.letters.map(lambda letter: (letter.operator, letter.record, letter.position)).collect()
    run(env)
    assert written == [1]
    assert sorted(failed) == [("parse", "four", 4), ("parse", "two", 2), ("write", 3, 2)]


def test_dead_letters_have_the_times_of_their_records() -> None:
    env = LocalEnvironment("times")
    dead = DeadLetter()
    timed = env.from_batch(range(100)).with_timestamps(lambda n: n)
    timed.map(lambda n: 1 // (n % 10), on_error=dead).collect()
    counts = dead.letters.keyby(lambda letter: letter.operator).window(Tumbling(50)).count().collect()
    in_fives = dead.letters.keyby(lambda letter: letter.operator).window(Count(5)).count().collect()
    run(env)
    assert [(count.start, count.value) for count in counts] == [(0, 5), (50, 5)]
    assert [(count.start, count.value) for count in in_fives] == [(0, 5), (50, 5)]


def test_dead_letters_that_are_no_stream() -> None:
    env = LocalEnvironment("mistakes")
    with pytest.raises(ValueError, match="no operator has this DeadLetter"):
        DeadLetter().letters  # noqa: B018
    with pytest.raises(ValueError, match="go to `to`"):
        DeadLetter(print).letters  # noqa: B018
    dead = DeadLetter()
    for other in (env, LocalEnvironment("other")):
        other.from_batch([1]).map(int, on_error=dead, name="parse").collect()
    with pytest.raises(ValueError, match="two environments"):
        dead.letters  # noqa: B018
    with pytest.raises(SubmitError, match="`letters of parse` has no sink"):
        run(env)


def test_sides_and_letters_leave_no_record_behind() -> None:
    records = [Held() for _ in range(60)]
    watched = [weakref.ref(record) for record in records]
    numbers = {id(record): n for n, record in enumerate(records)}
    env = LocalEnvironment("held")
    dead = DeadLetter()

    def third(record: Held) -> bool:
        return 1 // (numbers[id(record)] % 3) == 1

    one, two = env.from_batch(records).split(third, on_error=dead)
    counts = one.count().collect(), two.count().collect(), dead.letters.count().collect()
    run(env)
    assert counts == ([20], [20], [20])
    del records, env, one, two, dead
    gc.collect()
    assert not any(record() for record in watched)


class Both(BaseCoMapFunction):
    def map0(self, n: int) -> tuple[str, int]:
        return "left", n

    def map1(self, n: int) -> tuple[str, int]:
        return "right", n


class Pairs(BaseJoinFunction):
    def execute(self, payload: Any, key: Any, tag: int) -> list[Any]:
        return [(key, tag)]


def test_streams_with_keys_may_be_connected_and_read_as_often_as_a_program_likes() -> None:
    env = LocalEnvironment("again")
    left, right = (env.from_batch([1, 2]).keyby(lambda n: n) for _ in range(2))
    connected = left.connect(right)
    mapped, joined = connected.comap(Both).collect(), connected.join(Pairs).collect()
    counted = left.count().collect()
    once_more = left.connect(right).comap(Both).collect()
    run(env)
    assert sorted(mapped) == sorted(once_more) == [("left", 1), ("left", 2), ("right", 1), ("right", 2)]
    assert sorted(joined) == [(1, 0), (1, 1), (2, 0), (2, 1)] and sorted(counted) == [(1, 1), (2, 1)]


def test_a_stream_with_keys_that_is_read_may_be_connected_as_well() -> None:
    env = LocalEnvironment("before")
    left, right = (env.from_batch([1, 2]).keyby(lambda n: n) for _ in range(2))
    counted = left.count().collect()
    mapped = left.connect(right).comap(Both).collect()
    run(env)
    assert sorted(counted) == [(1, 1), (2, 1)] and len(mapped) == 4
