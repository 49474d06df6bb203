"""The hooks of a service in every way a job can end: their order, and one cleanup before the process ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, MapFunction, SinkFunction

HOOKS = ["__init__", "setup", "start", "stop", "cleanup"]


class Breaks(Exception):
    pass


class Hooked(BaseService):
    """Notes its hooks; one of them raises."""

    seen: list[str]
    fails = ""

    def at(self, name: str) -> None:
        self.seen.append(name)
        if name == self.fails:
            raise Breaks(name)

    def __init__(self) -> None:
        self.at("__init__")

    def setup(self) -> None:
        self.at("setup")

    def start(self) -> None:
        self.at("start")

    def process(self, record: Any) -> Any:
        self.at("call")
        return record

    def stop(self) -> None:
        self.at("stop")

    def cleanup(self) -> None:
        self.at("cleanup")


def hooked(fails: str = "") -> type[Hooked]:
    return type("Hooked", (Hooked,), {"seen": [], "fails": fails})


class Call(SinkFunction):
    def execute(self, record: Any) -> None:
        self.call_service("db", record)


def environment(service: type[Hooked]) -> LocalEnvironment:
    env = LocalEnvironment("matrix")
    env.register_service("db", service)
    return env


def test_the_order_of_the_hooks() -> None:
    service = hooked()
    env = environment(service)
    env.from_batch([1, 2]).sink(Call)
    env.submit(autostop=True)
    assert service.seen == ["__init__", "setup", "start", "call", "call", "stop", "cleanup"]


@pytest.mark.parametrize("fails", [*HOOKS, "call"])
def test_an_exception_in_a_hook(fails: str) -> None:
    service = hooked(fails)
    env = environment(service)
    env.from_batch([1]).sink(Call)
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, Breaks) and str(failed.value.__cause__) == fails
    order = ["__init__", "setup", "start", "call", "stop", "cleanup"]
    if fails in ("setup", "start"):
        # What did not start is not stopped; it is cleaned.
        assert service.seen == [*order[: order.index(fails) + 1], "cleanup"]
    else:
        assert service.seen == (["__init__"] if fails == "__init__" else order)


@pytest.mark.parametrize("exit", [SystemExit(3), KeyboardInterrupt()], ids=["sys.exit", "KeyboardInterrupt"])
def test_an_exit_in_an_operator_fails_the_job_and_is_the_cause(exit: BaseException) -> None:
    def leave(_: int) -> None:
        raise exit

    service = hooked()
    env = environment(service)
    env.from_batch([1]).sink(leave)
    with pytest.raises(JobFailed, match=", record 1: ") as failed:
        env.submit(autostop=True)
    assert failed.value.__cause__ is exit
    assert service.seen == ["__init__", "setup", "start", "stop", "cleanup"]


def test_an_exception_in_del_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: unraisable.append(told.exc_value))

    class Fragile(MapFunction):
        def execute(self, record: int) -> int:
            return record

        def __del__(self) -> None:
            raise Breaks("function")

    class Service(Hooked):
        seen: list[str] = []

        def __del__(self) -> None:
            raise Breaks("service")

    env = environment(Service)
    records = env.from_batch([1, 2]).map(Fragile).collect()
    env.submit(autostop=True)
    assert records == [1, 2] and Service.seen == ["__init__", "setup", "start", "stop", "cleanup"]
    gc.collect()  # the function is in a cycle with the loop that was made of it
    assert sorted(map(str, unraisable)) == ["function", "service"]


def test_a_job_that_a_thread_submitted() -> None:
    service = hooked()
    failed: list[BaseException] = []

    def submit() -> None:
        env = environment(service)
        env.from_batch([0]).sink(lambda n: 1 / n)
        try:
            env.submit(autostop=True)
        except JobFailed as error:
            failed.append(error)

    thread = threading.Thread(target=submit)
    thread.start()
    thread.join()
    assert isinstance(failed[0].__cause__, ZeroDivisionError)
    assert service.seen.count("cleanup") == 1


PROGRAM = """
import gc, os, signal, sys, threading, time
from sage import BaseService, LocalEnvironment

class Db(BaseService):
    def cleanup(self):
        os.write(1, b"cleaned\\n")

ticked = threading.Event()

def tick():
    ticked.set()
    time.sleep(0.001)
    return 1

def make():
    env = LocalEnvironment("process")
    env.register_service("db", Db)
    env.from_source(tick).sink(lambda _: None)
    return env

env = make()
"""


def program(rest: str) -> subprocess.Popen[str]:
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "-c", PROGRAM + rest]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)


def run(rest: str) -> tuple[int, list[str], str]:
    process = program(rest)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.split(), err


def test_collecting_the_environment_does_not_end_its_job() -> None:
    code, out, err = run(
        "env.submit(); ticked.wait(); del env; gc.collect(); ticked.clear()\n"
        "print('goes', 'on' if ticked.wait(10) else '')"
    )
    assert (code, out) == (0, ["goes", "on", "cleaned"]), err


WAITS = {
    "in submit": "env.submit(autostop=True)",
    "in wait": "env.submit().wait()",
    "in another lock": "env.submit(); threading.Event().wait()",
    "asleep": "env.submit(); time.sleep(60)",
    "in a read": "env.submit(); os.read(os.pipe()[0], 1)",
    "computing": "env.submit()\nwhile True: pass",
}


@pytest.mark.parametrize("waits", WAITS.values(), ids=WAITS.keys())
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_program_when_it_is_cleaned(waits: str, number: signal.Signals) -> None:
    lines = "\n    ".join(waits.split("\n"))
    process = program(
        "threading.Thread(target=lambda: ticked.wait() and os.write(1, b'ticks\\n')).start()\n"
        f"try:\n    {lines}\nfinally:\n    os.write(1, b'finally\\n')"
    )
    assert process.stdout is not None and process.stdout.readline() == "ticks\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    # The interpreter raises a KeyboardInterrupt that nobody caught as the signal itself.
    assert process.returncode in ((130, -2) if number == signal.SIGINT else (143,)), err
    assert out.count("cleaned") == 1 and "finally" in out, err


@pytest.mark.parametrize("waits", ["env.submit(autostop=True)", "env.submit(); threading.Event().wait()"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_to_jobs_of_other_threads(waits: str, number: signal.Signals) -> None:
    process = program(
        f"def other():\n    {waits}\n"
        "threading.Thread(target=other, daemon=True).start()\n"
        "ticked.wait(); print('ticks', flush=True); threading.Event().wait()"
    )
    assert process.stdout is not None and process.stdout.readline() == "ticks\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (128 + number, -number), err
    assert out.count("cleaned") == 1, err


def test_the_programs_own_handlers_are_called_and_kept() -> None:
    code, out, err = run(
        """
told = []
mine = lambda number, frame: told.append(number)
signal.signal(signal.SIGTERM, mine)
job = env.submit()
ticked.wait()
os.kill(os.getpid(), signal.SIGTERM)
try:
    job.wait()
except SystemExit as exit:
    print(exit.code, told == [15], signal.getsignal(signal.SIGTERM) is mine, job.report.outcome)
"""
    )
    assert (code, out) == (0, ["cleaned", "143", "True", "True", "cancelled"]), err


def test_sigterm_is_left_as_it_was() -> None:
    env = LocalEnvironment("polite")
    env.from_batch([1]).sink(print)
    before = signal.getsignal(signal.SIGTERM)
    job = env.submit()
    assert before is signal.SIG_DFL and signal.getsignal(signal.SIGTERM) is not before
    job.wait()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_job_that_a_thread_is_just_starting_when_the_interpreter_ends() -> None:
    code, out, err = run(
        """
from sage import _running
started, ends, go_on = threading.Event(), threading.Event(), threading.Event()
class Slow(set):
    def add(self, run):
        started.set()
        go_on.wait()
        super().add(run)
_running._running = Slow()
threading.Thread(target=env.submit, daemon=True).start()
started.wait()
import atexit
atexit.register(ends.set)
threading.Thread(target=lambda: (ends.wait(), time.sleep(0.1), go_on.set()), daemon=True).start()
"""
    )
    assert (code, out) == (0, ["cleaned"]), err


def test_no_job_can_be_started_while_the_interpreter_ends() -> None:
    code, out, err = run(
        """
import atexit
class Late:
    def __del__(self):
        try: env.submit()
        except RuntimeError as error: os.write(1, str(error).encode())
late = Late()
"""
    )
    assert code == 0 and " ".join(out) == "the interpreter is ending; no job can be started any more", err


FORKS = {
    "while it runs": "job = env.submit(); ticked.wait()",
    "when it is over": "job = env.submit(); ticked.wait(); env.stop()",
}


@pytest.mark.parametrize("before", FORKS.values(), ids=FORKS.keys())
def test_a_forked_process_is_told_to_spawn(before: str) -> None:
    code, out, err = run(
        before
        + """
if os.fork() == 0:
    for use in (lambda: job.wait(), lambda: job.cancel(), lambda: job.state, lambda: make().submit()):
        try: use()
        except RuntimeError as error: os.write(1, b"spawn\\n" if "spawn" in str(error) else str(error).encode())
    handler = signal.getsignal(signal.SIGTERM)
    os.write(1, b"default\\n" if handler is signal.SIG_DFL else repr(handler).encode())
    sys.exit(5)
code = os.waitstatus_to_exitcode(os.wait()[1])
os.write(1, b"child %d\\n" % code)
"""
    )
    assert code == 0 and "child" in out and out[out.index("child") + 1] == "5", err
    # Of a job that is over, all is known.
    assert out.count("spawn") == (4 if before is FORKS["while it runs"] else 1), (out, err)
    assert out.count("cleaned") == 1 and out.count("default") == 1, (out, err)


def test_a_process_that_was_forked_before_any_job_runs_its_own() -> None:
    code, out, err = run(
        "if os.fork() == 0: env.submit(); ticked.wait(); sys.exit()\nprint(os.waitstatus_to_exitcode(os.wait()[1]))"
    )
    assert (code, out) == (0, ["cleaned", "0"]), err


@pytest.mark.parametrize("first", ["", "import sage\n"])
def test_a_subinterpreter_is_refused(first: str) -> None:
    # One that shares the lock with the main one; others are refused by the interpreter itself.
    is_new = sys.version_info >= (3, 13)
    new, module = ("create('legacy')", "_interpreters") if is_new else ("create()", "_xxsubinterpreters")
    run = "try: import sage\\nexcept ImportError as error: print(error)"
    code = f"{first}import {module} as sub\nsub.run_string(sub.{new}, '{run}')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "runs in the main interpreter of a process only, not in a subinterpreter; use processes" in done.stdout, done


def test_twenty_ends_of_the_interpreter() -> None:
    command = [sys.executable, str(Path(__file__).with_name("exits.py")), "--runs", "20", "--seed", str(os.getpid())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
