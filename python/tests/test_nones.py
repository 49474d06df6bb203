"""The `None` that a map returns is no record; any other `None` is one like others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from sage import (
    BaseCoMapFunction,
    DataStream,
    FlatMapFunction,
    JobFailed,
    LocalEnvironment,
    MapFunction,
    Report,
    SourceFunction,
    StopSignal,
    Tumbling,
    ops,
)


def ran(env: LocalEnvironment) -> Report:
    return env.submit(autostop=True).report


def even(n: int) -> int | None:
    return n if n % 2 == 0 else None


async def even_later(n: int) -> int | None:
    return even(n)


class Even(MapFunction):
    def execute(self, n: int) -> int | None:
        return even(n)


#: A map as programs filter by it, and how it runs.
WAYS: dict[str, Callable[..., DataStream]] = {
    "function": lambda stream, **more: stream.map(even, name="even", **more),
    "class": lambda stream, **more: stream.map(Even, name="even", **more),
    "async": lambda stream, **more: stream.map(even_later, name="even", **more),
    "threads": lambda stream, **more: stream.map(even, name="even", in_flight=4, **more),
    "policy": lambda stream, **more: stream.map(even, name="even", on_error="skip", retry=2, **more),
    "replicas": lambda stream, **more: stream.map(even, name="even", parallelism=3, **more),
    "after a flatmap": lambda stream, **more: stream.flatmap(lambda n: [n]).map(even, name="even", **more),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_map_drops_what_becomes_none_and_one_line_says_how_many(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    env = LocalEnvironment("filters")
    got = WAYS[way](env.from_batch(range(1001))).map(lambda n: n + 1).collect()
    report = ran(env)
    assert sorted(got) == list(range(1, 1002, 2))
    (said,) = [record for record in caplog.records if record.name == "sage.filters"]
    assert said.levelno == logging.WARNING and "500 of `even`" in said.message and "keep_none=True" in said.message
    assert [note for note in report.data["notes"] if "500 of `even`" in note] and "500 of `even`" in str(report)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["step", "environment"])
def test_a_map_can_keep_them(way: str, where: str, caplog: pytest.LogCaptureFixture) -> None:
    env = LocalEnvironment("keeps", {"keep_none": True} if where == "environment" else None)
    more = {"keep_none": True} if where == "step" else {}
    got = WAYS[way](env.from_batch(range(4)), **more).collect()
    assert not ran(env).data["notes"]
    assert sorted(got, key=str) == [0, 2, None, None] and not caplog.records


def test_a_step_says_more_than_the_environment() -> None:
    env = LocalEnvironment("both", {"keep_none": True})
    got = env.from_batch(range(4)).map(even, keep_none=False).collect()
    ran(env)
    assert got == [0, 2]
    with pytest.raises(TypeError, match="`keep_none` of `config` is True or False"):
        LocalEnvironment("wrong", {"keep_none": "yes"})
    with pytest.raises(TypeError, match="`keep_none` is True or False"):
        LocalEnvironment("wrong").from_batch([1]).map(even, keep_none="yes")


def test_the_report_counts_them_by_function() -> None:
    env = LocalEnvironment("counted")
    stream = env.from_batch(range(10))
    thirds = stream.map(even, name="even").map(lambda n: n if n % 3 == 0 else None, name="third")
    got = thirds.map(str, name="text").filter(bool, name="some").map(str.upper, name="upper").collect()
    counts = ran(env).functions
    assert got == ["0", "6"]
    ((_, functions),) = counts.items()
    assert functions[:3] == [("even", 10, 5), ("third", 5, 2), ("text", 2, 2)]


def test_the_last_functions_are_counted_from_behind() -> None:
    env = LocalEnvironment("behind")
    got = env.from_batch(range(10)).filter(lambda n: n < 8, name="few").map(even, name="even").collect()
    ran(env)
    both = env.from_batch(range(10)).filter(lambda n: n < 8, name="few").map(even, name="even")
    got, again = both.collect(), both.collect()
    functions = ran(env).functions
    assert got == again == [0, 2, 4, 6]
    assert [("few-2", 10, 8), ("even-2", 8, 4)] in functions.values()


def test_a_job_that_fails_says_it_as_well(caplog: pytest.LogCaptureFixture) -> None:
    env = LocalEnvironment("fails")
    env.from_batch([1, 2]).map(even, name="even").map(lambda n: n / 0).collect()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert "1 of `even`" in str(failed.value.report)
    assert [record.message for record in caplog.records if "1 of `even`" in record.message]


class Sides(BaseCoMapFunction):
    def map0(self, n: int) -> int | None:
        return even(n)

    def map1(self, word: str) -> str | None:
        return word or None


@pytest.mark.parametrize("keep_none", [True, False])
def test_a_comap_drops_them_too(keep_none: bool) -> None:
    env = LocalEnvironment("sides")
    connected = env.from_batch([1, 2]).connect(env.from_batch(["", "a"]))
    got = connected.comap(Sides, name="sides", keep_none=keep_none).collect()
    report = ran(env)
    expected = [2, "a", None, None] if keep_none else [2, "a"]
    assert sorted(got, key=str) == sorted(expected, key=str)
    assert ("2 of `sides`" in str(report)) is not keep_none


class Twice(FlatMapFunction):
    def execute(self, record: Any) -> list[Any]:
        self.collect(record)
        return [None]


class Three(SourceFunction):
    def __init__(self) -> None:
        self.n = 0

    def execute(self) -> Any:
        self.n += 1
        return [None, 1, StopSignal()][self.n - 1]


def test_none_from_elsewhere_is_a_record(caplog: pytest.LogCaptureFixture) -> None:
    env = LocalEnvironment("data")
    batch = env.from_batch([None, 1])
    from_batch, flat = batch.collect(), batch.flatmap(Twice).collect()
    folded = batch.fold(1, lambda so_far, record: None).collect()
    keyed = batch.keyby(lambda record: 0)
    stateful = keyed.map_with_state(0, lambda state, record: (state, None)).collect()
    parsed = env.from_batch(["null", "1"]).map(ops.parse_json()).collect()
    skipping = env.from_batch(["null", "x"]).map(ops.parse_json(), on_error="skip").collect()
    timed = env.from_batch([1]).with_timestamps(lambda n: n).keyby(lambda n: n).window(Tumbling(1))
    windowed = timed.apply(lambda key, start, end, records: None).collect()
    left = env.from_batch([1]).keyby(lambda n: n)
    right = env.from_batch([2]).keyby(lambda n: n)
    joined = left.join(right).left().collect()
    ran(env)
    assert from_batch == [None, 1] and flat == [None, None, 1, None] and folded == [None]
    assert stateful == [None, None] and parsed == [None, 1] and skipping == [None]
    assert [window.value for window in windowed] == [None] and [pair.right for pair in joined] == [None]
    assert not caplog.records


class TwiceLater(FlatMapFunction):
    async def execute(self, record: Any) -> list[Any]:
        self.collect(record)
        return [None]


@pytest.mark.parametrize(("function", "more"), [(Twice, {}), (Twice, {"in_flight": 2}), (TwiceLater, {})])
def test_the_step_says_what_a_result_is_not_the_class(function: Any, more: dict[str, Any]) -> None:
    env = LocalEnvironment("classes")
    numbers = env.from_batch([1, 2])
    flat = numbers.flatmap(function, **more).collect()
    with pytest.warns(UserWarning, match="a FlatMapFunction: what it collects goes nowhere; use `flatmap`"):
        mapped, kept = numbers.map(function, **more).collect(), numbers.filter(function, **more).collect()
    ran(env)
    assert (flat, mapped, kept) == ([1, None, 2, None], [[None], [None]], [1, 2])


def test_a_loop_ends_by_none() -> None:
    env = LocalEnvironment("loop")
    around = env.from_future("around")
    lower = env.from_batch([5]).connect(around).map(lambda n: n - 1 if n > 1 else None, name="lower")
    got = lower.collect()
    lower.fill_future(around)
    report = ran(env)
    assert got == [4, 3, 2, 1] and "1 of `lower`" in str(report)


def test_a_record_that_is_dropped_lets_windows_of_later_ones_fire() -> None:
    """Its time counts: what comes after it and is older is late, in one chain as in several."""

    def windows(**more: Any) -> list[Any]:
        env = LocalEnvironment("timed")
        stream = env.from_batch([1, 100, 2, 3], delay=0.01).with_timestamps(lambda n: n)
        some = stream.map(lambda n: None if n == 100 else n, **more)
        got = some.keyby(lambda n: 0).window(Tumbling(10)).count().collect()
        ran(env)
        return got

    def filtered() -> list[Any]:
        env = LocalEnvironment("timed")
        stream = env.from_batch([1, 100, 2, 3], delay=0.01).with_timestamps(lambda n: n).filter(lambda n: n != 100)
        got = stream.keyby(lambda n: 0).window(Tumbling(10)).count().collect()
        ran(env)
        return got

    # Each record is read by itself, so that a watermark follows each.
    assert windows() == windows(parallelism=1, name="other") == filtered() == [(0, 0.0, 10.0, 1)]
