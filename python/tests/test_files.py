"""Files of text, read and written: `FileSource`, `JSONLBatch` and `FileSink`."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sage import DeadLetter, JobFailed, LocalEnvironment, SinkFunction, SubmitError
from sage._arguments import shown
from sage.libs.io_utils.batch import JSONLBatch
from sage.libs.io_utils.sink import FileSink
from sage.libs.io_utils.source import FileSource


def lines(written: bytes, path: Path, **options: Any) -> list[Any]:
    """The lines of a file of these bytes."""
    path.write_bytes(written)
    env = LocalEnvironment("lines")
    got = env.from_source(FileSource, path, **options).collect()
    env.submit(autostop=True)
    return got


@pytest.mark.parametrize(
    ("written", "options", "expected"),
    [
        (b'\xef\xbb\xbf{"a": 1}\n{"a": "x\xc2\x85"}\r\n', {}, ['{"a": 1}', '{"a": "x\x85"}']),
        (b"\xef\xbb\xbf\n\xef\xbb\xbfx", {}, ["", "\ufeffx"]),
        (b"\xef\xbb\xbf", {}, [""]),
        (b"one\rstill one\r\ntwo\r\r\n", {}, ["one\rstill one", "two\r"]),
        (b"\x0b\x0c\x1c\xe2\x80\xa8\n", {}, ["\x0b\x0c\x1c\u2028"]),
        (b"\n\nlast\r", {}, ["", "", "last\r"]),
        (b"", {}, []),
        (b"caf\xe9\n", {"encoding": "latin-1"}, ["café"]),
        (b"a\x85b\n", {"encoding": "latin-1"}, ["a\x85b"]),
        (b"a\xff\nb", {"errors": "replace"}, ["a\ufffd", "b"]),
        (b"a\xff\nb", {"errors": "ignore"}, ["a", "b"]),
        (b"a\xff\nb", {"errors": "surrogateescape"}, ["a\udcff", "b"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", {"encoding": "utf-8-sig"}, ["a", "\ufeffb"]),
        ("é\rx\r\n\n\u0a0a\u0d0a".encode("utf-16"), {"encoding": "utf-16"}, ["é\rx", "", "\u0a0a\u0d0a"]),
        ("\ufeffé\n2".encode("utf-16-be"), {"encoding": "utf-16-be"}, ["é", "2"]),
        ("x\n".encode("utf-32"), {"encoding": "UTF-32"}, ["x"]),
        ("あ\nい".encode("shift_jis"), {"encoding": "shift_jis"}, ["あ", "い"]),
    ],
)
def test_lines_of_a_file(written: bytes, options: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    assert lines(written, path, **options) == expected
    env = LocalEnvironment("configured")
    got = env.from_source(FileSource, {"data_path": str(path), **options}).collect()
    env.submit(autostop=True)
    assert got == [line.strip() for line in expected], "of a mapping, without the white space around them"


def test_an_error_of_a_configuration_does_not_tell_its_values() -> None:
    with pytest.raises(ValueError, match=r"one of path, file_path, data_path; it has \['token'\]"):
        FileSource({"token": "s3cret"})


def test_values_of_json_lines_behind_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "values.jsonl"
    path.write_bytes('{"a": "é\r"}\r\n\r\n[1]'.replace("\r\"", '\\r"').encode("utf-8-sig"))
    env = LocalEnvironment("values")
    got = env.from_batch(JSONLBatch, path).collect()
    path_16 = tmp_path / "values16.jsonl"
    path_16.write_bytes('{"a": "é"}\n2\n'.encode("utf-16"))
    wide = env.from_batch(JSONLBatch, path_16, encoding="utf-16").collect()
    env.submit(autostop=True)
    assert got == [{"a": "é\r"}, [1]] and wide == [{"a": "é"}, 2]


@pytest.mark.parametrize(
    ("written", "options", "said"),
    [
        (b"fine\n" * 5000 + b"caf\xe9\n", {}, r"bad\.txt, line 5001: not text in utf-8.*`encoding` names another"),
        (b"\xff\n", {"encoding": "ascii"}, r"bad\.txt, line 1: not text in ascii"),
        ("a\nb".encode("utf-16") + b"x", {"encoding": "utf-16"}, r"bad\.txt: behind line \d: not text in utf-16"),
        (b"", {"encoding": "no-such"}, r"bad\.txt: unknown encoding: no-such"),
        (b"", {"errors": "no-such"}, r"bad\.txt: unknown error handler name 'no-such'"),
        (b"", {"encoding": "rot13"}, r"bad\.txt"),
    ],
)
def test_what_is_no_text_names_the_file_and_the_line(written: bytes, options: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises((JobFailed, SubmitError), match=said):
        lines(written, tmp_path / "bad.txt", **options)


@pytest.mark.parametrize("line", [b"{", b"[" * 100_000, b'"\xff"', b"1" * 5000])
def test_what_is_no_json_names_the_file_and_the_line(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\xef\xbb\xbf1\n\n" + line + b"\n")
    env = LocalEnvironment("bad")
    env.from_batch(JSONLBatch, path).collect()
    with pytest.raises(JobFailed, match=r"bad\.jsonl, line 3"):
        env.submit(autostop=True)


class Sees(FileSink):
    """Looks what there is when each record has been written."""

    def __init__(self, path: Path, seen: list[Any], mode: str | None = None) -> None:
        super().__init__(path, mode)
        self.target, self.seen = path, seen

    def execute(self, record: Any) -> None:
        super().execute(record)
        others = [path.name for path in self.target.parent.iterdir() if path != self.target]
        self.seen.append((self.target.read_text() if self.target.exists() else None, len(others)))


@pytest.mark.parametrize("how", ["plain", "policy"])
def test_a_file_appears_when_it_is_complete(how: str, tmp_path: Path) -> None:
    out, seen = tmp_path / "out.txt", []  # type: ignore[var-annotated]
    env = LocalEnvironment("atomic")
    env.from_batch([1, 2]).sink(Sees, out, seen, **({"on_error": "skip"} if how == "policy" else {}))
    env.submit(autostop=True)
    assert seen == [(None, 1), (None, 1)]
    assert out.read_text() == "1\n2\n" and os.listdir(tmp_path) == ["out.txt"]
    env.submit(autostop=True)
    assert seen[2:] == [("1\n2\n", 1), ("1\n2\n", 1)] and os.listdir(tmp_path) == ["out.txt"]


def test_what_is_appended_is_there_at_once_and_stays(tmp_path: Path) -> None:
    out, seen = tmp_path / "out.txt", []  # type: ignore[var-annotated]
    env = LocalEnvironment("append")
    env.from_batch([1, 2, None]).map(lambda n: n + 1).sink(Sees, out, seen, mode="a")
    with pytest.raises(JobFailed):
        env.submit(autostop=True)
    out.write_text("")
    env = LocalEnvironment("append")
    env.from_batch([1, 2]).sink(Sees, out, seen, mode="a")
    env.submit(autostop=True)
    assert seen[-2:] == [("1\n", 0), ("1\n2\n", 0)]


def breaks(n: int) -> int:
    if n == 3:
        raise ValueError("three")
    return n


def test_of_a_job_that_fails_there_is_no_file_and_the_old_one_stays(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("old")
    for parallelism in (1, 2):
        env = LocalEnvironment("fails")
        env.from_batch([1, 2, 3]).map(breaks, parallelism=parallelism).sink(FileSink, out)
        with pytest.raises(JobFailed):
            env.submit(autostop=True)
        assert out.read_text() == "old" and os.listdir(tmp_path) == ["out.txt"]


def test_a_job_that_is_stopped_has_its_file_and_one_that_is_cancelled_has_none(tmp_path: Path) -> None:
    for how, written in [("stop", True), ("cancel", False)]:
        out, seen = tmp_path / f"{how}.txt", []  # type: ignore[var-annotated]
        env = LocalEnvironment(how)
        numbers = iter(range(10**9))
        env.from_source(lambda: next(numbers)).sink(FileSink, out).sink(seen.append)
        job = env.submit()
        while not seen:
            pass
        if how == "stop":
            env.stop()
        else:
            job.cancel()
            with pytest.raises(JobFailed):
                env.wait()
        assert out.exists() == written
    assert os.listdir(tmp_path) == ["stop.txt"] and (tmp_path / "stop.txt").read_text().startswith("0\n1\n")


def test_a_file_has_the_mode_of_what_it_replaces_from_the_start(tmp_path: Path) -> None:
    out, modes = tmp_path / "out.txt", []  # type: ignore[var-annotated]

    class Looks(FileSink):
        def execute(self, record: Any) -> None:
            super().execute(record)
            modes.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob(".sage-*"))

    def run(replaced: int | None) -> int:
        modes.clear()
        if replaced is not None:
            out.chmod(replaced)
        env = LocalEnvironment("modes")
        env.from_batch([1]).sink(Looks, out)
        env.submit(autostop=True)
        assert modes == [stat.S_IMODE(out.stat().st_mode)]
        return modes[0]  # type: ignore[no-any-return]

    old = os.umask(0o027)
    try:
        assert run(None) == 0o640
        assert [run(mode) for mode in (0o600, 0o664, 0o604)] == [0o600, 0o664, 0o604]
    finally:
        os.umask(old)


def test_a_link_leads_to_what_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link, real = tmp_path / "link.txt", tmp_path / "folder" / "real.txt"
    link.symlink_to(real)
    env = LocalEnvironment("link")
    env.from_batch([1]).sink(FileSink, link)
    env.submit(autostop=True)
    assert link.is_symlink() and real.read_text() == "1\n" and os.listdir(tmp_path / "folder") == ["real.txt"]


def test_a_record_that_could_not_be_written_leaves_no_file_whatever_the_policy(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    env = LocalEnvironment("incomplete")
    env.from_batch(["a", "\ud800", "b"]).sink(FileSink, out, on_error="skip")
    with pytest.raises(JobFailed, match="out.txt was not made"):
        env.submit(autostop=True)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full_at_the_end_fails_the_job(tmp_path: Path) -> None:
    env = LocalEnvironment("full")
    env.from_batch(["x" * 100]).sink(FileSink, "/dev/full")
    with pytest.raises(JobFailed, match="/dev/full"):
        env.submit(autostop=True)
    (tmp_path / "folder.txt").mkdir()
    env = LocalEnvironment("folder")
    env.from_batch([1]).sink(FileSink, tmp_path / "folder.txt")
    with pytest.raises(JobFailed, match=r"folder\.txt"):
        env.submit(autostop=True)


def test_a_sink_that_writes_one_by_one_is_not_given_several() -> None:
    with pytest.raises(ValueError, match="`FileSink` writes one record at a time"):
        LocalEnvironment("flight").from_batch([1]).sink(FileSink, "x", in_flight=2)


class Wraps(SinkFunction):
    """A sink of the program's own, around ours."""

    def __init__(self, path: Path) -> None:
        self.file = FileSink(path)

    def execute(self, record: Any) -> None:
        self.file.execute(record)

    def close(self) -> None:
        self.file.close()


def test_one_that_a_program_closes_itself_is_complete_then(tmp_path: Path) -> None:
    env = LocalEnvironment("wrapped")
    env.from_batch([1]).sink(Wraps, tmp_path / "wrapped.txt")
    env.from_batch([1]).map(lambda n: 1 // 0, on_error=DeadLetter(FileSink, tmp_path / "letters.txt")).collect()
    env.submit(autostop=True)
    by_hand = FileSink(tmp_path / "by-hand.txt")
    by_hand.execute("x")
    by_hand.close()
    by_hand.close()
    assert (tmp_path / "wrapped.txt").read_text() == "1\n" and (tmp_path / "by-hand.txt").read_text() == "x\n"
    assert "ZeroDivisionError" in (tmp_path / "letters.txt").read_text() and len(os.listdir(tmp_path)) == 3


INTERRUPTED = """
import sys
from sage import LocalEnvironment
from sage.libs.io_utils.sink import FileSink
env = LocalEnvironment("interrupted")
numbers, told = iter(range(10**9)), []
def tell(n):
    if n == 5:
        print("begun", flush=True)
stream = env.from_source(lambda: next(numbers))
stream.sink(FileSink, sys.argv[1])
stream.sink(tell)
try:
    env.submit(autostop=True)
finally:
    print(env.job.report, flush=True)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", ["out.txt", "caf\udce9.txt"])
def test_what_a_job_that_a_signal_ended_wrote_is_kept_and_named(
    name: str, number: int, code: int, tmp_path: Path
) -> None:
    out = tmp_path / name
    out.write_text("old")
    program = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None and program.stdout.readline() == "begun\n"
    program.send_signal(number)
    report, errors = program.communicate(timeout=60)
    assert program.returncode == code
    partial = tmp_path / f"{name}.partial"
    assert partial.read_text().startswith("0\n1\n2\n") and out.read_text() == "old"
    told = str(partial).encode("utf-8", "backslashreplace").decode()
    assert told in errors.splitlines()[-1], errors
    assert f"{shown(str(partial))} has what was written" in report
    assert sorted(os.listdir(tmp_path)) == [name, f"{name}.partial"]
