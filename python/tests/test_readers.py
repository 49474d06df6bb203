"""Files as sources: `from_jsonl`, `from_csv`, `from_text`."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from sage import BadLine, DataStream, DeadLetterQueue, FileError, JobFailed, LocalEnvironment, read_letters

def read(begin: Any) -> list[Any]:
    """The records of a stream that this begins."""
    env = LocalEnvironment("reads")
    stream: DataStream = begin(env)
    records = stream.collect()
    env.submit(autostop=True)
    return records


def test_values_of_any_kind_are_records_and_blank_lines_are_none(tmp_path: Path) -> None:
    path = tmp_path / "values.jsonl"
    path.write_bytes('\ufeff{"a": "é\u2028"}\r\n \t\r\n\n[1, null]\nnull\n"x"'.encode())
    assert read(lambda env: env.from_jsonl(path)) == [{"a": "é\u2028"}, [1, None], None, "x"]


def test_files_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "a.txt", "c[1].txt", "deep/d.txt"):
        (tmp_path / name).write_text(name + "\n")
    asked: list[tuple[Any, list[str]]] = [
        (f"{tmp_path}/*.txt", ["a.txt", "b.txt", "c[1].txt"]),
        (tmp_path / "**" / "*.txt", ["a.txt", "b.txt", "c[1].txt", "deep/d.txt"]),
        (tmp_path / "c[1].txt", ["c[1].txt"]),
        ([tmp_path / "deep" / "d.txt", f"{tmp_path}/[ab].txt"], ["deep/d.txt", "a.txt", "b.txt"]),
    ]
    for where, names in asked:
        assert read(lambda env, where=where: env.from_text(where)) == names


def test_a_source_reads_its_files_in_each_job_anew(tmp_path: Path) -> None:
    path = tmp_path / "grows.txt"
    path.write_text("one\n")
    env = LocalEnvironment("again")
    records = env.from_text(path).collect()
    env.submit(autostop=True)
    path.write_text("one\ntwo\n")
    env.submit(autostop=True)
    assert records == ["one", "one", "two"]


def test_packed_files_are_unpacked_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "packed.jsonl.gz"
    # Of two parts, as of two files that were put behind each other.
    path.write_bytes(gzip.compress(b'{"n": 1}\n{"n"') + gzip.compress(b": 2}\n"))
    assert read(lambda env: env.from_jsonl(path)) == [{"n": 1}, {"n": 2}]
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress("n\r\n1\r\n".encode("utf-16")))
    assert read(lambda env: env.from_csv(tmp_path / "rows.csv.gz", encoding="utf-16")) == [{"n": "1"}]


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (gzip.compress(b'{"n": 1}\n' * 1000)[:-9], "the packed file ends early; it was cut off or is still being"),
        (b'{"n": 1}\n', "line 1: cannot unpack it: Not a gzipped file"),
        (gzip.compress(b"[1]\n")[:10] + b"\xff" * 30, "line 1: cannot unpack it"),
    ],
)
def test_a_packed_file_that_cannot_be_unpacked_fails_the_job(packed: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl.gz"
    path.write_bytes(packed)
    with pytest.raises(JobFailed, match=said) as failed:
        read(lambda env: env.from_jsonl(path, on_error="skip"))
    assert isinstance(failed.value.__cause__, FileError) and failed.value.__cause__.path == str(path)


BAD = b'{"n": 1}\n{"n"\n"\xff"\n[[[\n{"n": 2}\n'


def test_a_bad_line_fails_the_job_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(BAD)
    with pytest.raises(JobFailed, match=r"bad\.jsonl, line 2: not JSON: Expecting ':' delimiter") as failed:
        read(lambda env: env.from_jsonl(path))
    error = failed.value.__cause__
    assert isinstance(error, BadLine) and (error.path, error.line) == (str(path), 2)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.path, again.line) == (BadLine, str(error), error.path, 2)


def test_bad_lines_are_skipped_or_kept_as_the_policy_says(tmp_path: Path) -> None:
    path, dead = tmp_path / "bad.jsonl", tmp_path / "dead.jsonl"
    path.write_bytes(BAD)
    assert read(lambda env: env.from_jsonl(path, on_error="skip")) == [{"n": 1}, {"n": 2}]
    env = LocalEnvironment("kept")
    records = env.from_jsonl(path, on_error=DeadLetterQueue(dead)).collect()
    report = env.submit(autostop=True).report
    assert records == [{"n": 1}, {"n": 2}] and report.data["operators"][0]["failed"] == 3
    letters = list(read_letters(dead))
    assert [letter.record[:3] for letter in letters] == [
        (str(path), 2, '{"n"'),
        (str(path), 3, b'"\xff"'),
        (str(path), 4, "[[["),
    ]
    assert all(letter.is_exact for letter in letters) and "not text in utf-8" in letters[1].errors[0]


def test_what_is_nested_too_deep_is_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    path.write_text("[" * 100_000 + "\n" + "1" * 5000 + "\n1\n")
    assert read(lambda env: env.from_jsonl(path, on_error="skip")) == [1]


def test_a_line_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("x" * 100 + "\n" + "x" * 101)
    assert read(lambda env: env.from_text(path, max_line_bytes=101)) == ["x" * 100, "x" * 101]
    with pytest.raises(JobFailed, match=r"long\.txt, line 2: a line is longer than 100 bytes"):
        read(lambda env: env.from_text(path, max_line_bytes=100, on_error="skip"))


def test_lines_are_text_in_the_encoding_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"caf\xe9\n\r\nlast")
    assert read(lambda env: env.from_text(path, encoding="latin-1")) == ["café", "", "last"]
    assert read(lambda env: env.from_text(path, errors="replace")) == ["caf\ufffd", "", "last"]
    assert read(lambda env: env.from_text(path, on_error="skip")) == ["", "last"]
    path.write_bytes("é\n\u0a0a".encode("utf-16"))
    assert read(lambda env: env.from_text(path, encoding="utf-16")) == ["é", "\u0a0a"]


def test_rows_of_csv_may_have_line_ends_in_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfname,"the text"\r\n"a, b","one\r\ntwo ""2"""\r\n\r\n5" pipe,\n')
    rows = [{"name": "a, b", "the text": 'one\r\ntwo "2"'}, {"name": '5" pipe', "the text": ""}]
    assert read(lambda env: env.from_csv(path)) == rows
    path.write_text("1;'x;y'\n2;z")
    named = read(lambda env: env.from_csv(path, columns=["n", "x"], delimiter=";", quotechar="'"))
    assert named == [{"n": "1", "x": "x;y"}, {"n": "2", "x": "z"}]


def test_each_file_of_csv_names_its_columns(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("b,a\n1,2\n")
    assert read(lambda env: env.from_csv(f"{tmp_path}/*.csv")) == [{"a": "1", "b": "2"}, {"b": "1", "a": "2"}]


def test_bad_rows_of_csv_are_named_and_those_behind_them_are_read(tmp_path: Path) -> None:
    path, dead = tmp_path / "bad.csv", tmp_path / "dead.jsonl"
    path.write_bytes(b'a,b\n1\n1,"x\ny",3\n\xff,2\n"1"x,2\n5,6\n7,"torn')
    with pytest.raises(JobFailed, match=r"bad\.csv, line 2: 1 values, and there are 2 columns"):
        read(lambda env: env.from_csv(path))
    assert read(lambda env: env.from_csv(path, on_error=DeadLetterQueue(dead))) == [{"a": "5", "b": "6"}]
    records = [letter.record for letter in read_letters(dead)]
    assert [record[1:3] for record in records] == [
        (2, ["1"]),
        (3, ["1", "x\ny", "3"]),
        (5, b"\xff,2\n"),
        (6, '"1"x,2\n'),
        (8, '7,"torn'),
    ]


@pytest.mark.parametrize(
    ("written", "said"),
    [("a,a\n1,2\n", "two columns have the name 'a'"), ('"a\n', "line 1: no names of columns: not CSV")],
)
def test_columns_without_names_of_their_own_fail_the_job(written: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "columns.csv"
    path.write_text(written)
    with pytest.raises(JobFailed, match=said):
        read(lambda env: env.from_csv(path, on_error="skip"))


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"nothing\.txt") as failed:
        read(lambda env: env.from_text(tmp_path / "nothing.txt"))
    assert isinstance(failed.value.__cause__, FileNotFoundError)
    with pytest.raises(JobFailed, match=r"\*\.txt: no file matches this pattern; check it, and the folder") as failed:
        read(lambda env: env.from_text(tmp_path / "*.txt"))
    assert isinstance(failed.value.__cause__, FileError)
    with pytest.raises(JobFailed, match="Is a directory"):
        read(lambda env: env.from_text(tmp_path))


@pytest.mark.parametrize(
    ("begin", "error", "said"),
    [
        (lambda env: env.from_text([]), ValueError, "there is none in"),
        (lambda env: env.from_text(""), ValueError, "there is none in"),
        (lambda env: env.from_text(5), TypeError, "a path, a glob pattern or a list of them, not by 5"),
        (lambda env: env.from_text("x", encoding="no-such"), ValueError, "unknown encoding: no-such"),
        (lambda env: env.from_text("x", max_line_bytes=0), ValueError, "`max_line_bytes` is a whole number"),
        (lambda env: env.from_jsonl("x", on_error="ignore"), ValueError, "`on_error` is"),
        (lambda env: env.from_jsonl("x", key=5), TypeError, "`key` is the name of a field, or a function"),
        (lambda env: env.from_csv("x", columns="ab"), TypeError, "`columns` is a list of names, not 'ab'"),
        (lambda env: env.from_csv("x", delimiter=";;"), TypeError, "delimiter"),
    ],
)
def test_arguments_are_checked_where_the_stream_begins(begin: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        begin(LocalEnvironment("checked"))


def test_the_steps_are_one_row_of_the_report_and_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("1\n2\n")
    env = LocalEnvironment("row")
    env.from_jsonl(tmp_path / "in.jsonl").map(lambda n: n).collect()
    assert [step.name for step in env.pipeline] == ["in.jsonl", "lambda", "collect"]
    rows = env.submit(autostop=True).report.data["operators"]
    assert (rows[0]["name"], rows[0]["records_out"]) == ("in.jsonl", 2) and len(rows) < 4
    env = LocalEnvironment("named")
    env.from_jsonl(tmp_path / "in.jsonl", name="questions").collect()
    assert env.pipeline[0].name == "questions"


@pytest.mark.parametrize("stop", ["drain", "cancel"])
def test_a_file_is_closed_when_its_job_is_stopped(stop: str, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("x\n" * 200_000)
    env, seen = LocalEnvironment("stopped"), list[str]()
    env.from_text(path).sink(seen.append)
    job = env.submit()
    while not seen:
        pass
    if stop == "drain":
        env.stop()
    else:
        job.cancel()
        with pytest.raises(JobFailed):
            job.wait()
    # What the test may leave open is looked at behind each: see `conftest`.
    assert seen


def test_workers_get_the_records_and_not_the_lines(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("1\n2\n")
    env = LocalEnvironment("workers", workers="processes")
    records = env.from_jsonl(tmp_path / "in.jsonl", on_error="skip").map(lambda n: (n, os.getpid())).collect()
    report = env.submit(autostop=True).report
    assert [n for n, _ in records] == [1, 2] and {pid for _, pid in records} != {os.getpid()}
    assert len(report.data["workers"]) == 1
