"""Files as sinks: `to_jsonl`, `to_csv`, `to_text`, without keys."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import uuid
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from sage import DeadLetterQueue, FileError, JobFailed, LocalEnvironment, read_letters


def written(records: list[Any], path: Path, method: str = "to_jsonl", **options: Any) -> str:
    """The file of a job that writes these records."""
    env = LocalEnvironment("writes")
    stream = env.from_batch(records)
    assert getattr(stream, method)(path, **options) is stream
    env.submit(autostop=True)
    return path.read_text(encoding="utf-8")


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    tags: list[str] = field(default_factory=list)


Pair = namedtuple("Pair", "id text")


class Model:
    """As a model of pydantic."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self, mode: str = "python") -> dict[str, Any]:
        assert mode == "json"
        return self.fields


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"a": "é\n", "b": [1, 2.5, None, True]}, '{"a": "é\\n", "b": [1, 2.5, null, true]}'),
        (Point(1, ["t"]), '{"x": 1, "tags": ["t"]}'),
        ({"points": [Point(1)], "pair": Pair(1, "x")}, '{"points": [{"x": 1, "tags": []}], "pair": [1, "x"]}'),
        (Pair(1, "x"), '{"id": 1, "text": "x"}'),
        (Model(a=1), '{"a": 1}'),
        ({"model": Model(a=1)}, '{"model": {"a": 1}}'),
        (
            {"at": datetime(2024, 1, 2, tzinfo=timezone.utc), "on": date(2024, 1, 2), "for": timedelta(minutes=1)},
            '{"at": "2024-01-02T00:00:00+00:00", "on": "2024-01-02", "for": 60.0}',
        ),
        ({"path": Path("a/b"), "id": uuid.UUID(int=1)}, f'{{"path": "a/b", "id": "{uuid.UUID(int=1)}"}}'),
        ({"cost": Decimal("1.10"), "color": Color.RED, "set": {1}}, '{"cost": "1.10", "color": "red", "set": [1]}'),
        ({1: "a", None: "b"}, '{"1": "a", "null": "b"}'),
        ({"half": "\ud800"}, '{"half": "\\ud800"}'),
        (None, "null"),
        ([1], "[1]"),
    ],
)
def test_records_have_their_usual_form(record: Any, line: str, tmp_path: Path) -> None:
    assert written([record], tmp_path / "out.jsonl") == line + "\n"


class Own:
    def __repr__(self) -> str:
        return "<own>"


def circle() -> dict[str, Any]:
    around: dict[str, Any] = {"n": 1}
    around["again"] = around
    return around


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"a": {"b": [1, Own()]}}, r"record 2: the field `a\.b\[1\]` cannot be written: JSON has no form for <own>"),
        ({"a": Pair(1, b"x")}, r"the field `a\[1\]` cannot be written: JSON has no form for b'x'.*decode them first"),
        ({"a": float("nan")}, "the field `a` cannot be written: JSON has no form for nan; `None` is written as null"),
        ({(1, 2): 3}, "keys must be str, int"),
        (Own(), "record 2: JSON has no form for <own>"),
        (circle(), "Circular reference"),
    ],
)
def test_what_has_no_form_names_the_record_and_the_field(record: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=said) as failed:
        written([{"a": 1}, record], tmp_path / "out.jsonl")
    assert isinstance(failed.value.__cause__, FileError) and os.listdir(tmp_path) == []


def test_what_has_no_form_is_skipped_or_kept_as_the_policy_says(tmp_path: Path) -> None:
    path, dead = tmp_path / "out.jsonl", tmp_path / "dead.jsonl"
    records = [{"a": 1}, {"a": {1j}}, {"a": 2}]
    assert written(records, path, on_error="skip") == '{"a": 1}\n{"a": 2}\n'
    assert written(records, path, on_error=DeadLetterQueue(dead)) == '{"a": 1}\n{"a": 2}\n'
    assert [letter.record for letter in read_letters(dead)] == [{"a": {1j}}]


def test_a_file_appears_when_it_is_complete_or_not_at_all(tmp_path: Path) -> None:
    for method, kept in (("to_jsonl", "old"), ("to_csv", "old"), ("to_text", "old")):
        path = tmp_path / method
        path.write_text("old")
        seen: list[str] = []
        env = LocalEnvironment("atomic")
        stream = env.from_batch([{"n": 1}, {"n": 2}])
        getattr(stream.map(lambda record: seen.append(path.read_text()) or record), method)(path)
        env.submit(autostop=True)
        assert seen == [kept, kept] and path.read_text() != kept
        path.write_text("old")
        env = LocalEnvironment("fails")
        getattr(env.from_batch([{"n": 1}, {"n": 0}]).map(lambda record: {"n": 1 // record["n"]}), method)(path)
        with pytest.raises(JobFailed):
            env.submit(autostop=True)
        assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["to_csv", "to_jsonl", "to_text"]


def test_a_file_is_packed_as_its_name_says(tmp_path: Path) -> None:
    for method, text in (("to_jsonl", '{"n": 1}\n'), ("to_csv", "n\n1\n"), ("to_text", "{'n': 1}\n")):
        path = tmp_path / f"{method}.gz"
        env = LocalEnvironment("packs")
        getattr(env.from_batch([{"n": 1}]), method)(path)
        env.submit(autostop=True)
        assert gzip.decompress(path.read_bytes()).decode() == text
        # Equal records make equal files: there is no time in them.
        assert path.read_bytes()[4:8] == bytes(4)


@pytest.mark.parametrize(
    ("records", "options", "text"),
    [
        ([{"a": 1, "b": 'x, "y"\n'}, {"b": None}], {}, 'a,b\n1,"x, ""y""\n"\n,\n'),
        ([{"a": 1, "b": 2}], {"columns": ["b", "a"], "delimiter": ";"}, "b;a\n2;1\n"),
        ([{"a": 1}], {"header": False}, "1\n"),
        ([[1, "x"], (2, "y")], {"columns": ["n", "s"]}, "n,s\n1,x\n2,y\n"),
        ([[1, "x"]], {}, "1,x\n"),
        ([Point(1, ["t"]), Point(2)], {}, 'x,tags\n1,"[""t""]"\n2,[]\n'),
        ([{"a": True, "b": date(2024, 1, 2), "c": Color.RED}], {}, "a,b,c\ntrue,2024-01-02,red\n"),
        ([{"a": Decimal("1.10"), "b": Path("x"), "c": {"k": 1}}], {}, 'a,b,c\n1.10,x,"{""k"": 1}"\n'),
        ([], {"columns": ["a"]}, "a\n"),
        ([], {}, ""),
    ],
)
def test_rows_of_csv(records: list[Any], options: dict[str, Any], text: str, tmp_path: Path) -> None:
    assert written(records, tmp_path / "out.csv", "to_csv", **options) == text


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"a": 1, "c": 2}, r"record 2: its field `c` is none of the columns \['a'\]; `columns=` names all"),
        ({"a": 1j}, "record 2: the field `a` cannot be written: JSON has no form for 1j"),
        ([1, 2], "record 2: it has 2 values, and there are 1 columns"),
        (5, "record 2: a row has fields or is a list, not 5; `to_text` writes values as lines"),
    ],
)
def test_what_is_no_row_names_the_record_and_the_field(record: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=said):
        written([{"a": 1}, record], tmp_path / "out.csv", "to_csv")
    assert os.listdir(tmp_path) == []
    assert written([{"a": 1}, record], tmp_path / "out.csv", "to_csv", on_error="skip") == "a\n1\n"


@pytest.mark.parametrize(
    ("end", "error", "said"),
    [
        (lambda stream: stream.to_jsonl(5), TypeError, "a file is given by its path, not by 5"),
        (lambda stream: stream.to_jsonl(""), TypeError, "a file is given by its path"),
        (lambda stream: stream.to_jsonl("x", key=5), TypeError, "`key` is the name of a field"),
        (lambda stream: stream.to_jsonl("x.gz", key="id"), ValueError, "which a packed file cannot take"),
        (lambda stream: stream.to_csv("x", delimiter="ab"), ValueError, "`delimiter` is one character"),
        (lambda stream: stream.to_csv("x", columns="ab"), TypeError, "`columns` is a list of names"),
        (lambda stream: stream.to_csv("x", header="no"), TypeError, "`header` is True or False"),
        (lambda stream: stream.to_jsonl("x", on_error="ignore"), ValueError, "`on_error` is"),
    ],
)
def test_arguments_are_checked_where_the_stream_ends(end: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        end(LocalEnvironment("checked").from_batch([1]))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    for options in ({}, {"key": "id"}):
        with pytest.raises(JobFailed, match=r"nowhere/out\.jsonl") as failed:
            written([{"id": 1}], tmp_path / "nowhere" / "out.jsonl", **options)
        assert isinstance(failed.value.__cause__, FileNotFoundError)


INTERRUPTED = """
import itertools, sys
from sage import LocalEnvironment
env = LocalEnvironment("interrupted")
stream = env.from_batch({"id": n} for n in itertools.count())
stream.to_jsonl(sys.argv[1])
stream.sink(lambda record: record["id"] == 5 and print("begun", flush=True))
env.submit(autostop=True)
"""


def test_what_a_job_that_a_signal_ended_wrote_is_kept_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl.gz"
    program = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None and program.stdout.readline() == "begun\n"
    program.send_signal(signal.SIGTERM)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 143 and f"what was written so far is in {path}.partial" in errors
    assert os.listdir(tmp_path) == ["out.jsonl.gz.partial"]
    lines = gzip.decompress((tmp_path / "out.jsonl.gz.partial").read_bytes()).decode().splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(len(lines))) and len(lines) > 5
