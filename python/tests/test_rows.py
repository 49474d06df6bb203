"""What a program reads of its job speaks of the steps that it declared: what the package and the engine run besides is
a part of one of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import sage
from sage import (
    BaseCoMapFunction,
    DeadLetterQueue,
    JobFailed,
    KeyContext,
    LocalEnvironment,
    MapFunction,
    ProcessFunction,
    Report,
    Retry,
    Tumbling,
)


#: Errors, whose tracebacks refer to what ran: no descriptor may stay open for that.
kept: list[BaseException] = []


def odd(n: int) -> int:
    return n % 2


async def llm(n: int) -> int:
    if n % 5 == 0:
        raise ValueError(f"not {n}")
    return n


def ignored(_record: Any) -> None:
    pass


class Twice(ProcessFunction):
    def on_record(self, record: Any, key: KeyContext) -> None:
        key.push(record)
        key.push(record)


class Both(BaseCoMapFunction):
    def map0(self, record: int) -> int:
        return record

    def map1(self, record: int) -> int:
        return -record


def rows(report: Report) -> dict[str, tuple[int, int, int, int]]:
    """The records that each row of a report took, gave and failed on, and how often it tried again."""
    counts = "records_in", "records_out", "failed", "retries"
    return {row["name"]: tuple(row[count] for count in counts) for row in report.data["operators"]}


def test_an_async_step_with_a_file_of_dead_letters_is_one_row(tmp_path: Path) -> None:
    env = LocalEnvironment("one")
    policy: dict[str, Any] = {"on_error": DeadLetterQueue(tmp_path / "dead.jsonl"), "retry": Retry(2, 0.001)}
    env.from_batch(range(10)).map(llm, **policy).collect()
    report = env.submit(autostop=True).report
    assert rows(report) == {"batch": (10, 10, 0, 0), "llm": (10, 8, 2, 2), "collect": (8, 8, 0, 0)}
    assert len(list(sage.read_letters(tmp_path / "dead.jsonl"))) == 2
    assert not re.search(r"\bof llm|map-\d", str(report)) and "of llm" not in report._repr_html_()
    (timed,) = [row for row in report.data["operators"] if row["name"] == "llm"]
    # The two that fail are in flight together, and either may be given up first.
    assert timed["busy"]["nanos"] > 0 and re.search("not [05]", timed["first_error"])
    assert env.explain().splitlines()[1:4] == ["  batch: iterable", "  llm: map ← batch", "  collect: sink ← llm"]
    assert env.explain().splitlines()[5:] == ["  [batch]", "  [llm]", "  [collect]"]


@pytest.mark.parametrize("how", ["async", "plain"])
def test_a_sink_with_a_policy_has_written_what_it_did_not_fail_on(how: str) -> None:
    env = LocalEnvironment("sinks")

    def write(n: int) -> None:
        if n % 5 == 0:
            raise ValueError

    env.from_batch(range(10)).sink(llm if how == "async" else write, name="write", on_error="skip")
    assert rows(env.submit(autostop=True).report)["write"] == (10, 8, 2, 0)


def test_windows_are_a_part_of_what_is_done_with_them() -> None:
    env = LocalEnvironment("windows")
    keyed = env.from_batch(range(20)).with_timestamps(float).keyby(odd)
    late: list[int] = []
    windowed = keyed.window(Tumbling(5)).late_to(late.append)
    windowed.count().sink(ignored, name="counted")
    windowed.fold(0, lambda total, n: total + n).map(str, name="text").sink(ignored, name="folded")
    windowed.apply(lambda key, start, end, records: len(records)).sink(ignored, name="applied")
    report = env.submit(autostop=True).report
    told = rows(report)
    assert told["count"][:2] == (20, 8) and told["counted"][:2] == (8, 8)
    assert told["lambda → text → folded"][:2] == (20, 8) and told["lambda-2 → applied"][:2] == (20, 8)
    assert report.functions["lambda → text → folded"] == [("lambda", 20, 8), ("text", 8, 8), ("folded", 8, 8)]
    assert {"late for count", "late for lambda", "late for lambda-2"} < set(told)
    assert len(told) == 9 and "lambda: window fold ← odd" in env.explain()


def test_so_are_other_steps_that_are_several_for_the_engine() -> None:
    env = LocalEnvironment("others")
    numbers = env.from_batch(range(10), name="numbers")
    keyed = numbers.keyby(odd)
    keyed.process(Twice).sink(ignored, name="a")
    keyed.map_with_state(0, lambda state, n: (state, n), expire_after=60.0).sink(ignored, name="b")
    even, other = numbers.split(odd, name="halves")
    even.sum().sink(ignored, name="c")
    other.connect(numbers).comap(Both).sink(ignored, name="d")
    keyed.join(env.from_batch([1], name="ones").keyby(odd, name="of ones")).left().sink(ignored, name="e")
    told = rows(env.submit(autostop=True).report)
    assert told["Twice"][:2] == (10, 20) and told["lambda"][:2] == (10, 10) and told["halves"][:2] == (10, 10)
    assert told["sum → c"][0] == 5 and told["Both → d"][:2] == (15, 15) and told["left-join"][:2] == (11, 10)
    engine = ("numbers", "odd", "a", "b", "ones", "of ones", "e")
    assert set(told) == {"Twice", "lambda", "halves", "sum → c", "Both → d", "left-join", *engine}


def test_errors_name_the_steps_of_the_program(tmp_path: Path) -> None:
    class Broken(MapFunction):
        def __init__(self) -> None:
            raise LookupError("no model")

        async def execute(self, record: Any) -> Any:
            return record

    env = LocalEnvironment("opening")
    env.from_batch([1]).map(Broken).collect()
    with pytest.raises(JobFailed, match="failed at operator `Broken`, while opening: LookupError") as failed:
        env.submit(autostop=True)
    kept.append(failed.value)

    def lost(letter: Any) -> None:
        raise OSError("disk full")

    env = LocalEnvironment("lost")
    env.from_batch([0]).map(llm, on_error=DeadLetterQueue(lost)).collect()
    with pytest.raises(JobFailed, match="at operator `dead letters of llm`, record 1: in `dead letters of llm`: OSE"):
        env.submit(autostop=True)

    env = LocalEnvironment("windows")
    keyed = env.from_batch(range(1000)).with_timestamps(float).keyby(lambda n: 0)
    keyed.window(Tumbling(1000)).reduce(lambda a, b: a + b if b < 300 else 1 // 0).collect()
    with pytest.raises(JobFailed, match=r"at operator `lambda-2`.*ZeroDivisionError"):
        env.submit(autostop=True)


def test_an_async_step_that_gives_several_records_for_one_counts_each() -> None:
    async def twice(n: int) -> list[int]:
        return [n, n]

    env = LocalEnvironment("several")
    env.from_batch([1, 2, 3]).flatmap(twice).sink(ignored)
    report = env.submit(autostop=True).report
    assert rows(report)["twice"] == (3, 6, 0, 0)
    assert rows(report)["ignored"][0] == 6


def test_old_names_are_the_new_ones() -> None:
    assert sage.DeadLetter is DeadLetterQueue
    assert sage.DataStream.flat_map is sage.DataStream.flatmap
    assert sage.KeyedStream.flat_map_with_state is sage.KeyedStream.flatmap_with_state
