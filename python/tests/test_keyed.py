"""Keyed streams: states, windows, joins and loops, against plain loops over the same records."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import datetime, timezone
from typing import Any

import pytest

from sage import (
    Count,
    JobFailed,
    KeyContext,
    LocalEnvironment,
    MapFunction,
    ProcessFunction,
    Session,
    Sliding,
    SubmitError,
    Timer,
    Tumbling,
)

RANDOM = random.Random(7)
WORDS = [RANDOM.choice(["a", "b", "c", "", None, 1, 2.5, ("t", 1)]) for _ in range(3000)]


def run(env: LocalEnvironment) -> None:
    env.submit(autostop=True)


@pytest.mark.parametrize("parallelism", [1, 3])
def test_count_reduce_and_fold(parallelism: int) -> None:
    env = LocalEnvironment("aggregates")
    pairs = [(word, n) for n, word in enumerate(WORDS)]
    keyed = env.from_batch(pairs).keyby(lambda pair: pair[0])
    counts = keyed.count(parallelism=parallelism).collect()
    sums = keyed.reduce(lambda one, other: (one[0], one[1] + other[1]), parallelism=parallelism).collect()
    lists = keyed.fold(list, lambda seen, pair: [*seen, pair[1]], parallelism=parallelism).collect()
    totals = (
        keyed.fold(100, lambda total, pair: total + pair[1], parallelism=parallelism)
        .map(lambda kept: kept)
        .collect()
    )
    run(env)
    by_key: dict[Any, list[int]] = defaultdict(list)
    for word, n in pairs:
        by_key[word].append(n)
    assert dict(counts) == Counter(WORDS) and len(counts) == len(by_key)
    assert dict(sums) == {key: (key, sum(numbers)) for key, numbers in by_key.items()}
    assert dict(lists) == by_key
    assert dict(totals) == {key: 100 + sum(numbers) for key, numbers in by_key.items()}


class Where(MapFunction):
    def execute(self, n: int) -> tuple[int, int]:
        return n % 3, self.ctx.replica


class WhereLater(MapFunction):
    async def execute(self, n: int) -> tuple[int, int]:
        return n % 3, self.ctx.replica


@pytest.mark.parametrize("options", [{}, {"on_error": "skip"}, {"retry": 2}, {"in_flight": 2}], ids=str)
@pytest.mark.parametrize("function", [Where, WhereLater])
def test_the_records_of_a_key_come_to_one_replica_whatever_options_a_step_has(
    function: type[MapFunction], options: dict[str, Any]
) -> None:
    env = LocalEnvironment("keys")
    found = env.from_batch(range(60)).keyby(lambda n: n % 3).map(function, parallelism=2, **options).collect()
    env.submit(autostop=True)
    assert len(found) == 60 and len(set(found)) == 3


def test_aggregates_without_a_key_also_of_nothing() -> None:
    env = LocalEnvironment("whole")
    results = {}
    for name, records in [("some", [3, 1, 2]), ("none", [])]:
        stream = env.from_batch(records, name=name)
        results[name] = [
            stream.count().collect(),
            stream.reduce(max).collect(),
            stream.fold(10, lambda total, n: total + n).collect(),
        ]
    run(env)
    assert results == {"some": [[3], [3], [16]], "none": [[0], [], [10]]}


@pytest.mark.parametrize("parallelism", [1, 2])
def test_states_of_keys(parallelism: int) -> None:
    env = LocalEnvironment("states")
    keyed = env.from_batch([("a", 1), ("b", 5), ("a", 2), ("b", 1)]).keyby(lambda pair: pair[0])
    running = keyed.map_with_state(
        0, lambda total, pair: (total + pair[1], (pair[0], total + pair[1])), parallelism=parallelism
    )
    repeated = keyed.flatmap_with_state(
        list, lambda seen, pair: ([*seen, pair], [*seen, pair]), parallelism=parallelism
    )
    first = keyed.distinct(parallelism=parallelism).collect()
    top = keyed.top_k(1, lambda pair: pair[1], parallelism=parallelism).collect()
    running, repeated = running.collect(), repeated.collect()  # type: ignore[assignment]
    run(env)
    assert sorted(running) == [("a", 1), ("a", 3), ("b", 5), ("b", 6)]  # type: ignore[call-overload]
    wanted: Any = {("a", 1): 2, ("b", 5): 2, ("a", 2): 1, ("b", 1): 1}
    assert Counter(repeated) == Counter(wanted)
    assert sorted(first) == [("a", 1), ("b", 5)]
    assert sorted(top) == [("a", [("a", 2)]), ("b", [("b", 5)])]


def test_an_initial_state_is_copied_for_each_key() -> None:
    env = LocalEnvironment("copies")

    def add(seen: list[int], n: int) -> list[int]:
        seen.append(n)
        return seen

    lists = env.from_batch(range(6)).keyby(lambda n: n % 2).fold([], add).collect()
    run(env)
    assert dict(lists) == {0: [0, 2, 4], 1: [1, 3, 5]}


@pytest.mark.parametrize("parallelism", [1, 2])
def test_keys_compare_as_in_a_dict_and_not_a_number_is_one_key(parallelism: int) -> None:
    env = LocalEnvironment("keys")
    keys = [
        1,
        1.0,
        True,
        float("nan"),
        float("nan"),
        2**80,
        float(2**80),
        "\ud800",
        b"x",
        ("a", (1, None)),
        ("a", (1.0, None)),
    ]
    counts = env.from_batch(keys).keyby(lambda key: key).count(parallelism=parallelism).collect()
    run(env)
    counted = {("nan" if key != key else key): count for key, count in counts}
    assert counted == {1: 3, "nan": 2, 2**80: 2, "\ud800": 1, b"x": 1, ("a", (1, None)): 2}


@pytest.mark.parametrize("parallelism", [1, 2])
def test_what_is_no_key_fails_with_the_operator_named(parallelism: int) -> None:
    env = LocalEnvironment("no-key")
    env.from_batch([[1]]).keyby(lambda record: record, name="list-key").count(parallelism=parallelism).collect()
    with pytest.raises(RuntimeError, match="unhashable type: 'list'"):
        run(env)


def test_a_state_needs_its_key_in_one_place() -> None:
    env = LocalEnvironment("strategies")
    with pytest.raises(ValueError, match="strategy `hash`"):
        env.from_batch([1]).keyby(lambda n: n, strategy="round_robin").count()
    with pytest.raises(ValueError, match="at least one record"):
        env.from_batch([1]).keyby(lambda n: n).top_k(0)


def test_a_count_ends_a_chain_and_another_begins() -> None:
    env = LocalEnvironment("two-counts")
    counts = env.from_batch(WORDS).keyby(lambda word: word).count().keyby(lambda pair: pair[1] % 2).count().collect()
    run(env)
    assert dict(counts) == Counter(count % 2 for count in Counter(WORDS).values())


EVENTS = [(RANDOM.randrange(0, 100) + n * 0.5, RANDOM.choice("ab"), n) for n in range(400)]


def expected(starts: Any, size: float) -> dict[tuple[str, float], list[int]]:
    windows: dict[tuple[str, float], list[int]] = defaultdict(list)
    for time, key, n in EVENTS:
        for start in starts(time):
            assert start <= time < start + size
            windows[key, start].append(n)
    return windows


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize(("windows", "size", "every"), [(Tumbling(10), 10, 10), (Sliding(20, 5), 20, 5)])
def test_windows_of_event_time(windows: Any, size: int, every: int, parallelism: int) -> None:
    env = LocalEnvironment("windows")
    keyed = (
        env.from_batch(EVENTS)
        .with_timestamps(lambda event: event[0], out_of_order=100)
        .keyby(lambda event: event[1])
    )
    lists = keyed.window(windows).apply(
        lambda key, start, end, events: (key, end - start, [e[2] for e in events]), parallelism=parallelism
    )
    counts = keyed.window(windows).count(parallelism=parallelism).collect()
    lowest = keyed.window(windows).reduce(min).collect()
    sums = keyed.window(windows).fold(0, lambda total, event: total + event[2]).collect()
    gathered = lists.collect()
    run(env)

    def starts(time: float) -> list[float]:
        last = time // every * every
        return [last - k * every for k in range(size // every)]

    reference = expected(starts, size)
    assert {(w.key, w.start): w.value for w in gathered} == {
        (key, start): (key, size, numbers) for (key, start), numbers in reference.items()
    }
    assert {(w.key, w.start): w.value for w in counts} == {at: len(numbers) for at, numbers in reference.items()}
    assert {(w.key, w.start): w.value for w in sums} == {at: sum(numbers) for at, numbers in reference.items()}
    assert {(w.key, w.start): w.value[2] for w in lowest} == {
        at: min((EVENTS[n] for n in numbers))[2] for at, numbers in reference.items()
    }


def test_sessions_count_windows_and_datetimes() -> None:
    env = LocalEnvironment("sessions")
    moments = [0.0, 1.0, 1.5, 10.0, 11.0, 30.25]
    events = [datetime.fromtimestamp(moment, timezone.utc) for moment in moments]
    keyed = env.from_batch(events).with_timestamps(lambda event: event).keyby(lambda _: "all")
    sessions = keyed.window(Session(5)).count().collect()
    fours = env.from_batch(range(10)).keyby(lambda n: n % 2).window(Count(4)).apply(lambda *window: window[3]).collect()
    run(env)
    assert [(w.start, w.end, w.value) for w in sessions] == [(0, 6.5, 3), (10, 16, 2), (30.25, 35.25, 1)]
    assert sorted(w.value for w in fours) == [[0, 2, 4, 6], [1, 3, 5, 7], [8], [9]]


def test_late_records_go_where_they_are_sent_and_windows_can_follow_windows() -> None:
    env = LocalEnvironment("late")
    late: list[Any] = []
    times = [*range(2000), 5]
    stream = env.from_batch(times).map(lambda time: time, parallelism=2).map(lambda time: time)
    keyed = stream.with_timestamps(lambda time: time).keyby(lambda _: "k")
    windowed = keyed.window(Tumbling(10)).late_to(late.append).count()
    longer = windowed.keyby(lambda w: w.key).window(Tumbling(100)).fold(0, lambda total, w: total + w.value).collect()
    run(env)
    assert sum(w.value for w in longer) + len(late) == len(times)


def test_windows_by_the_clock_lose_nothing() -> None:
    env = LocalEnvironment("clock")
    counts = env.from_batch(range(1000)).keyby(lambda n: n % 3).window_by_clock(Tumbling(0.001)).count().collect()
    run(env)
    total: Counter[int] = Counter()
    for window in counts:
        assert window.end - window.start == pytest.approx(0.001, abs=1e-6)
        total[window.key] += window.value
    assert total == {0: 334, 1: 333, 2: 333}


def test_windows_that_cannot_be() -> None:
    env = LocalEnvironment("mistakes")
    keyed = env.from_batch([1]).keyby(lambda n: n)
    with pytest.raises(ValueError, match="with_timestamps"):
        keyed.window(Tumbling(1))
    with pytest.raises(TypeError, match="Tumbling, Sliding"):
        keyed.window_by_clock(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no record is late"):
        keyed.window_by_clock(Tumbling(1)).allowed_lateness(3)
    keyed.window_by_clock(Tumbling(0)).count().collect()
    with pytest.raises(SubmitError, match="shorter than 1 ms"):
        run(env)


@pytest.mark.parametrize("parallelism", [1, 2])
def test_joins(parallelism: int) -> None:
    left = [(RANDOM.choice([None, 0, "x", 3]), n) for n in range(50)]
    right = [(RANDOM.choice([None, 0.0, "y", 3]), n) for n in range(50)]
    env = LocalEnvironment("joins")
    one = env.from_batch(left).keyby(lambda pair: pair[0])
    other = env.from_batch(right).keyby(lambda pair: pair[0])
    inner = one.join(other).inner(parallelism=parallelism).collect()
    outer = one.join(other).left(parallelism=parallelism).collect()
    full = one.join(other).full(parallelism=parallelism).collect()
    run(env)
    pairs = Counter((a, b) for a in left for b in right if a[0] == b[0])
    alone = Counter((a, None) for a in left if all(a[0] != b[0] for b in right))
    strangers = Counter((None, b) for b in right if all(a[0] != b[0] for a in left))
    assert Counter((pair.left, pair.right) for pair in inner) == pairs
    assert Counter((pair.left, pair.right) for pair in outer) == pairs + alone
    assert Counter((pair.left, pair.right) for pair in full) == pairs + alone + strangers
    assert all(pair.key == pair.left[0] for pair in inner)


def test_a_join_in_windows_and_one_that_keeps_too_much() -> None:
    env = LocalEnvironment("window-join")
    shown = env.from_batch([(0.1, "tea"), (0.2, "nuts"), (1.7, "tea")], name="shown")
    clicked = env.from_batch([(0.6, "tea"), (2.1, "nuts")], name="clicked")
    sides = [side.with_timestamps(lambda e: e[0], out_of_order=1).keyby(lambda e: e[1]) for side in (shown, clicked)]
    pairs = sides[0].join(sides[1]).window(Tumbling(1)).left().collect()
    run(env)
    assert sorted((p.start, p.key, p.right and p.right[0]) for p in pairs) == [
        (0, "nuts", None),
        (0, "tea", 0.6),
        (1, "tea", None),
    ]
    env = LocalEnvironment("too-much")
    stream = env.from_batch(range(100)).keyby(lambda n: n)
    stream.join(env.from_batch(range(100)).keyby(lambda n: n)).max_records(10).inner().collect()
    with pytest.raises(RuntimeError, match="10"):
        run(env)


def test_records_go_round_until_none_is_left() -> None:
    env = LocalEnvironment("loop")
    again = env.from_future("again")
    halved = env.from_batch([1, 6, 40, 7]).connect(again).map(lambda n: n // 2 if n % 2 == 0 else n)
    halved.filter(lambda n: n % 2 == 0).fill_future(again)
    odd = halved.filter(lambda n: n % 2 == 1).collect()
    run(env)
    assert sorted(odd) == [1, 3, 5, 7]


def test_loops_that_cannot_be() -> None:
    env = LocalEnvironment("open-loop")
    again = env.from_future("again")
    stream = env.from_batch([1]).connect(again).map(lambda n: n)
    stream.collect()
    with pytest.raises(SubmitError, match="`again` is not filled"):
        run(env)
    with pytest.raises(TypeError, match="from_future"):
        stream.fill_future(stream)
    stream.fill_future(again)
    with pytest.raises(ValueError, match="filled already"):
        stream.fill_future(again)
    env = LocalEnvironment("full-loop")
    again = env.from_future("again", limit=50)
    env.from_batch(range(1000)).connect(again).map(lambda n: n).fill_future(again)
    with pytest.raises(RuntimeError, match="loop"):
        run(env)


def test_take_ends_a_source_that_would_not() -> None:
    env = LocalEnvironment("first")
    count = iter(range(10**9))
    some = env.from_source(lambda: next(count)).take(5).collect()
    run(env)
    assert some == [0, 1, 2, 3, 4]


class Unpaid(ProcessFunction):
    """Orders that were not paid within a minute."""

    def __init__(self, closed: list[int]) -> None:
        self.closed = closed

    def on_record(self, event: tuple[float, str, int], key: KeyContext) -> None:
        time, what, order = event
        assert key.key == order
        if what == "paid":
            key.forget()
        else:
            key.state = (key.state or 0) + 1
            key.set_timer(time + 60)
            key.set_timer(time + 61)
            key.cancel_timer(time + 61)

    def on_timer(self, timer: Timer, key: KeyContext) -> None:
        assert not timer.clock and (key.watermark is None or key.watermark >= timer.at)
        key.push((key.key, timer.at, key.state, self.ctx.parallelism))
        key.forget()

    def close(self) -> None:
        self.closed.append(self.ctx.replica)


@pytest.mark.parametrize("parallelism", [1, 2])
def test_timers_of_keys(parallelism: int) -> None:
    events = [
        (0, "ordered", 1),
        (5, "ordered", 2),
        (20, "paid", 1),
        (90, "ordered", 3),
        (95, "paid", 3),
        (96, "ordered", 4),
    ]
    closed: list[int] = []
    env = LocalEnvironment("unpaid")
    keyed = env.from_batch(events).with_timestamps(lambda event: event[0]).keyby(lambda event: event[2])
    unpaid = keyed.process(Unpaid, closed, parallelism=parallelism).collect()
    run(env)
    assert sorted(unpaid) == [(2, 65, 1, parallelism), (4, 156, 1, parallelism)] and sorted(closed) == list(
        range(parallelism)
    )


class Alarm(ProcessFunction):
    def on_record(self, record: int, key: KeyContext) -> None:
        if record == 3:
            raise LookupError("no threes")
        key.set_timer(key.now + 0.001, clock=True)

    def on_timer(self, timer: Timer, key: KeyContext) -> None:
        assert timer.clock
        key.push(key.key)


def test_timers_by_the_clock_and_what_raises() -> None:
    env = LocalEnvironment("alarm")
    rung = env.from_batch([1, 2]).keyby(lambda n: n).process(Alarm).collect()
    run(env)
    assert sorted(rung) == [1, 2]
    env = LocalEnvironment("raises")
    env.from_batch([1, 2, 3]).keyby(lambda n: n).process(Alarm).collect()
    with pytest.raises(JobFailed, match="`Alarm`, record 3: LookupError: no threes") as failed:
        run(env)
    assert isinstance(failed.value.__cause__, LookupError)
    with pytest.raises(TypeError, match="ProcessFunction"):
        env.from_batch([1]).keyby(lambda n: n).process(len)  # type: ignore[arg-type]
