"""The context of functions and services: the job, its services, the keys of records, and how a function ends it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sage import BaseCoMapFunction, BaseJoinFunction, BaseService, FilterFunction, FlatMapFunction, JobFailed
from sage import KeyByFunction, LocalEnvironment, MapFunction, SinkFunction, SourceFunction, StopSignal, ops


class Keyed(MapFunction):
    """Pairs of the key and the record."""

    def execute(self, record: Any) -> Any:
        return self.ctx.get_key(), record


class OfKey(FilterFunction):
    def __init__(self, key: Any) -> None:
        self.key = key

    def execute(self, record: Any) -> bool:
        return bool(self.ctx.get_key() == self.key)


class Twice(FlatMapFunction):
    def execute(self, record: Any) -> Any:
        return [(self.own, record)] * 2

    @property
    def own(self) -> Any:
        return self.ctx.get_key()


class Rekey(KeyByFunction):
    def execute(self, record: Any) -> Any:
        return self.ctx.get_key(), record % 3


def run(env: LocalEnvironment) -> None:
    env.submit(autostop=True)


def parity(n: int) -> str:
    return "odd" if n % 2 else "even"


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("strategy", ["hash", "round_robin"])
def test_a_function_is_told_the_key_of_each_record(parallelism: int, strategy: str) -> None:
    seen: list[Any] = []

    class Keep(SinkFunction):
        def execute(self, record: Any) -> None:
            seen.append((self.ctx.get_key(), record))

    env = LocalEnvironment()
    keyed = env.from_batch(range(20)).keyby(parity, strategy=strategy)
    pairs = keyed.map(Keyed, parallelism=parallelism).collect()
    odd = keyed.filter(OfKey, "odd", parallelism=parallelism).collect()
    twice = keyed.flatmap(Twice, parallelism=parallelism).collect()
    keyed.map(lambda n: n * 10, parallelism=parallelism).filter(lambda n: n < 100).map(str).sink(Keep)
    keyed.map(lambda n: n * 10, on_error="skip").sink(Keep, parallelism=parallelism)
    again = keyed.map(lambda n: n, parallelism=parallelism).keyby(Rekey).map(Keyed, parallelism=2).collect()
    run(env)
    expected = sorted((parity(n), n) for n in range(20))
    assert sorted(pairs) == expected and sorted(odd) == list(range(1, 20, 2))
    assert sorted(twice) == sorted(expected * 2)
    assert sorted(seen, key=str) == sorted(
        [(parity(n), str(n * 10)) for n in range(10)] + [(parity(n), n * 10) for n in range(20)], key=str
    )
    assert sorted(again) == sorted(((parity(n), n % 3), n) for n in range(20))


def test_there_is_no_key_without_a_keyby_or_behind_what_makes_new_records() -> None:
    env = LocalEnvironment()
    numbers = env.from_batch([1, 2])
    plain = numbers.map(Keyed).collect()
    counted = numbers.keyby(parity).count().map(Keyed).collect()
    spread = numbers.keyby(parity).count().map(Keyed, parallelism=2).collect()
    states = numbers.keyby(parity).map_with_state(0, lambda state, n: (state, n)).map(Keyed, parallelism=2).collect()
    odd, even = numbers.keyby(parity).split(lambda n: n == 1)
    sides = odd.map(Keyed).collect(), even.map(Hidden, keep_none=True).collect()
    unseen = numbers.map(Hidden, keep_none=True).collect()
    native = env.from_batch([{"a": 1, "b": [2]}]).keyby(ops.field("a")).map(ops.field("b")).map(Keyed).collect()
    run(env)
    assert plain == [(None, 1), (None, 2)] and unseen == [None, None] and sides == ([(None, 1)], [None])
    assert sorted(counted) == sorted(spread) == [(None, ("even", 1)), (None, ("odd", 1))]
    assert sorted(states) == [("even", 2), ("odd", 1)] and native == [(1, [2])]


def test_joint_functions_are_told_the_key_as_well() -> None:
    class Both(BaseCoMapFunction):
        def map0(self, record: Any) -> Any:
            return self.ctx.get_key(), record

        map1 = map0

    class Join(BaseJoinFunction):
        def execute(self, payload: Any, key: Any, tag: int) -> Any:
            return [(key, self.ctx.get_key(), payload)]

    env = LocalEnvironment()
    streams = env.from_batch([1, 2]).connect(env.from_batch([3]))
    both = streams.keyby(parity).comap(Both).collect()
    joined = streams.keyby(parity).join(Join, parallelism=2).collect()
    without = streams.comap(Both).collect()
    merged = streams.keyby(parity).map(Keyed).collect()
    run(env)
    assert sorted(both) == sorted(merged) == [("even", 2), ("odd", 1), ("odd", 3)]
    assert sorted(joined) == [("even", "even", 2), ("odd", "odd", 1), ("odd", "odd", 3)]
    assert sorted(without) == [(None, 1), (None, 2), (None, 3)]


def key_of(context: Any) -> Any:
    return context.get_key()


class Hidden(MapFunction):
    def execute(self, record: Any) -> Any:
        return key_of(self.ctx)


class Said(Hidden):
    uses_key = True


class Awaits(MapFunction):
    async def execute(self, record: Any) -> Any:
        return self.ctx.get_key()


def test_a_key_that_a_function_was_not_told_is_an_error() -> None:
    env = LocalEnvironment()
    keys = env.from_batch([1]).keyby(parity).map(Said).collect()
    run(env)
    assert keys == ["odd"]
    for function, hint in [(Hidden, "set `uses_key = True`"), (Awaits, "leave out `in_flight` and `async`")]:
        env = LocalEnvironment()
        env.from_batch([1]).keyby(parity).map(function).collect()
        with pytest.raises(JobFailed, match=hint):
            run(env)


def test_a_context_tells_of_its_job_and_its_services(tmp_path: Path) -> None:
    seen: list[Any] = []
    folders: list[Any] = []

    class Db(BaseService):
        def setup(self) -> None:
            self.seen = self.ctx.env_name, self.ctx.env_uuid

        def search(self, n: int) -> Any:
            return n, self.seen, self.ctx.get_key()

    class Ask(SinkFunction):
        def __init__(self) -> None:
            self.uuid = self.ctx.env_uuid

        def execute(self, n: int) -> None:
            ctx = self.ctx
            folders.append(ctx.env_base_dir)
            seen.append((ctx.parallel_index, ctx.parallelism, ctx.env_name, self.uuid, ctx.get_service("db").search(n)))
            with pytest.raises(KeyError, match="did you mean one of these: db"):
                ctx.get_service("dbs")

    env = LocalEnvironment("asked", {"log_dir": tmp_path})
    env.register_service("db", Db)
    env.from_batch([1]).sink(Ask)
    job = env.submit(autostop=True)
    assert folders == [env.env_base_dir] and str(tmp_path) in folders[0]
    assert seen == [(0, 1, "asked", job, (1, ("asked", job), None))]


class Counts(SourceFunction):
    """Counts, and ends itself behind a number."""

    def __init__(self, last: int | None = None) -> None:
        self.n, self.last = 0, last

    def execute(self) -> int:
        assert self.last is None or not self.ctx.is_stop_requested()
        self.n += 1
        if self.n == self.last:
            self.ctx.request_stop()
            assert self.ctx.is_stop_requested()
        return self.n


@pytest.mark.parametrize("retry", [None, 2])
def test_a_source_that_requests_a_stop_ends_behind_its_record_and_others_go_on(retry: int | None) -> None:
    env = LocalEnvironment()
    ended = env.from_source(Counts, 3, retry=retry).collect()
    others = env.from_source(Counts, 1000).collect()
    run(env)
    assert ended == [1, 2, 3] and others == list(range(1, 1001))


def test_a_source_may_request_a_stop_before_its_first_record() -> None:
    class Never(Counts):
        def __init__(self) -> None:
            super().__init__()
            self.ctx.request_stop()

    env = LocalEnvironment()
    none, some = env.from_source(Never).collect(), env.from_source(Counts, 2).collect()
    run(env)
    assert none == [] and some == [1, 2]


def test_any_other_function_ends_the_sources_of_its_job() -> None:
    class Until(SinkFunction):
        def execute(self, n: int) -> None:
            if n == 5:
                self.ctx.request_stop()

    env = LocalEnvironment()
    env.from_source(Counts).sink(Until)
    others = env.from_source(Counts).collect()
    run(env)
    assert others == list(range(1, len(others) + 1))


def test_a_source_that_works_on_for_long_sees_that_it_is_to_stop() -> None:
    begun = threading.Event()

    class Looks(SourceFunction):
        def execute(self) -> Any:
            begun.set()
            while not self.ctx.is_stop_requested():
                pass
            return StopSignal()

    env = LocalEnvironment()
    got = env.from_source(Looks).collect()
    env.submit()
    assert begun.wait(60)
    env.stop()
    assert got == []


def test_an_instance_that_takes_over_is_told_the_key_as_well() -> None:
    failed: list[Any] = []

    class Fails(Keyed):
        def execute(self, record: Any) -> Any:
            if record == 2 and not failed:
                failed.append(self)
                raise ValueError(record)
            assert self not in failed
            return super().execute(record)

    restart = {"strategy": "restart", "restart_strategy": "fixed", "delay": 0.001}
    env = LocalEnvironment("anew", {"fault_tolerance": restart})
    pairs = env.from_batch([1, 2, 3]).keyby(parity).map(Fails).collect()
    run(env)
    assert pairs == [("odd", 1), ("even", 2), ("odd", 3)] and len(failed) == 1
