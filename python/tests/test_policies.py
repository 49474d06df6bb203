"""What becomes of records on which a function raises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sage import (
    DeadLetter,
    FlatMapFunction,
    JobFailed,
    Letter,
    LocalEnvironment,
    MapFunction,
    Retry,
    Skip,
    read_letters,
)


def tens(n: int) -> int:
    if n % 10 == 0:
        raise ValueError(f"no tens: {n}")
    return n


def test_skip_leaves_out_and_counts() -> None:
    env = LocalEnvironment("skip")
    kept = env.from_batch(range(100)).map(tens, on_error="skip").map(lambda n: n).collect()
    job = env.submit(autostop=True)
    assert kept == [n for n in range(100) if n % 10]
    (row,) = [row for row in job.report.data["operators"] if row["name"] == "tens"]
    assert row["failed"] == 10 and "no tens: 0" in json.dumps(row)


@pytest.mark.parametrize("policy", [Skip(at_most=3), Skip(at_most_share=0.05)])
def test_a_skip_has_limits(policy: Skip) -> None:
    env = LocalEnvironment("limits")
    env.from_batch(range(2000)).filter(tens, on_error=policy).collect()
    with pytest.raises(JobFailed, match="skipped") as failed:
        env.submit(autostop=True)
    if policy.at_most:
        assert isinstance(failed.value.__cause__, ValueError) and str(failed.value.__cause__) == "no tens: 30"


@pytest.mark.parametrize("kind", ["map", "filter", "flatmap", "sink"])
def test_dead_letters_of_each_kind_of_operator(kind: str, tmp_path: Path) -> None:
    letters: list[Letter] = []
    env = LocalEnvironment("letters")
    got: list[Any] = []

    def function(n: int) -> Any:
        tens(n)
        got.append(n)
        return [n, n] if kind == "flatmap" else n

    stream = env.from_batch(range(1, 31))
    after = getattr(stream, kind)(function, on_error=DeadLetter(letters.append), name="checked")
    if kind != "sink":
        results = after.collect()
    job = env.submit(autostop=True)
    assert [(letter.record, letter.position, letter.operator, letter.attempts) for letter in letters] == [
        (n, n, "checked", 1) for n in (10, 20, 30)
    ]
    assert letters[0].errors[0] == "ValueError: no tens: 10" and letters[0].replica == 0 and letters[0].time > 1e9
    good = [n for n in range(1, 31) if n % 10]
    assert got == good
    if kind != "sink":
        assert results == ([n for n in good for _ in (0, 1)] if kind == "flatmap" else good)
    assert job.report.outcome.lower() == "succeeded"


def test_letters_in_a_file_can_be_read_and_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "failed.jsonl"
    for _ in range(2):
        env = LocalEnvironment("file")
        env.from_batch([1, "two", {3}]).map(lambda n: n + 1, name="add", on_error=DeadLetter(path)).collect()
        env.submit(autostop=True)
    letters = list(read_letters(path))
    assert [letter.record for letter in letters] == ["two", {3}] * 2
    assert all(letter.is_exact and letter.repr is None for letter in letters)
    env = LocalEnvironment("replay")
    again = (
        env.from_batch(read_letters(path))
        .filter(lambda letter: isinstance(letter.record, str))
        .map(lambda l: l.record * 2)
        .collect()
    )
    env.submit(autostop=True)
    assert again == ["twotwo"] * 2
    path.write_text("{}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1"):
        list(read_letters(path))


class Flaky(MapFunction):
    def __init__(self, calls: dict[int, int], fails: int) -> None:
        self.calls = calls
        self.fails = fails

    def execute(self, n: int) -> int:
        self.calls[n] = self.calls.get(n, 0) + 1
        if self.calls[n] <= self.fails:
            raise ConnectionError(f"call {self.calls[n]} of {n}")
        return n


def test_retry_calls_again_and_gives_up_with_the_policy() -> None:
    calls: dict[int, int] = {}
    quick = Retry(3, first=0.001, longest=0.002)
    env = LocalEnvironment("retry")
    got = env.from_batch([1, 2]).map(Flaky, calls, 2, retry=quick).collect()
    job = env.submit(autostop=True)
    assert got == [1, 2] and calls == {1: 3, 2: 3}
    (row,) = [row for row in job.report.data["operators"] if row["name"] == "Flaky"]
    assert row["retries"] == 4
    letters: list[Letter] = []
    env = LocalEnvironment("give-up")
    got = env.from_batch([1, 2]).map(Flaky, {}, 5, retry=quick, on_error=DeadLetter(letters.append)).collect()
    env.submit(autostop=True)
    assert got == [] and [(letter.record, letter.attempts) for letter in letters] == [(1, 3), (2, 3)]
    env = LocalEnvironment("fail")
    env.from_batch([1]).map(Flaky, {}, 5, retry=2).collect()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, ConnectionError)


def test_a_record_that_fails_half_way_leaves_nothing() -> None:
    def halves(n: int) -> Any:
        yield n
        tens(n)
        yield n

    env = LocalEnvironment("half")
    got = env.from_batch([9, 10, 11]).flatmap(halves, on_error="skip").collect()
    env.submit(autostop=True)
    assert got == [9, 9, 11, 11]


class Named(MapFunction):
    """Has a parameter by the name of an option: it gets it."""

    def __init__(self, timeout: float, on_error: str) -> None:
        self.told = timeout, on_error

    def execute(self, record: int) -> Any:
        return self.told


def test_a_constructor_keeps_its_own_keywords() -> None:
    env = LocalEnvironment("keywords")
    got = env.from_batch([1]).map(Named, timeout=3.0, on_error="ignore").collect()
    env.submit(autostop=True)
    assert got == [(3.0, "ignore")]


def test_policies_that_cannot_be() -> None:
    stream = LocalEnvironment("mistakes").from_batch([1])
    with pytest.raises(ValueError, match="`on_error` is"):
        stream.map(tens, on_error="ignore")
    with pytest.raises(ValueError, match="at least one attempt"):
        stream.map(tens, retry=0)
    with pytest.raises(TypeError, match="number of attempts"):
        stream.map(tens, retry="often")
    with pytest.raises(TypeError, match="dead letters go to"):
        DeadLetter(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="in_flight"):
        stream.map(tens, timeout=1.0)


def test_what_a_flatmap_collected_for_a_record_that_failed_is_none_of_the_next_one_or_the_next_attempt() -> None:
    class Collecting(FlatMapFunction):
        calls = 0

        def execute(self, n: int) -> None:
            type(self).calls += 1
            self.collect(n)
            if n == 2 or type(self).calls == 1:
                raise ValueError("too late")

    env = LocalEnvironment("collected")
    out = env.from_batch([1, 2, 3]).flatmap(Collecting, retry=Retry(2, first=0.0), on_error="skip").collect()
    env.submit(autostop=True)
    assert out == [1, 3]
