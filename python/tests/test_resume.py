"""Jobs that go on where another one was ended: `to_jsonl(key=…)` and `from_jsonl(skip_done=…)`."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import types
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sage import BadLine, FileError, JobFailed, LocalEnvironment, Report, _payload


def lines_of(path: Path) -> list[Any]:
    """The records of a file, each of whose lines is whole."""
    text = path.read_bytes()
    assert text == b"" or text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def answer(record: dict[str, Any]) -> dict[str, Any]:
    return {"id": record["id"], "answer": record["id"] * 2}


def run(inputs: Path, out: Path, key: Any = "id", function: Any = answer) -> Report:
    """Answers what is not answered yet."""
    env = LocalEnvironment("resumes")
    env.from_jsonl(inputs, skip_done=out, key=key).map(function).to_jsonl(out, key=key)
    return env.submit(autostop=True).report


def questions(path: Path, count: int) -> Path:
    path.write_text("".join(f'{{"id": {n}}}\n' for n in range(count)))
    return path


def test_a_job_goes_on_where_one_that_failed_was_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inputs, out, worked = questions(tmp_path / "in.jsonl", 10), tmp_path / "out.jsonl", list[int]()

    def fails_at_six(record: dict[str, Any]) -> dict[str, Any]:
        worked.append(record["id"])
        if record["id"] == 6 and worked.count(6) == 1:
            raise ValueError("six")
        return answer(record)

    with pytest.raises(JobFailed):
        run(inputs, out, function=fails_at_six)
    done = lines_of(out)
    with caplog.at_level(logging.INFO, logger="sage"):
        report = run(inputs, out, function=fails_at_six)
    assert lines_of(out) == [answer({"id": n}) for n in range(10)]
    # Some of those before it may not have come to the file.
    assert worked == [*range(7), *range(len(done), 10)]
    told = f"{len(done)} records were skipped, as their keys are in {out}"
    assert not done or len(done) == 1 or (told in report.data["notes"] and told in caplog.messages)
    assert run(inputs, out).data["notes"] == [f"10 records were skipped, as their keys are in {out}"]


def test_a_key_is_not_written_twice(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    env = LocalEnvironment("twice")
    env.from_batch([{"id": 1}, {"id": "1"}, {"id": 1, "again": True}, {"id": 1.0}, {"id": [1]}]).to_jsonl(out, key="id")
    report = env.submit(autostop=True).report
    # As JSON has them, 1, "1" and 1.0 are three.
    assert [record["id"] for record in lines_of(out)] == [1, "1", 1.0, [1]]
    assert report.data["notes"] == [f"1 record was not written, as its key is in {out} already"]
    env.submit(autostop=True)
    assert len(lines_of(out)) == 4


@dataclass
class Answer:
    id: uuid.UUID
    text: str


def test_keys_are_the_same_when_they_are_read_back(tmp_path: Path) -> None:
    out, ids = tmp_path / "out.jsonl", [uuid.UUID(int=n) for n in range(3)]
    for count in (2, 3):
        env = LocalEnvironment("typed")
        env.from_batch([Answer(id, "é") for id in ids[:count]]).to_jsonl(out, key="id")
        env.submit(autostop=True)
    assert [record["id"] for record in lines_of(out)] == [str(id) for id in ids]
    for count in (3, 4):
        env = LocalEnvironment("computed")
        records = [{"a": uuid.UUID(int=n), "b": n} for n in range(count)]
        env.from_batch(records).to_jsonl(out, key=lambda line: (line.get("a"), line.get("b")))
        env.submit(autostop=True)
    assert len(lines_of(out)) == 7


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"n": 1}, r"out\.jsonl: record 1: it has no field `id`, which is its key: \{'n': 1\}"),
        ({"id": None}, "its key `id` is None"),
        ([1], "it has no field `id`"),
        ({"id": 1, "x": 1j}, "record 1: the field `x` cannot be written"),
    ],
)
def test_a_record_without_a_key_is_an_error_of_its_own(record: Any, said: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    env = LocalEnvironment("keyless")
    env.from_batch([record]).to_jsonl(out, key="id")
    with pytest.raises(JobFailed, match=said) as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, FileError)
    env = LocalEnvironment("keyless")
    env.from_batch([record, {"id": 1}]).to_jsonl(out, key="id", on_error="skip")
    env.submit(autostop=True)
    assert lines_of(out) == [{"id": 1}]


@pytest.mark.parametrize(
    ("torn", "is_cut"),
    [
        (b'{"id": 2, "ans', True),
        (b'{"id": 2, "ans\n', True),
        (b"\x00\x00\x00", True),
        (b'{"id": 2, "caf\xc3', True),
        (b'{"id": 2}', False),
        (b"\n \n", False),
    ],
)
def test_a_torn_last_line_is_cut_off(
    torn: bytes, is_cut: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs, out = questions(tmp_path / "in.jsonl", 4), tmp_path / "out.jsonl"
    out.write_bytes(b'{"id": 0}\n{"id": 1}\n' + torn)
    run(inputs, out)
    ids = [json.loads(line)["id"] for line in out.read_text().split("\n") if line.strip()]
    assert ids == [0, 1, 2, 3]
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == ([f"{out}: a last line of {len(torn)} bytes was torn, as of a job that was killed, and is cut off"]
                      if is_cut else [])  # fmt: skip


@pytest.mark.parametrize("bad", [b'{"id"\n', b'{"n": 1}\n', b"[]\n"])
def test_a_file_with_other_lines_is_not_touched(bad: bytes, tmp_path: Path) -> None:
    inputs, out = questions(tmp_path / "in.jsonl", 4), tmp_path / "out.jsonl"
    before = b'{"id": 0}\n' + bad + b'{"id": 1}\n'
    out.write_bytes(before)
    with pytest.raises(JobFailed, match=r"out\.jsonl, line 2: ") as failed:
        run(inputs, out)
    assert isinstance(failed.value.__cause__, BadLine) and out.read_bytes() == before


def test_one_job_at_a_time_appends_to_a_file(tmp_path: Path) -> None:
    out, gone_on = tmp_path / "out.jsonl", threading.Event()
    first = LocalEnvironment("first")

    def numbers() -> Iterator[dict[str, int]]:
        yield {"id": 1}
        gone_on.wait(60)
        yield {"id": 2}

    first.from_batch(numbers()).to_jsonl(out, key="id")
    first.submit()
    while not out.exists() or not out.read_text():
        pass
    second = LocalEnvironment("second")
    second.from_batch([{"id": 3}]).to_jsonl(out, key="id")
    with pytest.raises(JobFailed, match=r"out\.jsonl: another job appends to it; wait for that job") as failed:
        second.submit(autostop=True)
    assert isinstance(failed.value.__cause__, FileError)
    gone_on.set()
    first.wait()
    second.submit(autostop=True)
    assert lines_of(out) == [{"id": 1}, {"id": 2}, {"id": 3}]


def test_only_regular_files_have_keys() -> None:
    env = LocalEnvironment("device")
    env.from_batch([{"id": 1}]).to_jsonl("/dev/null", key="id")
    with pytest.raises(JobFailed, match="/dev/null: not a regular file"):
        env.submit(autostop=True)


def test_what_a_full_disk_did_not_take_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, write = tmp_path / "out.jsonl", os.write

    def full(file: int, data: Any) -> int:
        if os.readlink(f"/proc/self/fd/{file}") == str(out):
            if len(data) == len(b'{"id": 1}\n'):
                return write(file, data[:3])
            if bytes(data).startswith(b"d"):
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr("sage._resume.os.write", full)
    env = LocalEnvironment("full")
    env.from_batch([{"id": 10}, {"id": 1}]).to_jsonl(out, key="id")
    with pytest.raises(JobFailed, match=r"No space left on device: '.*out\.jsonl'"):
        env.submit(autostop=True)
    assert lines_of(out) == [{"id": 10}]


def test_a_file_that_is_there_keeps_its_mode_and_its_place(tmp_path: Path) -> None:
    out, link = tmp_path / "real.jsonl", tmp_path / "out.jsonl"
    out.write_text('{"id": 0}\n')
    out.chmod(0o640)
    link.symlink_to(out)
    before = out.stat()
    run(questions(tmp_path / "in.jsonl", 2), link)
    after = out.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode) and len(lines_of(out)) == 2


def test_several_outputs_say_what_is_done_and_need_not_be_there(tmp_path: Path) -> None:
    inputs = questions(tmp_path / "in.jsonl", 5)
    (tmp_path / "done-1.jsonl").write_text('\ufeff{"id": 0}\n', encoding="utf-8")
    (tmp_path / "done-2.jsonl").write_text('{"id": 3}\n{"id": 4, "torn')
    for where in (f"{tmp_path}/done-*.jsonl", [tmp_path / "done-1.jsonl", tmp_path / "done-2.jsonl", "nowhere.jsonl"]):
        env = LocalEnvironment("several")
        records = env.from_jsonl(inputs, skip_done=where).collect()
        env.submit(autostop=True)
        assert [record["id"] for record in records] == [1, 2, 4]
    env = LocalEnvironment("none")
    records = env.from_jsonl(inputs, skip_done=f"{tmp_path}/nothing-*.jsonl").collect()
    env.submit(autostop=True)
    assert len(records) == 5


def test_an_input_without_a_key_fails_or_is_left_out_as_the_policy_says(tmp_path: Path) -> None:
    inputs = tmp_path / "in.jsonl"
    inputs.write_text('{"n": 1}\n{"id": 2}\nnull\n')
    env = LocalEnvironment("keyless")
    env.from_jsonl(inputs, skip_done="nowhere.jsonl").collect()
    with pytest.raises(JobFailed, match=r"it has no field `id`, which is its key: \{'n': 1\}"):
        env.submit(autostop=True)
    env = LocalEnvironment("skipped")
    records = env.from_jsonl(inputs, skip_done="nowhere.jsonl", on_error="skip").collect()
    env.submit(autostop=True)
    assert records == [{"id": 2}]


PROGRAM = """
import sys, time
from sage import LocalEnvironment

def answer(record):
    if sys.argv[3] != "0":
        time.sleep(float(sys.argv[3]))
    return {"id": record["id"], "answer": "x" * (record["id"] * 7919 % 3000)}

async def later(record):
    import asyncio
    await asyncio.sleep(0)
    return answer(record)

env = LocalEnvironment("killed")
done = env.from_jsonl(sys.argv[1], skip_done=sys.argv[2])
answers = done.map(later, in_flight=8) if sys.argv[4] == "async" else done.map(answer)
answers.to_jsonl(sys.argv[2], key="id")
print("begun", flush=True)
env.submit(autostop=True)
"""


def start(inputs: Path, out: Path, pause: float = 0, kind: str = "plain") -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(inputs), str(out), str(pause), kind],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None and program.stdout.readline() == "begun\n"
    return program


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_what_a_job_wrote_that_was_ended_stays_and_the_rest_follows(number: int, kind: str, tmp_path: Path) -> None:
    count = 2000
    inputs, out = questions(tmp_path / "in.jsonl", count), tmp_path / "out.jsonl"
    before = b""
    for lines in (100, 700):
        program = start(inputs, out, 0.0005, kind)
        while not out.exists() or out.read_bytes().count(b"\n") < lines:
            assert program.poll() is None, program.communicate()
        program.send_signal(number)
        program.communicate(timeout=60)
        assert program.returncode in (-number, 128 + number)
        written = out.read_bytes()
        assert written.startswith(before) and written.count(b"\n") >= lines
        before = written[: written.rindex(b"\n") + 1]
    assert written.count(b"\n") < count
    _, errors = start(inputs, out, 0, kind).communicate(timeout=60)
    assert errors == "" and out.read_bytes().startswith(before)
    records = lines_of(out)
    assert [record["id"] for record in records] == list(range(count))
    assert all(len(record["answer"]) == record["id"] * 7919 % 3000 for record in records)


class Reference:
    """What is written: a set of keys, in the order in which they came first."""

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}

    def add(self, keys: list[Any]) -> None:
        self.keys.update(dict.fromkeys(json.dumps(key) for key in keys))


@pytest.mark.parametrize("seed", range(30))
def test_any_runs_write_what_one_run_writes_and_no_key_twice(seed: int, tmp_path: Path) -> None:
    """Runs over parts of an input with keys of several kinds, each ended after any number of records, with the file cut
    off anywhere in its last line, as a kill does."""
    rng = random.Random(seed)
    keys = [rng.choice([n, str(n), n / 2, [n], True, "é\u2028\n"]) for n in range(rng.randrange(1, 60))]
    inputs, out, one = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "one.jsonl"
    inputs.write_text("".join(json.dumps({"id": key, "n": n}) + "\n" for n, key in enumerate(keys)))
    reference = Reference()
    reference.add(keys)
    for _ in range(rng.randrange(1, 6)):
        most, seen = rng.randrange(1, 20), [0]

        def ends(record: dict[str, Any], most: int = most, seen: list[int] = seen) -> dict[str, Any]:
            seen[0] += 1
            if seen[0] > most:
                raise ValueError("ended")
            return {**record, "answer": record["n"]}

        try:
            run(inputs, out, function=ends)
        except JobFailed:
            pass
        if out.exists() and (written := out.read_bytes()):
            last = written[:-1].rfind(b"\n") + 1
            os.truncate(out, rng.randrange(last, len(written) + 1))
    run(inputs, out, function=lambda record: {**record, "answer": record["n"]})
    run(inputs, one, function=lambda record: {**record, "answer": record["n"]})
    assert [json.dumps(record["id"]) for record in lines_of(one)] == list(reference.keys)
    together = [json.dumps(record["id"]) for record in lines_of(out)]
    assert sorted(together) == sorted(reference.keys) and len(set(together)) == len(together)


def test_a_job_of_another_process_goes_on_as_well(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    inputs, out = questions(tmp_path / "in.jsonl", 4), tmp_path / "out.jsonl"
    out.write_text('{"id": 1}\n')
    env = LocalEnvironment("packed")
    done = env.from_jsonl(inputs, skip_done=out, on_error="skip")
    done.map(answer).to_jsonl(out, key=lambda record: record["id"])
    with pytest.warns(UserWarning, match="never submitted"):
        packed = _payload.packed(env)
        env.close()
    _payload.load(packed, types.ModuleType("main")).submit(autostop=True)
    assert [record["id"] for record in lines_of(out)] == [1, 0, 2, 3]
