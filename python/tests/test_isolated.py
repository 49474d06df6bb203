"""Services in processes of their own: the same as here, and what only they have."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elsewhere import failed, no_processes, wait_for  # noqa: F401 (a fixture)

from sage import BaseService, JobFailed, LocalEnvironment, MapFunction, ServiceError, SinkFunction, SubmitError
from sage import WorkerLost

pytest.importorskip("cloudpickle")
pytestmark = pytest.mark.usefixtures("no_processes")


@pytest.fixture(params=[None, "processes"], ids=["threads", "processes"])
def env(request: pytest.FixtureRequest) -> LocalEnvironment:
    """Functions run there; services are isolated."""
    return LocalEnvironment("isolated", workers=request.param)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


class Log:
    """Lines that several processes write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, line: str) -> None:
        with open(self.path, "a") as file:
            file.write(line + "\n")

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


class Store(BaseService):
    def __init__(self, log: Log, other: str = "") -> None:
        self.log = log
        self.other = other

    def setup(self) -> None:
        self.log.add(f"setup {self.name}")

    def start(self) -> None:
        self.log.add(f"start {self.name}")

    def process(self, n: int) -> int:
        return n + 1

    def get(self, n: int, more: int = 0) -> int:
        if n < 0:
            raise KeyError(n)
        return n + more

    def pid(self) -> int:
        return os.getpid()

    def bounce(self, n: int) -> list[str]:
        """A → B → A → …"""
        rest: list[str] = self.call_service(self.other, n - 1, method="bounce") if n else []
        return [f"{self.name} {os.getpid()}", *rest]

    async def slow(self, n: int) -> int:
        await asyncio.sleep(0.02)
        return n * 10

    def stop(self) -> None:
        self.log.add(f"stop {self.name}")

    def cleanup(self) -> None:
        self.log.add(f"cleanup {self.name}")


class Asks(MapFunction):
    def __init__(self) -> None:
        self.first = self.call_service("store", 5)

    def execute(self, n: int) -> int:
        by_name: int = self.call_service("store", n, method="get", more=10)
        by_item: int = self.call_service["store"].get(n)
        with_time: int = self.call_service("store", n, timeout=60.0)
        later = self.call_service_async("store", n, method="get")
        return int(self.first) + by_name + by_item + with_time + int(later.result(10))


def test_services_are_called_as_if_they_were_here(env: LocalEnvironment, log: Log) -> None:
    env.register_service("store", Store, log, remote=True)
    records = env.from_batch(range(3)).map(Asks).collect()
    report = env.submit(autostop=True).report
    assert records == [17, 21, 25]
    assert log.lines == ["setup store", "start store", "stop store", "cleanup store"]
    service = report.services["store"]
    assert (service["state"], service["calls"]) == ("cleaned", 13)


def test_handles_call_them(env: LocalEnvironment, log: Log) -> None:
    store = env.service("store", Store, (log,), isolated=True)

    def ask(n: int) -> tuple[int, int]:
        try:
            return store.get(n, more=1), store.pid()
        except KeyError:
            return -1, 0

    records = env.from_batch([1, -5]).map(ask).collect()
    report = env.submit(autostop=True).report
    (told,) = [worker for worker in report.data["workers"] if worker["operator"] == "store"]
    assert records == [(2, told["pid"]), (-1, 0)]
    assert told["pid"] != os.getpid() and told["cpu"]["nanos"] > 0 and told["peak_bytes"] > 1 << 20
    assert told["end"] == "ended with exit code 0"
    assert "service store in a process of its own" in env.explain()


def test_async_methods_are_awaited_and_run_at_the_same_time(log: Log) -> None:
    env = LocalEnvironment("async")
    store = env.service("store", Store, (log,), isolated=True)

    async def ask(n: int) -> int:
        return await store.slow(n)

    begun = time.perf_counter()
    records = env.from_batch(range(64)).map(ask, in_flight=64).collect()
    env.submit(autostop=True)
    assert records == [10 * n for n in range(64)]
    assert time.perf_counter() - begun < 64 * 0.02 + 10  # a job that hangs


@pytest.mark.parametrize("both", [True, False], ids=["both isolated", "one isolated"])
def test_a_call_leads_to_another_service_and_back(env: LocalEnvironment, log: Log, both: bool) -> None:
    a = env.service("a", Store, (log, "b"), isolated=True)
    env.service("b", Store, (log, "a"), isolated=both)
    (told,) = env.from_batch([4]).map(lambda n: a.bounce(n)).collect(),
    env.submit(autostop=True)
    names = [step.split()[0] for step in told[0]]
    pids = [step.split()[1] for step in told[0]]
    assert names == ["a", "b", "a", "b", "a"]
    assert pids == [pids[0], pids[1]] * 2 + [pids[0]]
    assert (pids[1] == str(os.getpid())) is not both and pids[0] != str(os.getpid())


class User(BaseService):
    """Uses a service that it has not declared."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def setup(self) -> None:
        self.log.add(str(self.call_service("store", 1)))

    def cleanup(self) -> None:
        self.log.add("cleanup user " + str(self.call_service("store", 2)))


def test_a_service_that_others_use_is_cleaned_after_them(log: Log) -> None:
    env = LocalEnvironment("uses")
    env.register_service("user", User, log, remote=True)
    env.register_service("store", Store, log, remote=True)
    env.from_batch([1]).collect()
    env.submit(autostop=True)
    assert log.lines == ["setup store", "start store", "2", "cleanup user 3", "stop store", "cleanup store"]


class Meet(BaseService):
    def __init__(self) -> None:
        self.all = threading.Barrier(8, timeout=60)

    def meet(self, n: int) -> int:
        self.all.wait()
        return n

    def from_own_thread(self, n: int) -> int:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(self.call_service("store", n)))
        thread.start()
        thread.join()
        return found[0]


class Meets(MapFunction):
    def execute(self, n: int) -> int:
        calls = [self.call_service_async("meet", n, method="meet") for _ in range(8)]
        return sum(call.result() for call in calls)


def test_calls_run_at_the_same_time(env: LocalEnvironment) -> None:
    env.register_service("meet", Meet, remote=True)
    records = env.from_batch([1, 2]).map(Meets).collect()
    env.submit(autostop=True)
    assert records == [8, 16]


def test_threads_of_a_service_call_others(log: Log) -> None:
    env = LocalEnvironment("threads")
    meet = env.service("meet", Meet, isolated=True)
    env.service("store", Store, (log,))
    records = env.from_batch([1]).map(lambda n: meet.from_own_thread(n)).collect()
    env.submit(autostop=True)
    assert records == [2]


class Echo(BaseService):
    def process(self, data: bytes) -> bytes:
        print("echo")
        print("error", file=sys.stderr)
        logging.getLogger("mine").warning("logged")
        return data


def test_much_goes_both_ways_and_what_it_prints_and_logs_arrives(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    env = LocalEnvironment("echo")
    echo = env.service("echo", Echo, isolated=True)
    data = os.urandom(1 << 20) * 64
    records = env.from_batch([data]).map(lambda data: echo.process(data)).collect()
    env.submit(autostop=True)
    assert records == [data]
    out, err = capsys.readouterr()
    assert out == "[echo] echo\n" and "[echo] error\n" in err
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("mine", "logged")]


# Its end.


class Frail(Store):
    def die(self, how: str) -> None:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "segfault":
            ctypes.string_at(0)
        os._exit(3)


@pytest.mark.parametrize(
    ("how", "said"),
    [("kill", "was killed by SIGKILL"), ("segfault", "was killed by SIGSEGV"), ("exit", "ended with exit code 3")],
)
def test_the_end_of_its_process_fails_the_calls_and_is_told(
    env: LocalEnvironment, log: Log, how: str, said: str
) -> None:
    frail = env.service("frail", Frail, (log,), isolated=True)

    def ask(n: int) -> list[str]:
        told = []
        for call in (lambda: frail.die(how), lambda: frail.get(1)):
            try:
                call()
            except ServiceError as error:
                told.append(str(error))
        return told

    records = env.from_batch([1]).map(ask).collect()
    error = failed(env)
    (inside, after), report = records[0], error.report
    assert "the process of service `frail` (process " in inside and f") {said} while it was in `die`" in inside
    assert after == "service `frail` is not serving: it is lost"
    assert report.outcome == "succeeded", "the function has caught it"
    assert report.services["frail"]["state"] == "lost"
    (left,) = report.data["left"]
    assert left["what"] == "service `frail`" and said in left["why"] and "cleanup could not run" in left["why"]
    assert log.lines == ["setup frail", "start frail"]
    assert said in [worker["end"] for worker in report.data["workers"]]
    assert env.from_batch([]).collect() == [] and isinstance(failed(env), JobFailed), "it can be submitted again"


def test_a_call_that_it_fails_fails_the_job(log: Log) -> None:
    env = LocalEnvironment("lost")
    frail = env.service("frail", Frail, (log,), isolated=True)
    dropped = env.from_batch(range(3)).map(lambda n: frail.die("kill"), on_error="skip").collect()
    report = failed(env).report
    assert dropped == [] and report.outcome == "succeeded" and report.data["operators"][1]["failed"] == 3
    env.from_batch(range(3)).map(lambda n: frail.die("kill")).collect()
    assert isinstance(failed(env).__cause__, ServiceError)


class Unmade(BaseService):
    def __init__(self, how: str) -> None:
        if how == "raise":
            raise OSError("no room")
        os._exit(4)


@pytest.mark.parametrize(("how", "cause"), [("raise", OSError), ("exit", WorkerLost)])
def test_a_constructor_that_fails_fails_the_job(how: str, cause: type[Exception]) -> None:
    env = LocalEnvironment("unmade")
    env.register_service("unmade", Unmade, how, remote=True)
    env.from_batch([1]).collect()
    error = failed(env)
    assert isinstance(error.__cause__, cause) and error.report.data["left"] == []


# What does not end.


class Hangs(Store):
    def __init__(self, log: Log, hook: str, how: str = "loop") -> None:
        super().__init__(log)
        self.hook, self.how = hook, how
        self.hang("__init__")

    def hang(self, hook: str) -> None:
        if self.hook == hook:
            self.log.add("hung")
            if self.how == "C":
                ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock
            while True:
                time.sleep(0.01)

    def setup(self) -> None:
        self.hang("setup")

    def start(self) -> None:
        pass

    def process(self, n: int) -> int:
        self.hang("process")
        return n

    def stop(self) -> None:
        self.hang("stop")

    def cleanup(self) -> None:
        self.log.add("cleanup")
        self.hang("cleanup")


SHORT = {"timeouts": {"setup": 2.0, "stop": 0.5, "cleanup": 0.5}}


@pytest.mark.parametrize("how", ["loop", "C"])
@pytest.mark.parametrize("hook", ["__init__", "setup", "stop", "cleanup"])
def test_contract_14_a_hook_that_hangs_is_ended_with_the_process(log: Log, hook: str, how: str) -> None:
    env = LocalEnvironment("hangs", SHORT)
    hangs = env.service("hangs", Hangs, (log, hook, how), isolated=True)
    records = env.from_batch([1]).map(lambda n: hangs.process(n)).collect()
    if hook in ("stop", "cleanup"):
        report = env.submit(autostop=True).report
        assert records == [1]
    else:
        report = failed(env).report
    assert report.data["left"] == [] and report.data["cleanliness"] == "clean"
    assert report.services["hangs"]["state"] == "abandoned"
    assert "did not come back within" in str(report)
    (worker,) = report.data["workers"]
    cleans = hook in ("setup", "stop") and how == "loop"
    assert ("cleanup" in log.lines) is (cleans or hook == "cleanup")
    assert worker["end"] == ("ended with exit code 0" if cleans else "was killed by SIGTERM")


def test_a_call_that_hangs_is_given_up_when_the_job_is_cancelled(env: LocalEnvironment, log: Log) -> None:
    hangs = env.service("hangs", Hangs, (log, "process"), isolated=True)
    env.from_batch([1]).map(lambda n: hangs.process(n)).collect()
    job = env.submit()
    wait_for(log.path)
    job.cancel()
    with pytest.raises(JobFailed) as raised:
        job.wait()
    report = raised.value.report
    assert report.outcome == "cancelled" and report.data["left"] == []
    assert report.services["hangs"]["state"] == "cleaned" and log.lines == ["hung", "cleanup"]


class Begins(MapFunction):
    """Begins a call, and does not wait for it."""

    def execute(self, n: int) -> int:
        self.call_service_async("hangs", n)
        while "hung" not in Log(Path(os.environ["LOG"])).lines:
            time.sleep(0.005)
        return n


def test_a_call_that_hangs_is_given_up_when_the_service_stops(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG", str(log.path))
    # Of the ten seconds, the call has one to end, and its caller nine to leave: on a slow machine as well.
    monkeypatch.setattr("sage._isolated._KEPT", 0.9)
    env = LocalEnvironment("hangs", {"timeouts": {"stop": 10.0}})
    env.register_service("hangs", Hangs, log, "process", remote=True)
    records = env.from_batch([1]).map(Begins).collect()
    report = env.submit(autostop=True).report
    assert records == [1] and report.data["left"] == [] and log.lines == ["hung", "cleanup"]
    assert "1 call was still inside the process of service `hangs`" in str(report)


# What cannot be taken there.


def test_what_cannot_be_taken_there_is_named(log: Log) -> None:
    env = LocalEnvironment("locks")
    env.register_service("store", Store, {"inner": [threading.Lock()]}, remote=True)
    env.from_batch([1]).collect()
    with pytest.raises(SubmitError) as raised:
        env.submit(autostop=True)
    assert "cannot be taken to a process of its own: TypeError: cannot pickle '_thread.lock'" in str(raised.value)
    assert "an item of `inner` of `service_args` of service `store`" in str(raised.value)


class Odd(BaseService):
    def give(self) -> Callable[[], int]:
        return lambda: 1

    def take(self, one: int, two: Any = None) -> None:
        pass

    def fail(self) -> None:
        raise Hostile(1, 2)


class Hostile(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_calls_results_and_exceptions_that_cannot_be_pickled_are_named(env: LocalEnvironment) -> None:
    odd = env.service("odd", Odd, isolated=True)

    def ask(n: int) -> list[str]:
        told = []
        calls: list[Callable[[], object]] = [
            odd.give, lambda: odd.take(1, lambda: n), lambda: odd.take(1, two=open), odd.fail, odd.tak,
            lambda: odd.take(two=threading.Lock()),
        ]
        for call in calls:
            try:
                call()
            except Exception as error:
                told.append(f"{type(error).__name__}: {error}")
        return told

    records = env.from_batch([1]).map(ask).collect()
    env.submit(autostop=True)
    give, take, fail, tak, lock = records[0]
    assert "TypeError: a result of type `function` cannot be pickled" in give
    assert "cannot" in take and "pickle" in take
    assert fail == "RemoteCause: Hostile: 1 and 2"
    assert "`Odd` has no method `tak`; did you mean" in tak
    assert "pickle '_thread.lock'" in lock


class HasRemote(BaseService):
    def __init__(self, remote: bool) -> None:
        self.remote = remote

    def process(self, _: int) -> tuple[bool, int]:
        return self.remote, os.getpid()


def test_a_constructor_may_have_an_argument_of_that_name() -> None:
    env = LocalEnvironment("remote")
    env.register_service("has", HasRemote, remote=True)
    records = env.from_batch([1]).map(_CallsHas).collect()
    env.submit(autostop=True)
    assert records == [(True, os.getpid())]
    with pytest.raises(TypeError, match="`remote` is True or False"):
        env.register_service("store", Store, remote="yes")


class _CallsHas(MapFunction):
    def execute(self, n: int) -> Any:
        return self.call_service("has", n)


# The seed, with the service and the functions in processes of their own.


class Letters(BaseService):
    def __init__(self, log: Log) -> None:
        self.log = log
        self.is_running = False

    def setup(self) -> None:
        self.log.add("initialised")

    def start(self) -> None:
        self.is_running = True

    def process(self, text: str) -> str:
        self.log.add("used")
        return text.upper()

    def stop(self) -> None:
        self.is_running = False

    def cleanup(self) -> None:
        self.log.add("cleaned, running" if self.is_running else "cleaned, not running")


class Ask(MapFunction):
    def execute(self, letter: str) -> str:
        return str(self.call_service("letters", letter))


class Note(SinkFunction):
    def __init__(self, log: Log) -> None:
        self.log = log

    def execute(self, letter: str) -> None:
        self.log.add(letter)


def test_the_seed_is_the_same(env: LocalEnvironment, log: Log) -> None:
    env.register_service("letters", Letters, log, remote=True)
    env.from_batch(list("abcde")).map(Ask).sink(Note, log)
    env.submit(autostop=True)
    lines = log.lines
    assert not env.is_running and lines[0] == "initialised" and lines[-1] == "cleaned, not running"
    assert lines.count("used") == 5 and lines.count("cleaned, not running") == 1
    assert [line for line in lines if len(line) == 1] == list("ABCDE")


PROGRAM = """
import os, sys, time
from sage import BaseService, LocalEnvironment

class Store(BaseService):
    def process(self, n):
        return n, os.getpid()

    def stop(self):
        print("stopped", flush=True)

    def cleanup(self):
        print("cleaned", flush=True)

def count():
    n = 0
    while True:
        yield n
        n += 1

def slowly(n):
    if n == 3:
        open(sys.argv[1], "w").close()
    told = store.process(n)
    time.sleep(0.02)
    return told

env = LocalEnvironment("signal", workers="processes")
store = env.service("store", Store, isolated=True)
env.from_batch(count()).map(slowly, parallelism=2).sink(lambda told: None)
try:
    env.submit(autostop=True)
except KeyboardInterrupt:
    print("interrupted", [worker["end"] for worker in env.job.report.data["workers"]], flush=True)
"""


def test_contract_18_the_terminals_sigint_is_for_the_program_alone(tmp_path: Path) -> None:
    begun, program = tmp_path / "begun", tmp_path / "program.py"
    program.write_text(PROGRAM.replace("sys.argv[1]", repr(str(begun))))
    command = [sys.executable, str(program)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(begun)
    os.killpg(running.pid, signal.SIGINT)
    out, _ = running.communicate(timeout=120)
    assert out.splitlines() == ["[store] stopped", "[store] cleaned", f"interrupted {['ended with exit code 0'] * 3}"]


class AsksItsJob(MapFunction):
    def execute(self, n: int) -> bool:
        asked: bool = self.ctx.is_stop_requested()
        if n == 3:
            self.ctx.request_stop()
        return asked or bool(self.call_service("job", n))


class KnowsItsJob(BaseService):
    def process(self, n: int) -> bool:
        return self.ctx.is_stop_requested()


def test_functions_and_services_ask_how_far_their_job_is(env: LocalEnvironment) -> None:
    env.register_service("job", KnowsItsJob, remote=True)
    records = env.from_batch(itertools.count()).map(AsksItsJob).collect()
    env.submit(autostop=True)
    assert records[0] is False


def test_a_process_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    monkeypatch.setattr("sage._worker_process.version", "0.0.9")
    env = LocalEnvironment("version")
    env.register_service("store", Store, log, remote=True)
    env.from_batch([1]).collect()
    error = failed(env)
    assert "of the package, and not 0.0.9" in str(error) and error.report.data["left"] == [] and log.lines == []


def test_a_process_that_is_stopped_is_killed_at_the_deadline(log: Log) -> None:
    env = LocalEnvironment("stopped", SHORT)
    store = env.service("store", Store, (log,), isolated=True)

    def stop(n: int) -> int:
        pid = store.pid()
        os.kill(pid, signal.SIGSTOP)
        return n

    env.from_batch([1]).map(stop).collect()
    report = env.submit(autostop=True).report
    assert report.data["left"] == [] and report.services["store"]["state"] == "abandoned"
    assert [worker["end"] for worker in report.data["workers"]] == ["was killed by SIGKILL"]
