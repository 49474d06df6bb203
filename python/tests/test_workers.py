"""The same programs on threads and on worker processes: results, order, report, blame; and what only workers have."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from elsewhere import WHERE, env, failed, hang, is_there, no_processes, wait_for, workers  # noqa: F401

import sage
from sage import BaseService, Count, DataStream, DeadLetterQueue, FlatMapFunction, JobFailed, LocalEnvironment
from sage import MapFunction, Retry, SubmitError, WorkerLost

pytest.importorskip("cloudpickle")

pytestmark = pytest.mark.usefixtures("no_processes")


# What is the same.


def square(n: int) -> int:
    return n * n


def is_even(n: int) -> bool:
    return n % 2 == 0


def twice(n: int) -> list[int]:
    return [n, n]


class Scaled(MapFunction):
    def __init__(self, factor: int, log: str | None = None) -> None:
        self.factor = factor
        self.log = log

    def execute(self, n: int) -> int:
        return n * self.factor

    def close(self) -> None:
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write(f"closed {self.ctx.replica} of {self.ctx.parallelism}\n")


class Words(FlatMapFunction):
    def execute(self, line: str) -> None:
        for word in line.split():
            self.collect(word)


@dataclass(frozen=True)
class Doc:
    text: str
    number: int = 0


PIPELINES: dict[str, Callable[[DataStream], DataStream]] = {
    "a chain": lambda s: s.map(square).filter(is_even).flatmap(twice).map(Scaled, 3),
    "a lambda": lambda s: s.map(lambda n: n + 1),
    "none is no record": lambda s: s.map(lambda n: n if n % 3 else None),
    "kept none": lambda s: s.map(lambda n: n if n % 3 else None, keep_none=True),
    "keys": lambda s: s.keyby(lambda n: n % 7).count(),
    "a fold by key": lambda s: s.keyby(lambda n: n % 7).reduce(lambda a, b: a + b),
    "a state": lambda s: s.keyby(lambda n: n % 7).map_with_state(0, lambda total, n: (total + n, total + n)),
    "loops within loops": lambda s: s.flatmap(range).flatmap(range).map(square),
    "objects": lambda s: s.map(lambda n: Doc(str(n), n)).map(lambda doc: doc.number),
}


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
def test_the_results_and_their_order_are_the_same(pipeline: Callable[[DataStream], DataStream]) -> None:
    found = []
    for where in WHERE:
        env = LocalEnvironment("same", workers=where)
        records = pipeline(env.from_batch(range(40))).collect()
        report = env.submit(autostop=True).report
        rows = [(row["name"], row["records_in"], row["records_out"], row["failed"]) for row in report.data["operators"]]
        # A sink is a row of its own where what is before it runs elsewhere.
        found.append((list(records), rows[0], sum(row[3] for row in rows), report.outcome))
    assert found[0] == found[1]
    assert found[0][0], "it gives something"


def test_of_several_replicas_each_has_its_records(env: LocalEnvironment, tmp_path: Path) -> None:
    log = tmp_path / "log"
    records = env.from_batch(range(1000)).map(Scaled, 2, str(log), parallelism=2).collect()
    env.submit(autostop=True)
    assert sorted(records) == [2 * n for n in range(1000)]
    assert sorted(log.read_text().splitlines()) == ["closed 0 of 2", "closed 1 of 2"]


def fail_at_five(n: int) -> int:
    if n == 5:
        raise ValueError("five")
    return n


def test_a_failure_names_the_function_and_the_record(env: LocalEnvironment) -> None:
    env.from_batch(range(10)).map(square, name="first").map(lambda n: fail_at_five(n - 11), name="second").collect()
    error = failed(env)
    assert "record 5" in str(error) and "in `second`: ValueError: five" in str(error.report)
    assert isinstance(error.__cause__, ValueError)


class Hostile(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def hostile(n: int) -> int:
    raise Hostile(n, 2)


def test_an_exception_whose_constructor_takes_arguments_comes_as_text(env: LocalEnvironment) -> None:
    env.from_batch([1]).map(hostile).collect()
    error = failed(env)
    assert "Hostile: 1 and 2" in str(error.report)


def test_policies_are_the_same(env: LocalEnvironment) -> None:
    dead = DeadLetterQueue()
    skipped = env.from_batch(range(8)).map(fail_at_five, on_error="skip").collect()
    alive = env.from_batch(range(8)).map(fail_at_five, on_error=dead, retry=Retry(2, 0.0)).collect()
    letters = dead.letters.map(lambda letter: (letter.record, letter.attempts, len(letter.errors))).collect()
    report = env.submit(autostop=True).report
    assert skipped == alive == [0, 1, 2, 3, 4, 6, 7]
    assert letters == [(5, 2, 2)]
    assert sum(row["failed"] for row in report.data["operators"]) == 2


class Unmade(MapFunction):
    def __init__(self) -> None:
        raise OSError("no room")


def test_a_constructor_that_raises_fails_the_job(env: LocalEnvironment) -> None:
    env.from_batch([1]).map(Unmade).collect()
    assert isinstance(failed(env).__cause__, OSError)


class Unclosed(MapFunction):
    def execute(self, n: int) -> int:
        return n

    def close(self) -> None:
        raise OSError("cannot close")


def test_a_close_that_raises_is_told(env: LocalEnvironment) -> None:
    env.from_batch([1]).map(Unclosed).collect()
    assert "cannot close" in str(failed(env))


def leave(n: int) -> int:
    raise SystemExit(4)


def test_a_function_that_exits_ends_the_job_by_that(env: LocalEnvironment) -> None:
    env.from_batch([1]).map(leave, on_error="skip").collect()
    with pytest.raises((SystemExit, JobFailed)):
        env.submit(autostop=True)


# Services.


class Store(BaseService):
    def __init__(self) -> None:
        self.pids = {os.getpid()}
        self.calls = 0

    def get(self, n: int, more: int = 0) -> int:
        self.calls += 1
        if n < 0:
            raise KeyError(n)
        return n + more + (os.getpid() in self.pids)

    def ask(self, n: int) -> int:
        return self.call_service("other", n, method="get")


class Asks(MapFunction):
    def execute(self, n: int) -> int:
        by_name: int = self.call_service("store", n, method="get", more=10)
        by_item: int = self.call_service["store"].get(n)
        return by_name + by_item + int(self.call_service_async("store", n, method="get").result(10))


def test_services_are_called_where_they_are(env: LocalEnvironment) -> None:
    env.register_service("store", Store)
    records = env.from_batch(range(3)).map(Asks).collect()
    report = env.submit(autostop=True).report
    assert records == [13, 16, 19]
    assert report.services["store"]["calls"] == 9
    assert report.services["store"]["state"] == "Clean" or report.outcome == "succeeded"


def test_handles_cross_to_functions(env: LocalEnvironment) -> None:
    store = env.service("store", Store)
    records = env.from_batch(range(3)).map(lambda n: store.get(n, more=1)).collect()
    env.submit(autostop=True)
    assert records == [2, 3, 4]


def test_the_exception_of_a_service_is_raised_in_the_function(env: LocalEnvironment) -> None:
    store = env.service("store", Store)

    def ask(n: int) -> int:
        try:
            return store.get(n)
        except KeyError:
            return -1

    records = env.from_batch([1, -5]).map(ask).collect()
    env.submit(autostop=True)
    assert records == [2, -1]


def test_a_call_to_a_service_leads_to_others(env: LocalEnvironment) -> None:
    env.register_service("store", Store)
    env.register_service("other", Store)
    records = env.from_batch([1]).map(_Nested).collect()
    env.submit(autostop=True)
    assert records == [2]


class _Nested(MapFunction):
    def execute(self, n: int) -> int:
        return int(self.call_service("store", n, method="ask"))


class Constructed(MapFunction):
    def __init__(self) -> None:
        self.first = self.call_service("store", 1, method="get")

    def execute(self, n: int) -> int:
        return n + int(self.first)


def test_a_constructor_calls_services(env: LocalEnvironment) -> None:
    env.register_service("store", Store)
    records = env.from_batch([1]).map(Constructed).collect()
    env.submit(autostop=True)
    assert records == [3]


class Threaded(MapFunction):
    """Calls from its own threads, all at once."""

    def execute(self, n: int) -> int:
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(self.call_service("meet", method="meet"))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(found)


class Meet(BaseService):
    def __init__(self) -> None:
        self.all = threading.Barrier(4, timeout=20)

    def meet(self) -> int:
        self.all.wait()
        return 1


def test_calls_of_a_functions_own_threads_run_at_once(env: LocalEnvironment) -> None:
    env.register_service("meet", Meet)
    records = env.from_batch([1]).map(Threaded).collect()
    env.submit(autostop=True)
    assert records == [4]


class Echo(BaseService):
    def process(self, data: bytes) -> bytes:
        return data


class Large(MapFunction):
    def execute(self, data: bytes) -> bytes:
        return bytes(self.call_service("echo", data))


def test_much_goes_both_ways_at_once(env: LocalEnvironment) -> None:
    env.register_service("echo", Echo)
    data = os.urandom(1 << 20) * 64
    records = env.from_batch([data, data]).map(Large).collect()
    env.submit(autostop=True)
    assert records == [data, data]


@dataclass
class Page:
    data: bytes


LARGE = os.urandom(64 << 10)
RECORDS_WITH_BYTES = [
    LARGE,
    LARGE[:-1],
    LARGE * 20,
    bytearray(LARGE),
    (1, LARGE, bytearray(LARGE), [LARGE]),
    {"name": "a", "image": LARGE, "pages": [LARGE, b"", {"deep": LARGE}]},
    [LARGE] * 70,
    {LARGE: 1},
    Page(LARGE),
]


def with_kind(record: Any) -> Any:
    if isinstance(record, bytearray):
        record[0] ^= 1  # can be written to
        record[0] ^= 1
    return type(record), record


@pytest.mark.parametrize("options", [{}, {"in_flight": 2}, {"on_error": "skip"}], ids=["plain", "in flight", "judged"])
def test_large_bytes_come_as_what_they_are(env: LocalEnvironment, options: dict[str, Any]) -> None:
    records = env.from_batch(RECORDS_WITH_BYTES).map(with_kind, **options).collect()
    env.submit(autostop=True)
    assert records == [(type(record), record) for record in RECORDS_WITH_BYTES]
    assert type(records[4][1][2]) is bytearray and type(records[5][1]["image"]) is bytes


# What only workers have.


def test_functions_run_in_a_process_of_their_own(workers: LocalEnvironment) -> None:
    pids = workers.from_batch(range(4)).map(lambda _: os.getpid(), parallelism=2).collect()
    here = workers.from_batch(range(4)).map(lambda _: os.getpid(), workers=None).collect()
    workers.submit(autostop=True)
    assert len(set(pids)) == 2 and os.getpid() not in pids
    assert set(here) == {os.getpid()}


def test_a_step_says_where_it_runs() -> None:
    env = LocalEnvironment("threads")
    pids = env.from_batch(range(2)).map(lambda _: os.getpid(), workers="processes").collect()
    env.submit(autostop=True)
    assert os.getpid() not in pids
    with pytest.raises(ValueError, match="sink"):
        env.from_batch([1]).sink(print, workers="processes")
    with pytest.raises(ValueError, match='"processes", "ray", or None'):
        LocalEnvironment("x", workers="threads")


def test_steps_of_the_package_itself_have_no_workers(workers: LocalEnvironment) -> None:
    dead = DeadLetterQueue()
    numbers = workers.from_batch(range(8)).map(fail_at_five, on_error=dead, workers=None)
    keyed = numbers.keyby(is_even, workers=None)
    counts, pairs = keyed.window(Count(2)).count().collect(), keyed.join(keyed).inner().collect()
    letters = dead.letters.collect()
    report = workers.submit(autostop=True).report
    assert len(counts) == 4 and len(pairs) == 3 * 3 + 4 * 4 and len(letters) == 1
    assert report.data["workers"] == [] and "in processes" not in workers.explain()


def kill(n: int) -> int:
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def leave_at_once(n: int) -> int:
    os._exit(3)


def segfault(n: int) -> int:
    return int(ctypes.string_at(0)[0])


def close_socket(n: int) -> int:
    os.closerange(3, 256)
    return n


@pytest.mark.parametrize(
    ("function", "how"),
    [
        (kill, "was killed by SIGKILL"),
        (leave_at_once, "ended with exit code 3"),
        (segfault, "was killed by SIGSEGV"),
        (close_socket, "worker of `close_socket`"),
    ],
)
def test_a_worker_that_ends_is_named(workers: LocalEnvironment, function: Callable[[int], int], how: str) -> None:
    workers.from_batch(range(5)).map(function, on_error="skip", retry=2).collect()
    error = failed(workers)
    assert isinstance(error.__cause__, WorkerLost) and how in str(error.__cause__)
    assert "it had the record" in str(error.__cause__) and "left behind" not in str(error)


def kill_once(n: int) -> int:
    if n == 30 and not os.path.exists(os.environ["KILLED"]):
        Path(os.environ["KILLED"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def test_another_worker_takes_the_place_of_one_that_is_lost(
    workers: LocalEnvironment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    records = workers.from_batch(range(100)).map(kill_once, on_worker_loss="restart").collect()
    report = workers.submit(autostop=True).report
    assert sorted(set(records)) == list(range(100))
    assert "took the place of 1 that were lost" in str(report)
    assert [worker["end"] for worker in report.data["workers"]] == ["was killed by SIGKILL", "ended with exit code 0"]
    assert "another takes its place" in caplog.text


def test_records_that_end_each_worker_fail_the_job() -> None:
    env = LocalEnvironment("poison", {"on_worker_loss": "restart"}, workers="processes")
    env.from_batch(range(5)).map(kill).collect()
    error = failed(env)
    assert isinstance(error.__cause__, WorkerLost) and len(error.report.data["workers"]) == 3


def test_a_function_with_a_state_is_not_restarted() -> None:
    env = LocalEnvironment("state", {"on_worker_loss": "restart"}, workers="processes")
    env.from_batch(range(5)).keyby(is_even).count().collect()
    with pytest.raises(SubmitError, match="`count` keeps a state"):
        env.submit(autostop=True)


def test_the_report_tells_of_each_worker(workers: LocalEnvironment) -> None:
    pids = workers.from_batch(range(100)).map(lambda _: os.getpid(), name="mine", parallelism=2).collect()
    report = workers.submit(autostop=True).report
    told = report.data["workers"]
    assert [(worker["operator"], worker["replica"]) for worker in told] == [("mine", 0), ("mine", 1)]
    assert {worker["pid"] for worker in told} == set(pids)
    assert {worker["guard"] for worker in told} == {"subreaper"}
    assert all(worker["peak_bytes"] > 1 << 20 and worker["cpu"]["nanos"] > 0 for worker in told)
    assert "worker 1 of mine: process" in str(report)
    assert "[mine] ×2 in processes" in workers.explain()


def test_a_function_that_hangs_is_ended_and_all_is_clean(
    workers: LocalEnvironment, tmp_path: Path
) -> None:
    workers.from_batch([str(tmp_path / "hung")]).map(hang).collect()
    job = workers.submit()
    wait_for(tmp_path / "hung")
    job.cancel()
    with pytest.raises(JobFailed) as raised:
        job.wait()
    assert raised.value.report.data["left"] == []
    assert "was killed" in str(raised.value.report)


def prints(n: int) -> int:
    print("one", end=" ")
    print(n)
    print("error", n, file=sys.stderr)
    logging.getLogger("mine").warning("logged %d", n)
    warnings.warn(f"warned {n}", stacklevel=1)
    return n


def test_what_functions_print_and_log_arrives(
    workers: LocalEnvironment, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    workers.from_batch([7]).map(prints).collect()
    workers.submit(autostop=True)
    out, err = capsys.readouterr()
    assert out == "[prints] one 7\n"
    assert "[prints] error 7\n" in err and "warned 7" in err
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("mine", "logged 7")]


class Holds(MapFunction):
    def __init__(self, client: dict[str, Any]) -> None:
        self.client = client

    def execute(self, n: int) -> int:
        return n


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("never")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (threading.Lock, "cannot pickle '_thread.lock'"),
        (lambda: open(os.devnull), "an open file, '/dev/null'"),  # noqa: SIM115
        (lambda: open(os.devnull, "ab", buffering=0), "an open file"),  # noqa: SIM115
        (lambda: (n for n in range(3)), "cannot pickle 'generator'"),
        (socket.socket, "cannot pickle 'socket'"),
        (lambda: sqlite3.connect(":memory:"), "cannot pickle 'sqlite3.Connection'"),
        (Refuses, "RuntimeError: never"),
    ],
    ids=["lock", "read file", "raw file", "generator", "socket", "database", "hostile"],
)
def test_what_cannot_cross_is_named_at_submit(workers: LocalEnvironment, make: Callable[[], Any], why: str) -> None:
    captured = make()
    workers.from_batch([1]).map(lambda n: (captured, n), name="first").collect()
    with pytest.raises(SubmitError) as raised:
        workers.submit(autostop=True)
    assert "`captured` of `first` cannot be taken to a worker process" in str(raised.value)
    assert why in str(raised.value)
    other = LocalEnvironment("other", workers="processes")
    other.from_batch([1]).map(Holds, {"inner": [captured]}).collect()
    with pytest.raises(SubmitError, match="an item of `inner` of `Holds` cannot be taken"):
        other.submit(autostop=True)
    getattr(captured, "close", int)()


def test_a_container_that_a_function_changes_is_warned_of(workers: LocalEnvironment) -> None:
    seen: list[int] = []
    counts: dict[int, int] = {}

    def note(n: int) -> int:
        seen.append(n)
        counts[n] = 1
        return len(seen)

    workers.from_batch([1]).map(note).map(lambda n: n + len(seen)).collect()
    with pytest.warns(UserWarning) as warned:
        workers.submit(autostop=True)
    assert [str(each.message).split(",")[0] for each in warned] == ["`note` changes `counts`", "`note` changes `seen`"]


def test_a_result_that_cannot_be_pickled_is_named(workers: LocalEnvironment) -> None:
    workers.from_batch([1]).map(lambda n: (lambda: n)).collect()
    assert "a result of type `function` cannot be pickled" in str(failed(workers))


def test_a_process_that_a_function_has_left_is_ended(workers: LocalEnvironment) -> None:
    left = workers.from_batch([1]).map(_leave_process).collect()
    report = workers.submit(autostop=True).report
    assert not Path(f"/proc/{left[0]}").exists()
    assert "1 process that workers had started" in str(report)


def _leave_process(n: int) -> int:
    return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid


PROGRAM = """
import os, signal, subprocess, sys, time
from sage import LocalEnvironment

def hold(path):
    pid = subprocess.Popen(["sleep", "1000"], start_new_session=True).pid
    with open(path + ".new", "w") as file:
        file.write(f"{os.getpid()} {os.getppid()} {pid}")
    os.rename(path + ".new", path)
    import ctypes
    ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock

env = LocalEnvironment("held", workers="processes")
env.from_batch(sys.argv[1:]).map(hold).collect()
env.submit(autostop=True)
"""


def test_contract_20_the_end_of_the_parent_ends_all_below_it(tmp_path: Path) -> None:
    told = tmp_path / "told"
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(told)])
    wait_for(told)
    pids = [int(pid) for pid in told.read_text().split()]
    program.kill()
    program.wait()
    until = time.monotonic() + 2
    while left := [pid for pid in pids if is_there(pid)]:
        assert time.monotonic() < until, f"{left} are there 2 s after the end of their parent"
        time.sleep(0.005)


MAIN = """
from dataclasses import dataclass
from sage import LocalEnvironment, MapFunction

@dataclass
class Doc:
    text: str

class Upper(MapFunction):
    def execute(self, doc):
        return Doc(doc.text.upper())

env = LocalEnvironment("main", workers="processes")
docs = env.from_batch([Doc("a"), Doc("b")]).map(Upper).map(lambda doc: doc).collect()
env.submit(autostop=True)
assert docs == [Doc("A"), Doc("B")] and type(docs[0]) is Doc, docs
"""


def test_classes_of_the_main_module_cross(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(MAIN)
    subprocess.run([sys.executable, str(tmp_path / "program.py")], check=True, timeout=120)


def test_workers_have_the_version_of_their_job() -> None:
    assert sage._sage.version


class Touches(MapFunction):
    def execute(self, path: str) -> None:
        Path(path).touch()
        raise OSError("again")


def test_a_pause_before_a_new_instance_ends_with_the_job(tmp_path: Path) -> None:
    faults = {"strategy": "restart", "restart_strategy": "fixed", "max_attempts": 3, "delay": 3600}
    env = LocalEnvironment("pause", {"fault_tolerance": faults}, workers="processes")
    env.from_batch([str(tmp_path / "called")]).map(Touches).collect()
    job = env.submit()
    wait_for(tmp_path / "called")
    job.cancel()
    with pytest.raises(JobFailed) as raised:
        job.wait()
    assert "was killed" not in str(raised.value.report)
