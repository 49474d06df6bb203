"""The shape of a pipeline: where it may end, and what is called around its functions."""

from __future__ import annotations

from typing import Any

import pytest

from sage import (
    BaseCoMapFunction,
    BatchFunction,
    DeadLetterQueue,
    FilterFunction,
    JobFailed,
    KeyByFunction,
    LocalEnvironment,
    MapFunction,
    SinkFunction,
    SourceFunction,
    StopSignal,
    SubmitError,
)


class Same(BaseCoMapFunction):
    def map0(self, n: int) -> int:
        return n

    map1 = map0


async def later(n: int) -> int:
    return n


@pytest.mark.parametrize("more", [{}, {"parallelism": 2}, {"on_error": "skip"}, {"in_flight": 2}], ids=str)
def test_a_pipeline_may_end_in_a_map(more: dict[str, Any]) -> None:
    seen: list[int] = []
    env = LocalEnvironment("open")
    env.from_batch(range(10)).filter(lambda n: n > 1).map(lambda n: seen.append(n) or n, name="last", **more)
    with pytest.warns(UserWarning, match="`last`: no sink follows") as warned:
        report = env.submit(autostop=True).report
    assert sorted(seen) == list(range(2, 10)) and len(warned) == 1 and warned[0].filename == __file__
    rows = [row for row in report.data["operators"] if "last" in row["name"]]
    assert [row["records_out"] for row in rows] == [8] or (not more and rows[0]["records_in"] == 10)
    assert [step.name for step in env.pipeline] == ["batch", "lambda", "last"]


def test_comaps_async_maps_and_several_ends_are_named_in_one_warning() -> None:
    env = LocalEnvironment("open")
    batch = env.from_batch([1, 2])
    batch.connect(batch.map(lambda n: n)).comap(Same, name="both")
    batch.map(later)
    got = batch.collect()
    with pytest.warns(UserWarning, match="`both`, `later`: no sink follows") as warned:
        env.submit(autostop=True)
    assert len(warned) == 1 and got == [1, 2]


def test_other_steps_need_a_sink() -> None:
    for declare in (lambda s: s.filter(bool), lambda s: s.flatmap(lambda n: [n]), lambda s: s.keyby(bool).count()):
        env = LocalEnvironment("open")
        declare(env.from_batch([1]))
        with pytest.raises(SubmitError, match="has no sink"):
            env.submit(autostop=True)


def test_a_sink_returns_the_stream_it_was_called_on() -> None:
    env = LocalEnvironment("branches")
    first: list[int] = []
    second: list[int] = []
    stream = env.from_batch([1, 2])
    both = stream.connect(env.from_batch([3]))
    assert stream.sink(first.append) is stream and both.sink(first.append) is both
    doubled = stream.sink(second.append).map(lambda n: 2 * n).collect()
    env.submit(autostop=True)
    assert sorted(first) == [1, 1, 2, 2, 3] and second == [1, 2] and doubled == [2, 4]


EVENTS: list[tuple[str, str, Any]] = []


class Noted:
    """Notes what is called of a function, with the name in the context it is given."""

    def __init__(self, *_: Any) -> None:
        self._note("made", self.ctx)  # type: ignore[attr-defined]

    def _note(self, what: str, context: Any) -> None:
        assert context is self.ctx  # type: ignore[attr-defined]
        EVENTS.append((type(self).__name__, what, context.name))

    def setup(self, context: Any) -> None:
        self._note("setup", context)

    def teardown(self, context: Any) -> None:
        self._note("teardown", context)

    def close(self) -> None:
        self._note("close", self.ctx)  # type: ignore[attr-defined]


class Numbers(Noted, BatchFunction):
    n = 0

    def execute(self) -> Any:
        self.n += 1
        return self.n if self.n < 4 else None


class Polled(Noted, SourceFunction):
    n = 0

    def execute(self) -> Any:
        self.n += 1
        return self.n if self.n < 4 else StopSignal()


class Plus(Noted, MapFunction):
    def execute(self, n: int) -> int:
        return n + 1


class Some(Noted, FilterFunction):
    def execute(self, n: int) -> bool:
        return n < 4


class Later(Noted, MapFunction):
    async def setup(self, context: Any) -> None:
        self._note("setup", context)

    async def execute(self, n: int) -> int:
        return n

    async def teardown(self, context: Any) -> None:
        self._note("teardown", context)


class Fails(Noted, MapFunction):
    def execute(self, n: int) -> int:
        raise RuntimeError("no number")


class End(Noted, SinkFunction):
    def execute(self, n: int) -> None:
        pass


class Unready(Noted, MapFunction):
    def setup(self, context: Any) -> None:
        super().setup(context)
        raise RuntimeError("not ready")

    def execute(self, n: int) -> int:
        return n


class UnreadyLater(Later):
    async def setup(self, context: Any) -> None:
        await super().setup(context)
        raise RuntimeError("not ready")


class Own(MapFunction):
    def setup(self) -> None:
        raise AssertionError("it is the program's own")

    teardown = setup

    def execute(self, n: int) -> int:
        return n


LIFE = ["made", "setup", "teardown", "close"]


def lives() -> dict[str, list[str]]:
    names = dict.fromkeys(name for name, _, _ in EVENTS)
    return {name: [what for owner, what, _ in EVENTS if owner == name] for name in names}


@pytest.mark.parametrize("ends", [Plus, Fails, Unready, UnreadyLater], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("source", ["batch", "source"])
def test_setup_and_teardown_are_called_once_each_whatever_happens(source: str, ends: type) -> None:
    EVENTS.clear()
    env = LocalEnvironment("hooks")
    begun = env.from_batch(Numbers, 1) if source == "batch" else env.from_source(Polled, 1)
    stream = begun.map(Plus, name="plus").map(Later).map(Own).filter(Some).map(Plus, in_flight=2, name="threads")
    stream.map(ends, name="ends").sink(End)
    if ends is Plus:
        env.submit(autostop=True)
    else:
        with pytest.raises((JobFailed, SubmitError)) as failed:
            env.submit(autostop=True)
        assert str(failed.value.__cause__) in ("no number", "not ready")
    counted = lives()
    assert ends.__name__ in counted
    for name, life in counted.items():
        # Of a class that two steps have, the lives run side by side.
        times = life.count("made")
        assert sorted(life) == sorted(LIFE * times) and (times > 1 or life == LIFE), name


class Named(SinkFunction):
    """Takes any keyword, as SAGE's programs do, and keeps what it got."""

    got: list[Any] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.got.append((args, kwargs))

    def execute(self, record: Any) -> None:
        self.got.append(self.name)


class NamedMap(MapFunction):
    def __init__(self, name: str = "nobody", size: int = 1) -> None:
        super().__init__()
        self.told = f"{name} {size}"

    def execute(self, record: Any) -> Any:
        return self.told


class NamedSource(BatchFunction):
    def __init__(self, name: str = "nobody") -> None:
        super().__init__()
        self.told: str | None = name

    def execute(self) -> str | None:
        told, self.told = self.told, None
        return told


class NamedMerge(Same):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        Named.got.append(kwargs)


def test_a_name_is_the_steps_and_goes_to_a_constructor_that_takes_it() -> None:
    Named.got = []
    env = LocalEnvironment("names")
    env.from_batch([1]).sink(Named, 2, name="ends", color="red")
    env.submit(autostop=True)
    assert Named.got == [((2,), {"name": "ends", "color": "red"}), "ends"]

    env = LocalEnvironment("names")
    first = env.from_batch(NamedSource, name="begins")
    given = first.map(NamedMap, name="maps", size=3).collect()
    positional = first.map(NamedMap, "mine", name="other").collect()
    plain = first.map(NamedMap).collect()
    second = env.from_source(NamedSource, name="goes on")
    merged = first.connect(second.take(1)).comap(NamedMerge, name="merges").collect()
    env.submit(autostop=True)
    assert (given, positional, plain) == (["maps 3"], ["mine 1"], ["nobody 1"])
    assert sorted(merged) == ["begins", "goes on"] and Named.got[2:] == [{"name": "merges"}]


def test_a_name_that_the_program_did_not_give_goes_to_no_constructor() -> None:
    Named.got = []
    env = LocalEnvironment("names")
    env.from_batch([0]).map(lambda n: 1 // n, on_error=DeadLetterQueue(Named)).sink(Named)
    env.submit(autostop=True)
    assert [got for got in Named.got if isinstance(got, tuple)] == [((), {}), ((), {})]
    assert len(Named.got) == 3


def test_a_strategy_may_come_right_behind_the_function_of_a_keyby() -> None:
    class Field(KeyByFunction):
        def __init__(self, field: str = "a") -> None:
            self.field = field

        def execute(self, record: dict[str, int]) -> int:
            return record[self.field]

    env = LocalEnvironment()
    records = env.from_batch([{"a": 1, "b": n} for n in range(6)])
    by_a = records.keyby(Field, "hash", parallelism=2).count().collect()
    by_b = records.keyby(Field, "hash", "b").count(parallelism=None).collect()  # type: ignore[arg-type]
    plain = records.keyby(Field, "b").count().collect()
    everywhere = records.keyby(Field, "broadcast").map(lambda n: n, parallelism=3).collect()
    streams = records.connect(records).keyby(lambda record: record["a"], "hash")
    both = streams.map(lambda record: record["b"], parallelism=None).collect()
    env.submit(autostop=True)
    assert by_a == [(1, 6)] and sorted(by_b) == sorted(plain) == [(n, 1) for n in range(6)]
    assert len(everywhere) == 18 and sorted(both) == sorted([*range(6)] * 2)
    with pytest.raises(ValueError, match="a strategy is one of hash"):
        streams.keyby(Field, "range")
