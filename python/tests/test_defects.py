"""What SAGE does wrong and ours does right: a test for each row of the table in docs/parity.md, which names the row."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sage import (
    BaseCoMapFunction,
    BaseJoinFunction,
    BaseService,
    BatchFunction,
    JobFailed,
    LocalEnvironment,
    MapFunction,
    SinkFunction,
    SourceFunction,
)

PAGE = (Path(__file__).parents[2] / "docs" / "parity.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("| scenario | SAGE | ours |\n|---|---|---|\n")[2]
covered: list[str] = []
F = TypeVar("F", bound=Callable[..., None])


def row(scenario: str) -> Callable[[F], F]:
    """Says which row the test is of."""
    covered.append(scenario)
    return lambda test: test


def test_every_row_has_a_test() -> None:
    assert covered == re.findall(r"^\| (.*?) \|", TABLE, re.MULTILINE) and len(covered) > 20


def fails(env: LocalEnvironment) -> JobFailed:
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    return failed.value


events: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    events.clear()


class Noted(BaseService):
    """Notes its hooks; ``fails_in`` is the one that raises."""

    def __init__(self, fails_in: str = "") -> None:
        self.fails_in = fails_in

    def setup(self) -> None:
        self._note("setup")

    def process(self, record: Any = None) -> Any:
        self._note("process")
        return record

    def cleanup(self) -> None:
        self._note("cleanup")

    def _note(self, hook: str) -> None:
        events.append(f"{self.name} {hook}")
        if hook == self.fails_in:
            raise ZeroDivisionError(f"{hook} broke")


class Calls(SinkFunction):
    def __init__(self, name: str = "db") -> None:
        self.service = name

    def execute(self, record: Any) -> None:
        self.call_service(self.service, record)


class Boom(Exception):
    pass


def boom(*_: Any) -> Any:
    raise Boom("at work")


class BoomCoMap(BaseCoMapFunction):
    map0 = map1 = staticmethod(boom)


@row("a function raises")
@pytest.mark.parametrize("kind", ["map", "filter", "flatmap", "sink", "source", "comap"])
def test_a_function_raises(kind: str) -> None:
    env = LocalEnvironment()
    if kind == "source":
        env.from_source(boom).collect()
    elif kind == "comap":
        env.from_batch([1]).connect(env.from_batch([2])).comap(BoomCoMap).collect()
    else:
        stream = getattr(env.from_batch([1, 2]), kind)(boom)
        if kind != "sink":
            stream.collect()
    failed = fails(env)
    assert isinstance(failed.__cause__, Boom)
    assert (", record 1: " in str(failed)) or kind == "source"


class AlwaysRaises(BatchFunction):
    def execute(self) -> Any:
        raise Boom("no records")


@row("a batch source always raises")
def test_a_batch_source_always_raises() -> None:
    env = LocalEnvironment()
    env.from_batch(AlwaysRaises).collect()
    assert isinstance(fails(env).__cause__, Boom)


class NoConstructor(MapFunction):
    def __init__(self) -> None:
        raise Boom("no operator")


@row("a constructor raises")
def test_a_constructor_raises() -> None:
    env = LocalEnvironment()
    env.register_service("db", Noted)
    env.from_batch([1]).map(NoConstructor).collect()
    assert isinstance(fails(env).__cause__, Boom)
    assert events == ["db setup", "db cleanup"]


@row("a service's method raises")
def test_a_services_method_raises() -> None:
    env = LocalEnvironment()
    env.register_service("db", Noted, "process")
    env.from_batch([1]).sink(Calls)
    assert isinstance(fails(env).__cause__, ZeroDivisionError)


@row("`setup` raises")
def test_setup_raises() -> None:
    env = LocalEnvironment()
    env.register_service("db", Noted, "setup")
    env.from_batch([1]).sink(Calls)
    assert isinstance(fails(env).__cause__, ZeroDivisionError)
    assert events == ["db setup", "db cleanup"], "no task called it"


@row("`cleanup` raises")
def test_cleanup_raises() -> None:
    env = LocalEnvironment()
    env.register_service("db", Noted, "cleanup")
    env.register_service("other", Noted)
    env.from_batch([1]).sink(Calls)
    failed = fails(env)
    assert events.count("db cleanup") == events.count("other cleanup") == 1
    assert "db" in str(failed) and "cleanup broke" in str(failed.report)


HANGS = """
import threading
from sage import BaseService, JobFailed, LocalEnvironment

class Stuck(BaseService):
    def cleanup(self):
        threading.Event().wait()

env = LocalEnvironment("hangs", {"timeouts": {"cleanup": 0.1}})
env.register_service("stuck", Stuck)
env.from_batch([1]).collect()
try:
    env.submit(autostop=True)
except JobFailed as failed:
    print("stuck" in str(failed.report), flush=True)
"""


@row("`cleanup` hangs")
def test_cleanup_hangs() -> None:
    ran = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30, check=False)
    assert ran.stdout == "True\n", ran.stderr


class Outer(BaseService):
    def setup(self) -> None:
        self.call_service("db", 1)

    def cleanup(self) -> None:
        events.append("outer cleanup")


@row("a service uses another")
@pytest.mark.parametrize("names", [("db", "outer"), ("outer", "db")])
def test_a_service_uses_another(names: tuple[str, str]) -> None:
    env = LocalEnvironment()
    for name in names:
        env.register_service(name, Outer if name == "outer" else Noted)
    env.from_batch([1]).collect()
    env.submit(autostop=True)
    assert events[-2:] == ["outer cleanup", "db cleanup"]


class CallsItself(BaseService):
    def process(self, n: int) -> int:
        result: int = n and self.call_service("itself", n - 1) + 1
        return result


@row("a service calls itself")
def test_a_service_calls_itself() -> None:
    env = LocalEnvironment()
    itself = env.service("itself", CallsItself)
    got = env.from_batch([3]).map(itself.process).collect()
    env.submit(autostop=True)
    assert got == [3]


class Forgets(SinkFunction):
    def execute(self, record: Any) -> None:
        self.call_service_async("db", record)


@row("`call_service_async` that nobody awaits")
def test_an_asynchronous_call_that_nobody_awaits() -> None:
    env = LocalEnvironment()
    env.register_service("db", Noted)
    env.from_batch([1, 2, 3]).sink(Forgets)
    began = time.monotonic()
    env.submit(autostop=True)
    assert events.count("db process") <= 3 and events[-1] == "db cleanup"
    assert time.monotonic() - began < 5


@row("`None` in a list")
def test_none_in_a_list() -> None:
    env = LocalEnvironment()
    got = env.from_batch([1, None, 2]).collect()
    env.submit(autostop=True)
    assert got == [1, None, 2]


@row("a `map` or `mapN` returns `None`")
def test_a_map_that_returns_none() -> None:
    env = LocalEnvironment("filtered")
    got = env.from_batch(range(5)).map(lambda n: n or None, name="some").collect()
    job = env.submit(autostop=True)
    assert got == [1, 2, 3, 4]
    assert any("1 of `some`" in note and "keep_none=True" in note for note in job.report.data["notes"])


@row("`keyby` with falsy keys, or with a lambda")
def test_keyby_with_falsy_keys_or_with_a_lambda() -> None:
    seen: dict[Any, set[int]] = {}

    class Sees(SinkFunction):
        def execute(self, key: Any) -> None:
            seen.setdefault(key, set()).add(self.ctx.replica)

    keys = [None, 0, "", (), "a"]
    env = LocalEnvironment()
    env.from_batch(keys * 20).keyby(lambda key: key).sink(Sees, parallelism=3)
    env.submit(autostop=True)
    assert set(seen) == set(keys) and all(len(replicas) == 1 for replicas in seen.values())


class Sides(BaseCoMapFunction):
    def map0(self, record: Any) -> Any:
        return 0, record

    def map1(self, record: Any) -> Any:
        return 1, record


class SlowFive(BatchFunction):
    def __init__(self) -> None:
        self.n = 0

    def execute(self) -> int | None:
        time.sleep(0.02)
        self.n += 1
        return self.n if self.n <= 5 else None


@row("two sources into one `comap`, one of them slow")
def test_two_sources_into_one_comap_one_of_them_slow() -> None:
    env = LocalEnvironment()
    got = env.from_batch(SlowFive).connect(env.from_batch(range(10))).comap(Sides).collect()
    env.submit(autostop=True)
    assert sorted(got) == [(0, n) for n in range(1, 6)] + [(1, n) for n in range(10)]


class Matches(BaseJoinFunction):
    def __init__(self) -> None:
        self.sides: dict[Any, tuple[list[Any], list[Any]]] = {}

    def execute(self, payload: Any, key: Any, tag: int) -> list[Any]:
        sides = self.sides.setdefault(key, ([], []))
        sides[tag].append(payload)
        return [(payload, other)[:: 1 if tag == 0 else -1] for other in sides[1 - tag]]


@row("a join of two unequal lists")
def test_a_join_of_two_unequal_lists() -> None:
    lefts, rights = [(n % 5, n) for n in range(40)], [(n % 7, -n) for n in range(7)]
    env = LocalEnvironment()
    got = env.from_batch(lefts).connect(env.from_batch(rights)).keyby(lambda record: record[0]).join(Matches).collect()
    env.submit(autostop=True)
    assert sorted(got) == sorted((a, b) for a in lefts for b in rights if a[0] == b[0])


@row("`parallelism=2`, one replica slow")
def test_parallelism_2_one_replica_slow() -> None:
    class Slow(MapFunction):
        def execute(self, n: int) -> int:
            time.sleep(0.01 * self.ctx.replica)
            return n

    env = LocalEnvironment()
    got = env.from_batch(range(12)).map(Slow, parallelism=2).collect()
    env.submit(autostop=True)
    assert sorted(got) == list(range(12))


@row("a sink stalls, and the queue is full")
def test_a_sink_stalls_and_the_queue_is_full() -> None:
    given = held = 0

    def numbers() -> Any:
        nonlocal given
        for given in range(200_000):
            yield given

    got: list[int] = []

    def stalls(n: int) -> None:
        nonlocal held
        if not got:
            before = -1
            while before != given:  # until the source is held up, or has ended
                before = given
                threading.Event().wait(0.2)
            held = given
        got.append(n)

    env = LocalEnvironment()
    env.from_batch(numbers()).map(lambda n: n, parallelism=2).sink(stalls)
    env.submit(autostop=True)
    assert 0 < held < 199_999, "the source waited"
    assert sorted(got) == list(range(200_000))


@row("two environments in two threads")
def test_two_environments_in_two_threads() -> None:
    results: dict[int, list[int]] = {}

    def run(number: int) -> None:
        env = LocalEnvironment(f"thread-{number}")
        results[number] = env.from_batch(range(2000)).map(lambda n: n * number).collect()
        env.submit(autostop=True)

    threads = [threading.Thread(target=run, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [n * number for n in range(2000)] for number in (1, 2)}


@row("a job takes longer than 300 s")
def test_no_limit_counts_for_a_job_at_work() -> None:
    limits = dict.fromkeys(["setup", "drain", "cancel", "stop", "cleanup"], 0.05)
    env = LocalEnvironment("long", {"timeouts": limits})
    got = env.from_batch(SlowFive).map(lambda n: time.sleep(0.08) or n).collect()
    env.submit(autostop=True)
    assert got == [1, 2, 3, 4, 5]


class Bridge(BaseService):
    """Has another pipeline of the same environment answer."""

    def __init__(self, requests: Any) -> None:
        self.requests = requests

    def process(self, question: str) -> str:
        answer: queue.Queue[str] = queue.Queue()
        self.requests.put((question, answer))
        return answer.get(timeout=30)


class Requests(SourceFunction):
    def __init__(self, requests: Any) -> None:
        self.requests = requests

    def execute(self) -> Any:
        try:
            return self.requests.get(timeout=0.05)
        except queue.Empty:
            return None


class Asks(MapFunction):
    def execute(self, question: str) -> Any:
        return self.call_service("pipeline", question)


@row("`stop`, with a pipeline as a service")
def test_stop_with_a_pipeline_as_a_service() -> None:
    requests: Any = queue.SimpleQueue()
    answers: Any = queue.SimpleQueue()
    env = LocalEnvironment()
    env.register_service("pipeline", Bridge, requests)
    env.from_source(Requests, requests).map(lambda r: (r[0].upper(), r[1])).sink(lambda r: r[1].put(r[0]))
    env.from_batch(["a", "b", "c"]).map(Asks).sink(answers.put)
    env.submit()
    assert [answers.get(timeout=30) for _ in range(3)] == ["A", "B", "C"]
    began = time.monotonic()
    env.stop()
    assert not env.is_running and time.monotonic() - began < 5


ENDLESS = """
import time
from sage import BaseService, LocalEnvironment

class Db(BaseService):
    def cleanup(self):
        print("cleaned", flush=True)

def ticks():
    print("tick", flush=True)
    time.sleep(0.01)
    return 1

env = LocalEnvironment("signalled")
env.register_service("db", Db)
env.from_source(ticks).sink(lambda _: None)
env.submit(autostop=True)
"""


@row("SIGINT, SIGTERM")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_sigint_sigterm(number: signal.Signals, code: int) -> None:
    # Whoever runs the tests in the background has their programs ignore SIGINT.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "-c", ENDLESS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    assert process.stdout is not None and process.stdout.readline() == "tick\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    # A shell tells of a program that a signal ended as 128 and its number.
    assert process.returncode in (code, -number), err
    assert out.split().count("cleaned") == 1


@row("`sys.exit` in a function")
def test_sys_exit_in_a_function() -> None:
    env = LocalEnvironment()
    env.register_service("db", Noted)
    env.from_batch([3]).sink(sys.exit)
    assert isinstance(fails(env).__cause__, SystemExit)
    assert events == ["db setup", "db cleanup"]


@row("file descriptors that a job leaves open")
def test_file_descriptors() -> None:
    def once() -> int:
        env = LocalEnvironment()
        env.register_service("db", Noted)
        env.from_batch([1]).sink(Calls)
        env.submit(autostop=True)
        return len(os.listdir("/proc/self/fd"))

    assert once() == [once() for _ in range(10)][-1]


@row("log volume")
def test_log_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    env = LocalEnvironment()
    env.register_service("db", Noted)
    env.from_batch(range(1000)).sink(Calls)
    env.submit(autostop=True)
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())
