"""Environments as bytes: what runs from them is what was declared, and what cannot be taken along is said."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sage import BaseService, LocalEnvironment, MapFunction, SinkFunction, SubmitError, _payload
from sage.runtime import BaseScheduler, PlacementDecision

pytest.importorskip("cloudpickle")

#: Declares a pipeline of each kind, whose sinks write to files, and runs it here or writes it down.
PROGRAM = '''
import json, os, pickle, sys
from dataclasses import dataclass
from sage import *
import neighbour

def write(name):
    return lambda record: print(json.dumps([name, record], default=str), file=open(os.environ["OUT"], "a"))

class Numbers(BatchFunction):
    def __init__(self, most): self.left = most
    def execute(self):
        self.left -= 1
        return self.left if self.left >= 0 else None

class Endless(SourceFunction):
    def __init__(self): self.n = 0
    def execute(self):
        self.n += 1
        return StopSignal() if self.n > 3 else self.n

class Db(BaseService):
    def __init__(self, times): self.times = times
    def process(self, n): return n * self.times
    def minus(self, n): return -n

class Asks(MapFunction):
    def execute(self, n): return self.call_service("db", n)

class Both(BaseCoMapFunction):
    def map0(self, n): return ["left", n]
    def map1(self, n): return ["right", n]

class Sums(ProcessFunction):
    def on_record(self, n, key):
        key.state = (key.state or 0) + n
        key.push([key.key, key.state])
        key.set_timer(n + 1, clock=False)
    def on_timer(self, timer, key): key.push(["timer", timer.at])

class Held(BaseException): pass

@dataclass
class Point:
    x: int

async def later(n): return n + 0.5
def fail_at_two(n):
    if n == 2: raise ValueError("two")
    return n

env = LocalEnvironment("all", config={"keep_none": False, "mine": Point(3)}, scheduler="load_aware")
db = env.service("db", Db, (3,))
env.register_service_factory("other", lambda: Db(7))
alone = env.service("alone", Db, (5,), isolated=True, after=[db])
numbers = env.from_batch(Numbers, 4)
numbers.map(Asks).sink(write("service"))
numbers.map(db.minus).map(alone.process).sink(write("handles"))
numbers.map(lambda n: pickle.loads(pickle.dumps(Point(n))).x).sink(write("main module"))
numbers.map(neighbour.triple).sink(write("module"))
numbers.map(later).sink(write("async"))
numbers.map(later, in_flight=2).filter(lambda n: n > 1).sink(write("in flight"))
numbers.map(fail_at_two, on_error=Skip()).sink(write("skip"))
dead = DeadLetterQueue()
numbers.map(fail_at_two, on_error=dead, retry=2).sink(write("retry"))
dead.letters.map(lambda letter: letter.record).sink(write("letters"))
numbers.map(lambda n: n * n, workers="processes", name="square").sink(write("workers"))
numbers.map(db.minus, workers="processes").sink(write("method in a worker"))
odd, even = numbers.split(lambda n: n % 2)
odd.sink(write("odd")); even.take(1).sink(write("even"))
env.from_batch(["a b", "b"]).flatmap(ops.split()).keyby(ops.identity()).count().sink(write("native"))
keyed = numbers.keyby(lambda n: n % 2)
keyed.reduce(lambda a, b: a + b, parallelism=2).sink(write("reduce"))
keyed.fold(0, lambda a, b: a + b).sink(write("fold"))
keyed.top_k(1).sink(write("top"))
keyed.distinct().sink(write("distinct"))
keyed.map_with_state(0, lambda state, n: (state + n, state)).sink(write("state"))
keyed.map_with_state(0, lambda state, n: (state + n, state), expire_after=60).sink(write("cells"))
keyed.process(Sums).sink(write("process"))
timed = numbers.with_timestamps(lambda n: float(n)).keyby(lambda n: 0)
timed.window(Tumbling(2)).count().sink(write("tumbling"))
timed.window(Sliding(2, 1)).sum().sink(write("sliding"))
timed.window(Session(10)).reduce(max).sink(write("session"))
keyed.window(Count(2)).count().sink(write("counts"))
numbers.keyby(lambda n: n).join(env.from_batch([1, 2]).keyby(lambda n: n)).left().sink(write("join"))
numbers.zip(env.from_batch(list("abcd"))).sink(write("zip"))
numbers.connect(env.from_source(Endless, delay=0.001)).comap(Both).sink(write("comap"))
again = env.from_future("again")
env.from_batch([1]).connect(again).map(lambda n: n + 1).filter(lambda n: n < 4).fill_future(again)
env.from_batch(["x"]).print("shown")

if sys.argv[1:] == ["here"]:
    env.submit(autostop=True)
else:
    from sage import _payload
    open(sys.argv[1], "wb").write(_payload.packed(env))
    env.close()
'''


def ran(*arguments: Any, folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "OUT": str(out)}, capture_output=True, text=True, timeout=120
    )


def lines(out: Path) -> list[str]:
    return sorted(out.read_text().splitlines())


def test_each_kind_of_step_runs_from_bytes_as_it_does_where_it_was_declared(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.mkdir()
    (program / "program.py").write_text(PROGRAM)
    (program / "neighbour.py").write_text("def triple(n):\n    return 3 * n\n")
    here = ran(program / "program.py", "here", folder=program, out=tmp_path / "here")
    assert here.returncode == 0, here.stderr
    packed = ran(program / "program.py", tmp_path / "payload", folder=program, out=tmp_path / "none")
    assert packed.returncode == 0, packed.stderr
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "neighbour.py").write_text("raise SystemExit('the wrong one')")
    there = ran("-m", "sage.worker", "--job", tmp_path / "payload", folder=other, out=tmp_path / "there")
    assert there.returncode == 0, there.stderr
    assert lines(tmp_path / "there") == lines(tmp_path / "here")
    assert {json.loads(line)[0] for line in lines(tmp_path / "here")} == set(
        "service,handles,main module,module,async,in flight,skip,retry,letters,workers,method in a worker,odd,even,"
        "native,reduce,fold,top,distinct,state,cells,process,tumbling,sliding,session,counts,join,zip,comap".split(",")
    )
    assert here.stdout == there.stdout == "shown | x\n"


class Plus(MapFunction):
    def execute(self, n: int) -> int:
        return n + 1


class Printed(SinkFunction):
    def execute(self, n: int) -> None:
        print(n)


def small(name: str = "small") -> LocalEnvironment:
    env = LocalEnvironment(name)
    env.from_batch([1, 2]).map(Plus).sink(Printed)
    return env


def job(payload: bytes, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "payload").write_bytes(payload)
    command = [sys.executable, "-m", "sage.worker", "--job", str(tmp_path / "payload")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **variables})


def test_the_header_says_where_it_comes_from() -> None:
    header = _payload.header_of(_payload.packed(small()))
    assert (header.name, header.folder, header.executable) == ("small", os.getcwd(), sys.executable)
    assert header.argv == sys.argv and all(map(os.path.isabs, header.path))


def test_a_job_that_fails_ends_as_a_program_does_that_fails(tmp_path: Path) -> None:
    env = LocalEnvironment("fails")
    env.from_batch(["x"]).map(int).sink(print)
    ended = job(_payload.packed(env), tmp_path)
    assert ended.returncode == 1 and ended.stdout == ""
    assert "sage.JobFailed" in ended.stderr or "JobFailed: job `fails` failed" in ended.stderr
    assert "ValueError: invalid literal" in ended.stderr


def test_the_folder_of_the_job_does_not_hide_the_package_and_its_variable_is_not_inherited(tmp_path: Path) -> None:
    env = LocalEnvironment("variable")
    env.from_batch([0]).map(lambda _: f"{os.environ.get('PYTHONSAFEPATH')} {os.getcwd()}").sink(Printed)
    payload = _payload.packed(env)
    assert job(payload, tmp_path, PYTHONSAFEPATH="1").stdout == f"None {os.getcwd()}\n"


def damaged() -> list[Any]:
    whole = _payload.packed(small())
    header = {**_payload.header_of(whole)._asdict()}

    def with_header(**changed: Any) -> bytes:
        told = json.dumps({**header, **changed}).encode()
        return b"SAGE-JOB" + struct.pack("<IIQ", 1, len(told), 0) + told

    return [
        pytest.param(b"", "no environment of this package", id="empty"),
        pytest.param(b"\x80\x05K\x01.", "no environment of this package", id="a pickle"),
        pytest.param(whole[:-1], "cut off, or damaged", id="cut off"),
        pytest.param(whole + b"x", "cut off, or damaged", id="longer"),
        pytest.param(whole[:8] + struct.pack("<I", 9) + whole[12:], "has version 9", id="version"),
        pytest.param(whole[:12] + b"\xff" * 12 + whole[24:], "cut off, or damaged", id="lengths"),
        pytest.param(b"SAGE-JOB" + struct.pack("<IIQ", 1, 2, 0) + b"[]", "is damaged", id="header"),
        pytest.param(with_header(package="0.0.1"), "submitted with sage-dataflow 0.0.1", id="package"),
        pytest.param(with_header(python="3.1"), "submitted with Python 3.1", id="python"),
    ]


@pytest.mark.parametrize(("payload", "why"), damaged())
def test_what_is_no_environment_for_this_process_is_refused_before_it_is_unpickled(
    payload: bytes, why: str, tmp_path: Path
) -> None:
    ended = job(payload, tmp_path)
    assert ended.returncode == 1 and why in ended.stderr and ended.stderr.count("\n") == 1


def test_a_module_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone_soon.py").write_text("def same(n):\n    return n\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from gone_soon import same  # type: ignore[import-not-found]

    env = LocalEnvironment("needs")
    env.from_batch([1]).map(same).sink(Printed)
    payload = _payload.packed(env)
    (tmp_path / "gone_soon.py").unlink()
    ended = job(payload, tmp_path)
    assert ended.returncode == 1 and "environment `needs` needs `gone_soon`" in ended.stderr


class Locked(BaseService):
    def __init__(self, lock: Any) -> None:
        self.lock = lock


def test_what_cannot_be_taken_along_is_named() -> None:
    lock = threading.Lock()
    env = LocalEnvironment("steps")
    env.from_batch([1]).map(lambda n: (lock, n), name="pairs").sink(print)
    with pytest.raises(SubmitError, match="`lock` of `pairs` cannot be taken to the job manager: TypeError"):
        _payload.packed(env)
    env = small("services")
    env.register_service("db", Locked, lock)
    with pytest.raises(SubmitError, match="service `db` cannot be taken to the job manager"):
        _payload.packed(env)
    env = small("configured")
    env.config["lock"] = lock
    with pytest.raises(SubmitError, match="`lock` of `config` cannot be taken"):
        _payload.packed(env)


def test_a_list_of_this_program_is_refused_and_a_change_of_one_is_warned_of() -> None:
    env = LocalEnvironment("lists")
    seen = env.from_batch([1]).collect()
    with pytest.raises(SubmitError, match="`collect` gathers records in a list of this program"):
        _payload.packed(env)
    env = LocalEnvironment("lists")
    env.from_batch([1]).sink(lambda n: seen.append(n), name="keeps")
    with pytest.warns(UserWarning, match="`keeps` changes `seen`, of which the job has a copy"):
        _payload.packed(env)


def test_a_handle_of_another_environment_is_refused() -> None:
    db = small("other").service("db", Locked, (None,))
    env = LocalEnvironment("mine")
    env.from_batch([1]).map(lambda n: db.get(n)).sink(print)  # type: ignore[attr-defined]
    with pytest.raises(SubmitError, match="`db` is a service of another environment"):
        _payload.packed(env)


def test_what_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_payload, "MOST_BYTES", 1000)
    with pytest.raises(SubmitError, match="1,000 is the most: read large data in the job"):
        _payload.packed(small())


class Mine(BaseScheduler):
    def make_decision(self, task_node: Any) -> PlacementDecision:
        print("asked", task_node.name)
        return PlacementDecision()


def test_a_scheduler_of_the_program_is_asked_in_the_job(tmp_path: Path) -> None:
    env = LocalEnvironment("scheduled", scheduler=Mine())
    env.from_batch([1]).sink(Printed)
    ended = job(_payload.packed(env), tmp_path, PYTHONPATH=os.path.dirname(__file__))
    assert ended.stdout.splitlines() == ["asked batch", "1"], ended.stderr
