"""Letters in files: what comes back equals what went in, or the letter says that it does not. None is lost."""

from __future__ import annotations

import json
import math
import os
import random
import stat
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sage import DeadLetter, JobFailed, Letter, LocalEnvironment, read_letters


def fail(record: Any) -> None:
    raise ValueError("never")


def through(records: list[Any], path: Path) -> list[Letter]:
    """The letters of records, from a file."""
    env = LocalEnvironment("letters")
    env.from_batch(records).map(fail, on_error=DeadLetter(path)).collect()
    job = env.submit(autostop=True)
    assert job.report.outcome == "succeeded"
    return list(read_letters(path))


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


ROME = ZoneInfo("Europe/Rome")

EXACT: list[Any] = [
    None, True, 0, -1, 2**63, 10**5000, -(10**5000), 0.1, -0.0, 1e308, 5e-324, math.inf, -math.inf, 1 + 2j,
    complex("infj"),
    "", "text", "é\u2028\x85\0\"\\", "\ud800", "\ud83d\ude00", "😀", b"", b"\xff\0", bytearray(b"ab"),
    [], [1, [2, [None]]], {}, {"a": {"b": [1]}}, {1: "a", "1": "b"}, {None: 1, True: 2, 2.5: 3, (1, 2): 4, "\ud800": 5},
    {"tuple": [1]}, {"record": None, "tagged": 1}, {"dict": []}, {"unknown": {"set": 1}}, (), (1,), ((1, 2), [(3,)]),
    set(), {1, "a", (2,)}, frozenset([1]), {frozenset([frozenset()]): {1}}, [{"deep": ({"x"}, b"y")}],
    date(2024, 2, 29), datetime(2024, 1, 2, 3, 4, 5, 6), datetime.max, datetime(2024, 1, 1, tzinfo=timezone.utc),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, microseconds=7))), datetime(2024, 7, 1, 12, tzinfo=ROME),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ROME), time(1, 2, 3, 4), time(5, tzinfo=timezone.utc),
    timedelta(-1, 2, 3),
    Decimal("1.10"), Decimal("-Infinity"), Fraction(-1, 3), Fraction(10**700, 7), uuid.UUID(int=7), deep(90),
]  # fmt: skip


def alike(one: Any, other: Any) -> bool:
    """Whether they are equal, of the same types, and look the same where equality is not all."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, (list, tuple)):
        return all(map(alike, one, other))
    if isinstance(one, dict):
        return all(alike(*pair) for pair in zip(one.items(), other.items()))
    if isinstance(one, datetime):
        return (one.fold, one.utcoffset()) == (other.fold, other.utcoffset())
    return not isinstance(one, (float, complex, Decimal)) or repr(one) == repr(other)


def test_what_comes_back_equals_what_went_in(tmp_path: Path) -> None:
    letters = through(EXACT, tmp_path / "exact.jsonl")
    assert len(letters) == len(EXACT)
    for letter, record in zip(letters, EXACT):
        assert letter.is_exact and letter.repr is None and alike(letter.record, record), letter.errors
    (nan,) = through([float("nan")], tmp_path / "nan.jsonl")
    assert nan.is_exact and math.isnan(nan.record)


def random_record(rng: random.Random, depth: int = 0) -> Any:
    leaf = rng.choice([None, True, rng.randrange(-(10**20), 10**20), rng.random(), "x\ud800", b"y", date(2020, 1, 1)])
    if depth > 4 or rng.random() < 0.3:
        return leaf
    parts = [random_record(rng, depth + 1) for _ in range(rng.randrange(4))]
    kind = rng.choice([list, tuple, dict])
    return kind(parts) if kind is not dict else {rng.choice(["a", 1, (2, "b")]): part for part in parts}


def test_random_records_come_back(tmp_path: Path) -> None:
    rng = random.Random(5)
    records = [random_record(rng) for _ in range(500)]
    letters = through(records, tmp_path / "random.jsonl")
    assert all(letter.is_exact and alike(letter.record, record) for letter, record in zip(letters, records))


class Own:
    def __init__(self, number: int) -> None:
        self.number = number


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


class Exits(Silent):
    def __repr__(self) -> str:
        raise SystemExit(3)


class Pretends:
    """Says that it is a dict."""

    __class__ = dict  # type: ignore[assignment]


class Hostile:
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no class")


class Long:
    def __repr__(self) -> str:
        return "long " * 1_000_000


class Level(IntEnum):
    LOW = 1


class Text(str):
    pass


@dataclass
class Point:
    x: int


Pair = namedtuple("Pair", "a b")


def cyclic() -> list[Any]:
    around: list[Any] = [1]
    around.append(around)
    return around


def shared(levels: int) -> Any:
    both: Any = [0]
    for _ in range(levels):
        both = [both, both]
    return both


#: What makes a record, and a part of what is shown of it; `None` if it comes back.
ANY: dict[str, tuple[Any, str | None]] = {
    "own": (lambda: Own(5), "Own"),
    "own in a list": (lambda: {"a": [Own(5)]}, "{'a': [<"),
    "dataclass": (lambda: Point(3), "Point(x=3)"),
    "raises": (Silent, "Silent"),
    "exits": (Exits, "Exits"),
    "pretends": (Pretends, "Pretends"),
    "hostile": (Hostile, "Hostile"),
    "long": (Long, "long long"),
    "deep": (lambda: deep(3000), "[["),
    "very deep": (lambda: deep(100_000), "[["),
    "cyclic": (cyclic, "[1, ["),
    "shared": (lambda: shared(60), "[["),
    "function": (lambda: fail, "<function"),
    "class": (lambda: Own, "Own"),
    "large": (lambda: b"x" * 3_000_000, None),
}


@pytest.mark.filterwarnings("ignore:dead letters of .fail.")
@pytest.mark.parametrize("kind", ANY)
def test_a_record_of_any_kind_has_its_letter(kind: str, tmp_path: Path) -> None:
    make, shown = ANY[kind]
    record, path = make(), tmp_path / "any.jsonl"
    before, letter, after = through(["before", record, "after"], path)
    assert (before.record, after.record) == ("before", "after")
    assert letter.errors == ["ValueError: never"] and letter.position == 2
    if shown is None:
        assert letter.is_exact and letter.record == record
    else:
        assert not letter.is_exact and letter.record == ({"x": 3} if kind == "dataclass" else None)
        assert letter.repr is not None and shown in letter.repr and path.stat().st_size < 20_000


@pytest.mark.parametrize(
    ("record", "plain"),
    [
        (Pair(1, [2]), (1, [2])),
        (OrderedDict(b=1), {"b": 1}),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (Level.LOW, 1),
        ({"name": Text("x")}, {"name": "x"}),
    ],
)
def test_a_record_below_a_builtin_type_comes_back_as_that_and_says_so(record: Any, plain: Any, tmp_path: Path) -> None:
    (letter,) = through([record], tmp_path / "below.jsonl")
    assert letter.record == plain and type(letter.record) is type(plain)
    assert not letter.is_exact and letter.repr


def test_a_letter_that_was_not_in_a_file_is_exact() -> None:
    record, letters = Own(1), []  # type: ignore[var-annotated]
    env = LocalEnvironment("function")
    env.from_batch([record]).map(fail, on_error=DeadLetter(letters.append)).collect()
    env.submit(autostop=True)
    assert letters[0].record is record and letters[0].is_exact and letters[0].repr is None


OLD = """\
{"record": "two", "operator": "a", "replica": 0, "position": 2, "attempts": 1, "errors": ["TypeError: x"], "time": 5}
{"record": [1, 2], "operator": "add", "replica": 0, "position": 2, "attempts": 1, "errors": [], "time": 5.5}
{"record": null, "operator": "a", "replica": 0, "position": 3, "attempts": 1, "errors": [], "time": 5.5, "repr": "{3}"}
"""


def test_files_of_older_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(OLD, encoding="utf-8")
    letters = through([(1,)], path)
    assert [letter.record for letter in letters] == ["two", [1, 2], None, (1,)]
    assert [letter.is_exact for letter in letters] == [True, False, False, True]
    assert letters[2].repr == "{3}" and letters[0].errors == ["TypeError: x"]


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_text('{"record": "tw', encoding="utf-8")
    with pytest.raises(ValueError, match=r"cut\.jsonl, line 1: not a letter"):
        through(["a"], path)
    assert json.loads(path.read_text().splitlines()[1])["record"] == "a"
    path.write_text('{"record": null, "tagged": {"what": 1}, "operator": "a"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: not a letter"):
        list(read_letters(path))


def test_a_new_file_is_its_owners_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "mode.jsonl"
    old = os.umask(0)
    try:
        through(["a"], path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    through(["b"], path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_full_disk_fails_the_job_and_names_the_file() -> None:
    env = LocalEnvironment("full")
    env.from_batch([1]).map(fail, on_error=DeadLetter("/dev/full")).collect()
    with pytest.raises(JobFailed, match="/dev/full"):
        env.submit(autostop=True)


def test_replicas_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    records = [(n, "x" * (n % 50 * 1000)) for n in range(300)]
    env = LocalEnvironment("many")
    env.from_batch(records).map(fail, parallelism=3, on_error=DeadLetter(path)).collect()
    env.submit(autostop=True)
    assert sorted(letter.record for letter in read_letters(path)) == records


def test_the_report_says_where_dead_letters_are(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    for numbers, expected in (([1, 2], []), ([1, -1], ["1 dead letter is"]), ([-1, -2], ["2 dead letters are"])):
        env = LocalEnvironment("noted")
        env.from_batch(numbers).map(chr, on_error=DeadLetter(str(path))).sink(str)
        notes = env.submit(autostop=True).report.data["notes"]
        gives = f"`sage.read_letters({str(path)!r})` gives the records back"
        assert notes == [f"{words} in {path}: {gives}" for words in expected]
    assert [letter.record for letter in read_letters(path)] == [-1, -1, -2]
