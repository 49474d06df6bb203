"""What pipelines compute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage import (
    BaseCoMapFunction,
    BaseFunction,
    BaseJoinFunction,
    BatchFunction,
    DataStream,
    FilterFunction,
    FlatMapFunction,
    JobFailed,
    KeyByFunction,
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
        getattr(stream, kind)(lambda n: [fails(n)] if kind == "flatmap" else fails(n), name="fails").sink(
            lambda _: None
        )
    with pytest.raises(JobFailed, match="record 1235: in `fails`: Broken: at 1234") as failed:
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
    env.from_batch([1]).filter(lambda n: n)
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


@pytest.mark.parametrize(
    "declare",
    [
        lambda stream: stream.map(str, parallelism=0),
        lambda stream: stream.map(7),
        lambda stream: stream.map(str, retry="twice"),
        lambda stream: stream.map(str, in_flight=0),
        lambda stream: stream.map(str, timeout=1),
        lambda stream: stream.keyby(str, in_flight=2),
        lambda stream: stream.split(str, in_flight=2),
        lambda stream: stream.keyby(str, strategy="none"),
        lambda stream: stream.take(-1),
        lambda stream: stream.sink(print, on_error="ignore"),
    ],
)
def test_a_declaration_that_raises_leaves_the_pipeline_as_it_was(declare: Callable[[DataStream], Any]) -> None:
    env = LocalEnvironment("mistake")
    stream = env.from_batch([1, 2])
    with pytest.raises((TypeError, ValueError)):
        declare(stream)
    got = stream.map(str).collect()
    assert [step.name for step in env.pipeline] == ["batch", "str", "collect"]
    env.submit(autostop=True)
    assert got == ["1", "2"]


class NoRecords:
    def __iter__(self) -> Any:
        raise TypeError("no records in here")


def test_a_flatmap_whose_result_cannot_be_gone_through_names_its_operator() -> None:
    env = LocalEnvironment("flat")
    env.from_batch([1]).flatmap(lambda n: NoRecords(), name="flat").sink(print)
    with pytest.raises(JobFailed, match="record 1: in `flat`: TypeError"):
        env.submit(autostop=True)


class Collects(FlatMapFunction):
    def execute(self, result: Any) -> Any:
        self.collect("first")
        self.out.collect("second")
        return result


class CollectsLater(FlatMapFunction):
    async def execute(self, result: Any) -> Any:
        self.out.collect("first")
        self.collect("second")
        return result


async def itself(result: Any) -> Any:
    return result


@pytest.mark.parametrize(
    ("result", "records"),
    [("ab", ["ab"]), (b"ab", [b"ab"]), ("", [""]), (5, [5]), (len, [len]), (None, []), ((), []), ([None], [None])],
    ids=repr,
)
def test_a_flatmap_gives_what_it_collects_and_what_it_returns(result: Any, records: list[Any]) -> None:
    env = LocalEnvironment("flat")
    stream = env.from_batch([result])
    plain, later = stream.flatmap(lambda it: it).collect(), stream.flatmap(itself).collect()
    failing, threads = stream.flatmap(lambda it: it, on_error="skip"), stream.flatmap(lambda it: it, in_flight=2)
    others = failing.collect(), threads.collect()
    both, both_later = stream.flatmap(Collects).collect(), stream.flatmap(CollectsLater).collect()
    both_on_threads = stream.flatmap(Collects, in_flight=2).collect()
    env.submit(autostop=True)
    assert plain == later == others[0] == others[1] == records
    assert both == both_later == both_on_threads == ["first", "second", *records]


@pytest.mark.parametrize("base", [SourceFunction, BatchFunction, BaseFunction, MapFunction, object])
@pytest.mark.parametrize("end", [None, StopSignal("over")], ids=["none", "signal"])
def test_a_batch_and_a_source_may_be_of_any_class(base: type, end: Any) -> None:
    given = iter([1, 2, end, 3])
    paused = iter([1, None, 2, StopSignal("over"), 3])
    batch = type("Batch", (base,), {"execute": lambda self: next(given)})
    source = type("Source", (base,), {"execute": lambda self: next(paused)})
    env = LocalEnvironment("any")
    of_batch, of_source = env.from_batch(batch).collect(), env.from_source(source).collect()
    env.submit(autostop=True)
    assert of_batch == of_source == [1, 2]


@pytest.mark.parametrize("base", [SourceFunction, BatchFunction, BaseFunction, FilterFunction, object])
def test_a_map_takes_any_class_with_execute(base: type) -> None:
    env = LocalEnvironment("any")
    got = env.from_batch([1, 2]).map(type("Half", (base,), {"execute": lambda self, n=None: n / 2})).collect()
    env.submit(autostop=True)
    assert got == [0.5, 1.0]


class Seen(SinkFunction):
    """Notes which replica had which key."""

    def __init__(self, seen: dict[Any, set[int]]) -> None:
        self.seen = seen

    def execute(self, record: tuple[Any, int]) -> None:
        self.seen.setdefault(record[0], set()).add(self.ctx.replica)


class First(KeyByFunction):
    def execute(self, record: tuple[Any, int]) -> Any:
        return record[0]


KEYS = [None, 0, "", False, (), "a", "\ud800", b"a", 1, 1.0, True, 2**80, -1, ("a", 0), frozenset([1]), *range(20)]


@pytest.mark.parametrize("function", [First, lambda record: record[0]])
def test_equal_keys_go_to_one_replica_falsy_ones_as_well(function: Any) -> None:
    seen: dict[Any, set[int]] = {}
    env = LocalEnvironment("keys")
    records = [(key, n) for n in range(50) for key in KEYS]
    env.from_batch(records).keyby(function).sink(Seen, seen, parallelism=3)
    env.submit(autostop=True)
    assert set(seen) == set(KEYS)
    assert all(len(replicas) == 1 for replicas in seen.values()), seen
    assert {replica for replicas in seen.values() for replica in replicas} == {0, 1, 2}


#: The replica, of eight, that each of the keys in the test went to in another run.
REPLICAS = [5, 4, 5, 6, 5, 0, 7, 3]


def test_keys_go_where_they_went_in_the_last_run() -> None:
    seen: dict[Any, set[int]] = {}
    env = LocalEnvironment("stable")
    keys = ["a", "b", b"a", ("a", 1), ("a", ("b", None)), 7, 8, 0.5]
    env.from_batch([(key, 0) for key in keys]).keyby(First).sink(Seen, seen, parallelism=8)
    env.submit(autostop=True)
    assert [list(seen[key]) for key in keys] == [[replica] for replica in REPLICAS]


def test_a_broadcast_reaches_every_replica_and_a_round_robin_one() -> None:
    for strategy, times in [("broadcast", 3), ("round_robin", 1)]:
        env = LocalEnvironment(strategy)
        got = env.from_batch(range(90)).keyby(lambda n: n, strategy=strategy).map(lambda n: n, parallelism=3).collect()
        env.submit(autostop=True)
        assert sorted(got) == sorted(list(range(90)) * times)
    with pytest.raises(ValueError, match="hash, broadcast, round_robin"):
        env.from_batch([1]).keyby(lambda n: n, strategy="random")


class Sort(BaseCoMapFunction):
    def map0(self, n: int) -> tuple[str, int]:
        return "numbers", n

    def map1(self, text: str) -> tuple[str, str]:
        return "texts", text

    def map2(self, n: int) -> tuple[str, int]:
        return "others", n


class SlowNumbers(BatchFunction):
    def __init__(self) -> None:
        self.n = 0

    def execute(self) -> int | None:
        time.sleep(0.005)
        self.n += 1
        return self.n if self.n <= 5 else None


def test_a_comap_has_every_record_of_a_slow_source_and_of_a_fast_one() -> None:
    env = LocalEnvironment("comap")
    slow, fast = env.from_batch(SlowNumbers), env.from_batch("abcdefghij")
    got = slow.connect(fast).connect(env.from_batch([7])).comap(Sort).collect()
    env.submit(autostop=True)
    expected = [("numbers", n) for n in range(1, 6)] + [("texts", text) for text in "abcdefghij"] + [("others", 7)]
    assert sorted(map(repr, got)) == sorted(map(repr, expected))
    assert [n for kind, n in got if kind == "numbers"] == [1, 2, 3, 4, 5]


class Orders(BaseJoinFunction):
    """An inner join of customers with their orders."""

    def __init__(self) -> None:
        self.sides: dict[Any, tuple[list[Any], list[Any]]] = {}

    def execute(self, payload: Any, key: Any, tag: int) -> list[Any]:
        sides = self.sides.setdefault(key, ([], []))
        sides[tag].append(payload)
        others = sides[1 - tag]
        return [(payload, other) if tag == 0 else (other, payload) for other in others]


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize(("left", "right"), [(40, 7), (3, 100), (0, 5)])
def test_a_join_of_unequal_streams_is_exact(left: int, right: int, parallelism: int) -> None:
    lefts, rights = [(n % 5, n) for n in range(left)], [(n % 7, -n) for n in range(right)]
    env = LocalEnvironment("join")
    connected = env.from_batch(lefts).connect(env.from_batch(rights)).keyby([First, lambda record: record[0]])
    got = connected.join(Orders, parallelism=parallelism).collect()
    env.submit(autostop=True)
    assert sorted(got) == sorted((a, b) for a in lefts for b in rights if a[0] == b[0])


def test_connected_streams_are_mapped_and_sunk_as_one() -> None:
    env = LocalEnvironment("union")
    got: list[int] = []
    env.from_batch([1, 2]).connect(env.from_batch([3]).map(lambda n: n)).sink(got.append)
    mapped = env.from_batch([10]).connect(env.from_batch([20])).map(lambda n: n + 1).collect()
    env.submit(autostop=True)
    assert sorted(got) == [1, 2, 3] and sorted(mapped) == [11, 21]


def test_what_cannot_be_connected_is_refused() -> None:
    env = LocalEnvironment("refused")
    one, other = env.from_batch([1]), env.from_batch([2])
    with pytest.raises(TypeError, match="has no `map3`, for stream 3 of 4"):
        one.connect(other).connect(one).connect(other).comap(Sort)
    with pytest.raises(ValueError, match="need a key"):
        one.connect(other).join(Orders)
    with pytest.raises(ValueError, match="two environments"):
        one.connect(LocalEnvironment("another").from_batch([1]))
    with pytest.raises(ValueError, match="2 streams need as many functions"):
        one.connect(other).keyby([First])
