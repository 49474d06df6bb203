"""Files that are followed as they grow: `from_tail`."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sage import DeadLetterQueue, FileError, JobFailed, LocalEnvironment, read_letters
from sage._tail import TailSource


class Seen:
    """The lines that have come, for who waits for them."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self._change = threading.Condition()

    def take(self, line: Any) -> None:
        with self._change:
            self.lines.append(line)
            self._change.notify_all()

    def wait(self, lines: list[Any]) -> None:
        """Waits until so many have come, which are these."""
        with self._change:
            assert self._change.wait_for(lambda: len(self.lines) >= len(lines), 60), (self.lines, lines)
        assert self.lines == lines


@contextmanager
def tail(path: Path, stop: str = "stop", **options: Any) -> Iterator[Seen]:
    """Follows a file inside of the block: from before its first line on."""
    seen, begun, setup = Seen(), threading.Event(), TailSource.setup

    def noted(source: TailSource, context: Any) -> None:
        setup(source, context)
        begun.set()

    env = LocalEnvironment("tail")
    env.from_tail(path, **options).sink(seen.take)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TailSource, "setup", noted)
        job = env.submit()
        assert begun.wait(60)
    yield seen
    begin = time.monotonic()
    if stop == "stop":
        env.stop()
    else:
        job.cancel()
        with pytest.raises(JobFailed, match="cancelled"):
            job.wait()
    assert time.monotonic() - begin < 20


def add(path: Path, text: str | bytes) -> None:
    with open(path, "ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def test_lines_come_when_their_ends_are_written(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("old\nbegun ")
    with tail(path) as seen:
        add(path, "line\nnext")
        seen.wait(["begun line"])
        add(path, " one\r\n\né\u2028\n")
        seen.wait(["begun line", "next one", "", "é\u2028"])
        add(path, "no end")
    assert seen.lines[4:] == []


@pytest.mark.parametrize("from_start", [False, True])
def test_it_begins_where_it_is_told_to(from_start: bool, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("\ufeffold\n" * 2, encoding="utf-8")
    with tail(path, from_start=from_start) as seen:
        add(path, "new\n")
        seen.wait([*(["old", "\ufeffold"] if from_start else []), "new"])


@pytest.mark.parametrize("from_start", [False, True])
def test_a_file_that_is_not_there_yet_is_read_from_its_beginning(from_start: bool, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    with tail(path, from_start=from_start) as seen:
        add(path, "first\n")
        seen.wait(["first"])


def test_another_file_that_takes_the_name_is_read_behind_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("")
    with tail(path) as seen, open(path, "ab", buffering=0) as writer:
        writer.write(b"1\n")
        path.rename(tmp_path / "app.log.1")
        writer.write(b"2\nrest")
        seen.wait(["1", "2"])
        new = tmp_path / "new"
        new.write_text("3\n")
        new.rename(path)
        seen.wait(["1", "2", "rest", "3"])
        path.rename(tmp_path / "app.log.2")
        path.write_text("4\n")
        seen.wait(["1", "2", "rest", "3", "4"])
        path.unlink()
        path.write_text("5\n")
        seen.wait(["1", "2", "rest", "3", "4", "5"])


def test_what_is_written_between_the_last_look_and_a_rotation_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, looked, rotated = tmp_path / "app.log", os.stat, []
    path.write_text("1\n")

    def rotates(asked: Any, **options: Any) -> os.stat_result:
        if asked == str(path) and not rotated:
            rotated.append(True)
            add(path, "2\n")
            path.rename(tmp_path / "app.log.1")
            path.write_text("3\n")
        return looked(asked, **options)

    with tail(path, from_start=True) as seen:
        seen.wait(["1"])
        # Its next look, which this line has it take.
        monkeypatch.setattr("sage._tail.os.stat", rotates)
        add(path, "1.5\n")
        seen.wait(["1", "1.5", "2", "3"])


def test_a_file_that_was_truncated_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("")
    with tail(path) as seen:
        add(path, "a long line\nno end")
        seen.wait(["a long line"])
        os.truncate(path, 0)
        add(path, "short\n")
        seen.wait(["a long line", "short"])


def test_links_are_followed_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "pods").mkdir()
    first, second, path = tmp_path / "pods" / "0.log", tmp_path / "pods" / "1.log", tmp_path / "app.log"
    first.write_text("")
    path.symlink_to(first)
    seen, env = Seen(), LocalEnvironment("links")
    env.from_tail(path, from_start=True).sink(seen.take)
    env.submit()
    add(first, "1\n")
    seen.wait(["1"])
    first.rename(tmp_path / "pods" / "0.log.old")
    first.write_text("2\n")
    seen.wait(["1", "2"])
    second.write_text("3\n")
    link = tmp_path / "link"
    link.symlink_to(second)
    link.rename(path)
    seen.wait(["1", "2", "3"])
    env.stop()


@pytest.mark.parametrize("stop", ["stop", "cancel"])
@pytest.mark.parametrize("is_there", [False, True])
def test_it_ends_at_once_while_nothing_is_written(stop: str, is_there: bool, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    if is_there:
        path.write_text("")
    with tail(path, stop) as seen:
        pass
    assert seen.lines == []


def test_a_pause_loses_nothing(tmp_path: Path) -> None:
    path, seen = tmp_path / "app.log", Seen()
    path.write_text("1\n")
    env = LocalEnvironment("paused")
    env.from_tail(path, from_start=True).sink(seen.take)
    job = env.submit()
    seen.wait(["1"])
    job.pause()
    add(path, "2\n")
    job.resume()
    seen.wait(["1", "2"])
    env.stop()


def follow(path: Path, offsets: Path, lines: list[str], how: str = "stop", **options: Any) -> None:
    """Follows a file in a job until these lines have come, and ends the job."""
    seen, env = Seen(), LocalEnvironment("follows")
    env.from_tail(path, offset_file=offsets, **options).sink(seen.take)
    job = env.submit()
    seen.wait(lines)
    if how == "stop":
        env.stop()
        return
    job.cancel()
    with pytest.raises(JobFailed):
        job.wait()


def test_the_next_job_goes_on_where_one_was_ended(tmp_path: Path) -> None:
    path, offsets = tmp_path / "app.log", tmp_path / "offsets.json"
    path.write_text("1\n2\nhal")
    follow(path, offsets, ["1", "2"], from_start=True)
    assert json.loads(offsets.read_text())["position"] == 4 and stat.S_IMODE(offsets.stat().st_mode) == 0o600
    add(path, "f\n3\n")
    follow(path, offsets, ["half", "3"])
    # While no job runs, it is rotated.
    add(path, "4\n")
    path.rename(tmp_path / "app.log.1")
    path.write_text("5\n")
    follow(path, offsets, ["4", "5"])
    assert sorted(os.listdir(tmp_path)) == ["app.log", "app.log.1", "offsets.json"]


def test_a_file_that_was_replaced_or_truncated_meanwhile_is_read_from_its_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, offsets = tmp_path / "app.log", tmp_path / "offsets.json"
    path.write_text("first\nsecond\n")
    follow(path, offsets, ["first", "second"], from_start=True)
    path.write_text("other\nlines, which are more\n")  # the same file, with other lines in it
    follow(path, offsets, ["other", "lines, which are more"])
    assert "app.log: the file that was read up to byte 13 is gone or was replaced" in caplog.text
    path.unlink()
    path.write_text("new\n")
    follow(path, offsets, ["new"])


def test_a_job_that_does_not_end_well_leaves_the_offset_as_it_was(tmp_path: Path) -> None:
    path, offsets = tmp_path / "app.log", tmp_path / "offsets.json"
    path.write_text("1\n2\n")
    follow(path, offsets, ["1", "2"], "cancel", from_start=True)
    assert not offsets.exists()
    env = LocalEnvironment("fails")
    env.from_tail(path, offset_file=offsets, from_start=True).map(lambda line: 1 // (int(line) - 2)).collect()
    with pytest.raises(JobFailed, match="ZeroDivisionError"):
        env.submit(autostop=True)
    assert not offsets.exists()
    follow(path, offsets, ["1", "2"], from_start=True)
    before = offsets.read_bytes()
    add(path, "3\n")
    follow(path, offsets, ["3"], "cancel")
    assert offsets.read_bytes() == before


PROGRAM = """
import sys, threading
from sage import LocalEnvironment
env = LocalEnvironment("signalled", config={"timeouts": {"drain": float(sys.argv[4])}})
lines = env.from_tail(sys.argv[1], offset_file=sys.argv[2], from_start=True)
never = threading.Event()
def tell(line):
    print(line, flush=True)
    if line == "stuck":
        never.wait(2)
lines.sink(tell)
if sys.argv[3]:
    lines.to_text(sys.argv[3])
env.submit(autostop=True)
"""


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_after_a_signal_the_offset_is_kept_if_all_was_finished(number: int, unfinished: bool, tmp_path: Path) -> None:
    path, offsets = tmp_path / "app.log", tmp_path / "offsets.json"
    path.write_text("1\n2\n")
    out = str(tmp_path / "out.txt") if unfinished else ""
    command = [sys.executable, "-c", PROGRAM, str(path), str(offsets), out, "30"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert [program.stdout.readline() for _ in range(2)] == ["1\n", "2\n"]
    program.send_signal(number)
    program.communicate(timeout=60)
    assert program.returncode in (-number, 128 + number)
    is_kept = number != signal.SIGKILL and not unfinished
    assert offsets.exists() == is_kept
    follow(path, offsets, [] if is_kept else ["1", "2"], from_start=True)


def test_after_a_drain_that_was_cut_short_no_offset_is_kept(tmp_path: Path) -> None:
    path, offsets = tmp_path / "app.log", tmp_path / "offsets.json"
    path.write_text("1\nstuck\n3\n4\n")
    command = [sys.executable, "-c", PROGRAM, str(path), str(offsets), "", "0.1"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert [program.stdout.readline() for _ in range(2)] == ["1\n", "stuck\n"]
    program.send_signal(signal.SIGTERM)
    program.communicate(timeout=60)
    assert program.returncode == 143 and not offsets.exists()


@pytest.mark.parametrize("seed", range(10))
def test_any_writes_and_rotations_over_any_jobs_give_each_line(seed: int, tmp_path: Path) -> None:
    """Against a plain list: a writer that appends parts of lines and rotates, jobs that are stopped and cancelled."""
    rng, path, offsets = random.Random(seed), tmp_path / "app.log", tmp_path / "offsets.json"
    path.write_text("")
    written: list[str] = []
    taken: list[str] = []
    rotations = 0
    for _ in range(rng.randrange(2, 5)):
        seen, env = Seen(), LocalEnvironment("property")
        env.from_tail(path, offset_file=offsets, from_start=True).sink(seen.take)
        job = env.submit()
        first = len(written) - len(pending(written, taken))
        for _ in range(rng.randrange(1, 30)):
            line = f"{len(written)} {'x' * rng.randrange(100)}"
            written.append(line)
            cut = rng.randrange(len(line) + 1)
            add(path, line[:cut])
            add(path, line[cut:] + "\n")
            if rng.random() < 0.1:
                # As `logrotate` does; not more often than the job can follow.
                seen.wait(written[first:])
                rotations += 1
                path.rename(tmp_path / f"app.log.{rotations}")
                path.write_text("")
        seen.wait(written[first:])
        if rng.random() < 0.5:
            env.stop()
            taken += seen.lines
        else:
            job.cancel()
            with pytest.raises(JobFailed):
                job.wait()
            if rotations:
                break  # of files that were rotated twice since the offset, one is not looked for
    assert seen.lines == written[first:]


def pending(written: list[str], taken: list[str]) -> list[str]:
    """The lines that no job which ended well has taken."""
    assert written[: len(taken)] == taken
    return written[len(taken) :]


def test_lines_that_are_no_text_are_as_the_policy_says(tmp_path: Path) -> None:
    path, dead = tmp_path / "app.log", tmp_path / "dead.jsonl"
    path.write_bytes(b"1\n\xff\n2\n")
    env = LocalEnvironment("strict")
    env.from_tail(path, from_start=True).collect()
    with pytest.raises(JobFailed, match=r"app\.log: at byte 2: not text in utf-8"):
        env.submit(autostop=True)
    policies: list[tuple[dict[str, Any], list[str]]]
    policies = [({"on_error": DeadLetterQueue(dead)}, ["1", "2"]), ({"errors": "replace"}, ["1", "\ufffd", "2"])]
    for options, lines in policies:
        env, seen = LocalEnvironment("lenient"), Seen()
        env.from_tail(path, from_start=True, **options).sink(seen.take)
        env.submit()
        seen.wait(lines)
        env.stop()
    assert [letter.record[:3] for letter in read_letters(dead)] == [(str(path), 2, b"\xff")]


@pytest.mark.parametrize(
    ("begin", "error", "said"),
    [
        (lambda env, _: env.from_tail(5), TypeError, "a file is given by its path, not by 5"),
        (lambda env, path: env.from_tail(path, encoding="utf-16"), ValueError, "lines in utf-16 do not end with"),
        (lambda env, path: env.from_tail(path, from_start="no"), TypeError, "`from_start` is True or False"),
    ],
)
def test_arguments_are_checked_where_the_stream_begins(begin: Callable[..., Any], error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        begin(LocalEnvironment("checked"), "app.log")


def test_what_cannot_be_followed_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "offsets.json"
    bad.write_text("{}")
    (tmp_path / "long.log").write_text("x" * 101)
    for path, options, error, said in [
        (tmp_path / "nowhere" / "app.log", {}, FileNotFoundError, "nowhere"),
        (tmp_path, {}, FileError, "not a regular file, which alone can be followed"),
        (tmp_path / "app.log", {"offset_file": bad}, FileError, r"offsets\.json: no offset of a tail"),
        (tmp_path / "long.log", {"from_start": True, "max_line_bytes": 100}, FileError, "at byte 0: longer than 100"),
    ]:
        env = LocalEnvironment("named")
        env.from_tail(path, **options).collect()
        with pytest.raises(JobFailed, match=said) as failed:
            env.submit(autostop=True)
        assert isinstance(failed.value.__cause__, error)
