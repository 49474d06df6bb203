"""Signals while jobs run: whose handlers run and when, what they do to a job, and that all is as before afterwards."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment
from sage import _running

HOURS = 48 * 3600
#: After so many seconds something has not come that should have.
LONGEST = 60


class Stopped(Exception):
    pass


@contextmanager
def handler(number: int, act: Callable[..., Any]) -> Iterator[None]:
    before = signal.signal(number, act)
    try:
        yield
    finally:
        assert signal.getsignal(number) is act
        signal.signal(number, before)


def endless(then: Callable[[], object], name: str = "endless") -> LocalEnvironment:
    """Never ends by itself, nor by a drain or a cancel that takes too long; calls ``then`` at its first record."""
    env = LocalEnvironment(name, config={"timeouts": {"drain": HOURS, "cancel": HOURS}})
    told = iter([then])

    def first(_: int) -> None:
        for call in told:
            call()

    tick = threading.Event()
    env.from_source(lambda: tick.wait(0.001) or 1).sink(first)
    return env


SENDS: dict[str, Callable[[int], object]] = {
    "to the process": lambda number: os.kill(os.getpid(), number),
    "to another thread": signal.raise_signal,
    "to the main thread": lambda number: signal.pthread_kill(main, number),
}
main = threading.get_ident()

WAITS: dict[str, Callable[[LocalEnvironment], object]] = {
    "submit": lambda env: env.submit(autostop=True),
    "wait": lambda env: env.submit().wait(),
    "wait with a timeout": lambda env: env.submit().wait(HOURS),
    "wait of the environment": lambda env: env.submit() and env.wait(),
    "report": lambda env: env.submit().report,
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS.keys())
def test_a_handler_runs_on_the_main_thread_while_that_waits(
    send: Callable[[int], object], wait: Callable[[LocalEnvironment], object]
) -> None:
    ran_on = []
    ran = threading.Event()

    def note(*_: Any) -> None:
        ran_on.append(threading.current_thread())
        ran.set()

    went_on = []

    def first() -> None:
        send(signal.SIGUSR1)
        went_on.append(ran.wait(LONGEST))
        env._run.job.drain()  # type: ignore[union-attr]

    env = endless(first)
    with handler(signal.SIGUSR1, note):
        wait(env)
    assert went_on == [True] and ran_on == [threading.main_thread()]


class Db(BaseService):
    cleaned = 0

    def cleanup(self) -> None:
        type(self).cleaned += 1


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_what_a_handler_raises_cancels_the_job_and_comes_out_when_it_is_clean(
    wait: Callable[[LocalEnvironment], object],
) -> None:
    def stop(*_: Any) -> None:
        raise Stopped("by a handler")

    class Counted(Db):
        cleaned = 0

    env = endless(partial(os.kill, os.getpid(), signal.SIGUSR1))
    env.register_service("db", Counted)
    with handler(signal.SIGUSR1, stop), pytest.raises(Stopped, match="by a handler") as stopped:
        wait(env)
    report = stopped.value.report  # type: ignore[attr-defined]
    told = [report.data[what] for what in ("outcome", "reason", "cleanliness")]
    assert told == ["cancelled", "cancel", "clean"]
    assert Counted.cleaned == 1 and not env.is_running and not _running._running
    env.close()


def test_an_alarm_ends_a_job_as_pytest_timeout_does_it() -> None:
    def late(*_: Any) -> None:
        pytest.fail("Timeout")

    env = endless(lambda: None)
    with handler(signal.SIGALRM, late), pytest.raises(pytest.fail.Exception, match="Timeout"):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        env.submit(autostop=True)
    assert not _running._running


def test_a_with_statement_and_close_heed_handlers() -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    held = threading.Event()

    class Held(BaseService):
        def cleanup(self) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert held.wait(LONGEST)

    def release(*_: Any) -> None:
        held.set()
        stop()

    with handler(signal.SIGUSR1, release), pytest.raises(Stopped), LocalEnvironment("with") as env:
        env.register_service("held", Held)
        env.from_batch([1]).sink(str)
        env.submit()


def test_a_handler_that_raises_again_and_again_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: unraisable.append(told.exc_value))
    numbers = iter(range(1_000_000))
    cleaning = threading.Event()

    def stop(*_: Any) -> None:
        number = next(numbers)
        # The next alarm may interrupt this one anywhere.
        if number >= 20:
            signal.setitimer(signal.ITIMER_REAL, 0)
            cleaning.set()
        raise Stopped(number)

    class Slow(BaseService):
        def cleanup(self) -> None:
            assert cleaning.wait(LONGEST)

    env = endless(lambda: signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001))
    env.register_service("slow", Slow)
    with handler(signal.SIGALRM, stop), pytest.raises(Stopped) as stopped:
        env.submit(autostop=True)
    assert stopped.value.args == (0,)
    # But for those that were raised while another was told.
    told = [error.args[0] for error in unraisable]
    assert told and told == sorted(told) and told[0] >= 1


def test_what_failed_before_a_handler_raised_is_its_context() -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    class Late(BaseService):
        def cleanup(self) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert raised.wait(LONGEST)

    raised = threading.Event()
    env = LocalEnvironment("failed")
    env.register_service("late", Late)
    env.from_batch([0]).sink(lambda n: 1 / n)

    def stop_and_tell(*_: Any) -> None:
        raised.set()
        stop()

    with handler(signal.SIGUSR1, stop_and_tell), pytest.raises(Stopped) as stopped:
        env.submit(autostop=True)
    failed = stopped.value.__context__
    assert isinstance(failed, JobFailed) and isinstance(failed.__cause__, ZeroDivisionError)


def test_a_handler_that_waits_for_another_job() -> None:
    seen = []
    done = threading.Event()

    def run(*_: Any) -> None:
        env = LocalEnvironment("inner")
        squares = env.from_batch([1, 2, 3]).map(lambda n: n * n).collect()
        env.submit(autostop=True)
        seen.append(list(squares))
        done.set()

    def first() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert done.wait(LONGEST)
        env._run.job.drain()  # type: ignore[union-attr]

    env = endless(first)
    with handler(signal.SIGUSR1, run):
        env.submit(autostop=True)
    assert seen == [[1, 4, 9]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_what_the_programs_own_handler_of_sigint_raises_is_raised_after_the_drain(number: signal.Signals) -> None:
    def stop(*_: Any) -> None:
        ran.set()
        raise Stopped

    ran = threading.Event()
    written: list[int] = []

    def write(n: int) -> None:
        if n == 0:
            os.kill(os.getpid(), number)
            assert ran.wait(LONGEST)  # it runs at once
        written.append(n)

    env = LocalEnvironment("own", config={"timeouts": {"drain": HOURS}})
    # Without an end: a short one may be over before the engine hears of the signal.
    env.from_batch(itertools.count()).sink(write)
    with handler(number, stop), pytest.raises(Stopped) as stopped:
        env.submit(autostop=True)
    # A cancel would have dropped what was read.
    report = stopped.value.report  # type: ignore[attr-defined]
    assert report.data["reason"] == {"signal": number} and report.data["cleanliness"] == "clean"
    assert written == list(range(report.data["operators"][0]["records_out"]))


# ---- programs

PROGRAM = """
import ctypes, os, re, signal, sys, threading, time
from sage import BaseService, JobFailed, LocalEnvironment, _running

signal.alarm(60)
HOURS = 48 * 3600

def caught():
    status = open("/proc/self/status").read()
    # Not those above: the C library has one for itself, from the first thread on.
    mask = int(re.search("SigCgt:\\\\s*(\\\\w+)", status)[1], 16) & (1 << 31) - 1
    return mask, [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGURG)]

class Db(BaseService):
    def cleanup(self):
        os.write(1, b"cleaned\\n")

ticked = threading.Event()

def tick():
    ticked.set()
    time.sleep(0.001)
    return 1

def make(source=tick, sink=lambda _: None, **config):
    env = LocalEnvironment("program", config=config)
    env.register_service("db", Db)
    env.from_source(source).sink(sink)
    return env

def send(number):
    os.kill(os.getpid(), number)

def stop(*_):
    raise ValueError("stop")

def tell(what):
    os.write(1, f"{what}\\n".encode())
"""


def program(text: str) -> subprocess.Popen[str]:
    # Whoever runs the tests in the background has their programs ignore SIGINT.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "-c", PROGRAM + text]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)


def run(text: str) -> tuple[int, list[str], str]:
    process = program(text)
    out, err = process.communicate(timeout=LONGEST)
    return process.returncode, out.splitlines(), err


def strike(process: subprocess.Popen[str], number: int) -> None:
    """Sends a signal and waits until it was taken, so that the next is another."""
    process.send_signal(number)
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        pending = re.search(r"ShdPnd:\s*(\w+)", status.read_text())
        if pending is None or not int(pending[1], 16) & 1 << (number - 1):
            return


WAYS = {
    "success": "env = LocalEnvironment('x'); env.from_batch([1]).sink(str); env.submit(autostop=True)",
    "failure": """
env = LocalEnvironment('x'); env.from_batch([0]).sink(lambda n: 1 / n)
try: env.submit(autostop=True)
except JobFailed: pass
""",
    "refused": """
try: LocalEnvironment('x').submit(autostop=True)
except Exception as error: tell(type(error).__name__)
""",
    "SIGINT": """
threading.Thread(target=lambda: ticked.wait() and send(signal.SIGINT)).start()
try: env = make(); env.submit(autostop=True)
except KeyboardInterrupt: pass
""",
    "SIGTERM": """
threading.Thread(target=lambda: ticked.wait() and send(signal.SIGTERM)).start()
try: env = make(); env.submit(autostop=True)
except SystemExit: pass
""",
    "SIGINT in the background": """
env = make(); env.submit()
try:
    threading.Thread(target=lambda: ticked.wait() and send(signal.SIGINT)).start()
    threading.Event().wait()
except KeyboardInterrupt: pass
try: env.wait()
except KeyboardInterrupt: pass
""",
    "a handler": """
signal.signal(signal.SIGUSR1, stop)
before = caught()
threading.Thread(target=lambda: ticked.wait() and send(signal.SIGUSR1)).start()
try: env = make(); env.submit(autostop=True)
except ValueError: pass
""",
    "abandoned": """
free = threading.Event()
env = make(sink=lambda _: free.wait(), timeouts={"cancel": 0.01})
job = env.submit(); ticked.wait(); job.cancel()
try: job.wait()
except JobFailed: pass
free.set()
""",
    "nobody waits": """
env = LocalEnvironment('x'); env.from_batch([1]).sink(str); job = env.submit()
while job.state != "ended": time.sleep(0.0001)
""",
    "nobody looks": """
over = threading.Event()
env = LocalEnvironment('x'); env.from_batch([1]).sink(str)
job = env.submit(); job._run.job.on_end(over.set); del env, job
over.wait()
""",
    "another thread waits": """
env = LocalEnvironment('x'); env.from_batch([1]).sink(str)
thread = threading.Thread(target=env.submit().wait); thread.start(); thread.join()
""",
    "several at once": """
envs = [make() for _ in range(3)]
jobs = [env.submit() for env in envs]
thread = threading.Thread(target=lambda: [env.stop() for env in envs[:2]]); thread.start()
jobs[2].drain(); jobs[2].wait(); thread.join()
""",
    "jobs of another thread": """
env = make()
thread = threading.Thread(target=lambda: env.submit() and ticked.wait() and env.stop()); thread.start(); thread.join()
""",
    "beside one of another thread": """
theirs = make()
thread = threading.Thread(target=lambda: theirs.submit() and ticked.wait()); thread.start(); thread.join()
env = LocalEnvironment('x'); env.from_batch([1]).sink(str); env.submit(autostop=True)
theirs.stop()
""",
    "asyncio": """
import asyncio
env = LocalEnvironment('x'); env.from_batch([1]).sink(str); asyncio.run(env.submit_async())
""",
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_contract_29_in_every_way_out_signals_are_as_before(way: str) -> None:
    code, out, err = run(
        f"""
before = caught()
{way}
after = caught()
tell("as before" if before == after else f"{{before}} {{after}}")
tell(f"held: {{len(_running._running)}}")
"""
    )
    assert code == 0 and "as before" in out, (out, err)
    # Of one that nobody has waited for, somebody may still.
    assert "held: 0" in out or "nobody" in way or "del env" in way or "job.state" in way, (out, err)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SystemExit")])
def test_after_a_signal_the_run_is_let_go_and_close_is_quiet(number: signal.Signals, kind: str) -> None:
    code, out, err = run(
        f"""
env = make()
threading.Thread(target=lambda: ticked.wait() and send({int(number)})).start()
try: env.submit(autostop=True)
except {kind} as ends: tell(ends.report.data["cleanliness"])
tell((len(_running._running), env.is_running))
env.close()
tell("quiet")
"""
    )
    assert (code, out) == (0, ["cleaned", "clean", "(0, False)", "quiet"]), err


def test_ctrl_c_drains_whatever_other_handlers_run_meanwhile() -> None:
    code, out, err = run(
        """
ticks = []
signal.signal(signal.SIGVTALRM, lambda *_: ticks.append(threading.current_thread() is threading.main_thread()))
read, written = [], []
go_on = threading.Event()

def source():
    read.append(1)
    return 1

def sink(record):
    if not written:
        send(signal.SIGINT)
        for _ in range(100):
            send(signal.SIGVTALRM)
    written.append(record)

env = make(source, sink, timeouts={"drain": HOURS})
try: env.submit(autostop=True)
except KeyboardInterrupt as ends:
    tell((ends.report.outcome, len(written) == ends.report.data["operators"][0]["records_out"]))
tell(bool(ticks) and all(ticks))
"""
    )
    assert (code, out) == (0, ["cleaned", "('cancelled', True)", "True"]), err


SAYS = {
    "a list": ("list(range(2000))", {}, "interrupted: {read} of 2,000 done"),
    "a generator": ("(n for n in range(2000))", {}, "interrupted: {read} done"),
    "finish": ("range(2000)", {"on_signal": "finish"}, "stopped: {read} of 2,000 done"),
}


@pytest.mark.parametrize(("records", "config", "says"), SAYS.values(), ids=SAYS.keys())
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_standard_error_says_what_is_finished_and_how_far_the_job_came(
    number: signal.Signals, records: str, config: dict[str, str], says: str
) -> None:
    code, out, err = run(
        f"""
def sink(n):
    if n == 5:
        send({int(number)})
        while env.job is None or env.job.state == "running":
            time.sleep(0.001)

env = LocalEnvironment("said", config={config!r})
env.from_batch({records}).sink(sink)
try: report = env.submit(autostop=True).report
except (KeyboardInterrupt, SystemExit) as ends: report = ends.report
tell(f"{{report.data['operators'][0]['records_in']:,}}")
"""
    )
    first, last = err.splitlines()
    assert re.fullmatch(r"stopping: finishing [\d,]+ records?; Ctrl-C again to drop them", first)
    assert (code, last) == (0, says.format(read=out[0]))


def test_standard_error_says_what_the_second_signal_dropped() -> None:
    process = program(
        WAITS_FOR_EVER
        + """
try: env.submit(autostop=True)
except KeyboardInterrupt: pass
"""
    )
    assert process.stdout is not None and process.stdout.readline() == "waits\n"
    strike(process, signal.SIGINT)
    # The job has nothing to say of the first if the second comes before it says it.
    assert process.stderr is not None and process.stderr.readline().startswith("stopping: ")
    strike(process, signal.SIGINT)
    _, err = process.communicate(timeout=LONGEST)
    assert err == "interrupted: 0 of 1 done, 1 record dropped\n", err


def test_standard_error_is_left_alone_where_progress_is_not_wanted() -> None:
    code, out, err = run(
        """
env = LocalEnvironment("silent")
env.from_batch([1]).sink(lambda _: send(signal.SIGINT))
try: env.submit(autostop=True, progress=False)
except KeyboardInterrupt: tell("interrupted")
"""
    )
    assert (code, out, err) == (0, ["interrupted"], "")


#: Neither a drain nor a cancel brings it to its end; the first is there for ever, as is the second.
HANGS = """
import faulthandler
faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)

def hang(_):
    tell("hangs")
    threading.Event().wait()

env = make(sink=hang, timeouts={"drain": HOURS, "cancel": HOURS})
"""

#: A drain waits for what never comes; a cancel drops it.
WAITS_FOR_EVER = """
import asyncio

async def wait(_):
    tell("waits")
    await asyncio.Event().wait()

env = LocalEnvironment("program", config={"timeouts": {"drain": HOURS, "cancel": HOURS}})
env.from_batch([1]).map(wait).sink(str)
"""


@pytest.mark.parametrize("numbers", [(2, 2), (15, 15), (2, 15), (15, 2)])
def test_contract_18_the_second_signal_cancels_what_no_drain_can_end(numbers: tuple[int, int]) -> None:
    first, second = numbers
    process = program(
        WAITS_FOR_EVER
        + """
try: env.submit(autostop=True)
except (KeyboardInterrupt, SystemExit) as ends:
    tell((type(ends).__name__, ends.report.outcome, ends.report.data["reason"]))
"""
    )
    assert process.stdout is not None and process.stdout.readline() == "waits\n"
    strike(process, first)
    strike(process, second)
    out, err = process.communicate(timeout=LONGEST)
    kind = {2: "KeyboardInterrupt", 15: "SystemExit"}[first]
    assert (process.returncode, out) == (0, f"('{kind}', 'cancelled', {{'signal': {first}}})\n"), err


@pytest.mark.parametrize(("number", "kind"), [(2, "KeyboardInterrupt"), (15, "SystemExit")])
def test_contract_18_the_third_signal_leaves_the_job_where_it_is(number: int, kind: str) -> None:
    # Nothing of the third signal is left to be raised by what the program does next.
    tells = "sum(range(100_000)); [n for n in range(100_000)]; tell(env.job.state != 'ended'); os._exit(9)"
    process = program(HANGS + f"try: env.submit(autostop=True)\nexcept {kind}: {tells}")
    assert process.stdout is not None and process.stdout.readline() == "hangs\n"
    for _ in range(3):
        strike(process, number)
    out, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, out) == (9, "True\n"), err


def test_a_signal_that_comes_when_the_job_is_over_is_not_lost() -> None:
    code, out, err = run(
        """
class Late(BaseService):
    def cleanup(self):
        os.write(1, b"late\\n")

env = LocalEnvironment("late"); env.register_service("late", Late)
env.from_batch([1]).sink(str)
signal.signal(signal.SIGUSR1, lambda *_: send(signal.SIGINT))
job = env.submit()
job._run.job.on_end(lambda: send(signal.SIGINT))
try:
    job.wait(); threading.Event().wait()
except KeyboardInterrupt: tell("interrupted")
tell(job.report.outcome)
"""
    )
    assert (code, out) == (0, ["late", "interrupted", "succeeded"]), err


FORKS = {
    "of the main thread": "env.submit(autostop=True)",
    "of another thread": "thread = threading.Thread(target=env.submit, args=(True,)); thread.start(); thread.join()",
}


@pytest.mark.parametrize("how", FORKS.values(), ids=FORKS.keys())
def test_contract_29_terminate_ends_a_process_that_a_function_forked(how: str) -> None:
    code, out, err = run(
        f"""
import multiprocessing
fork = multiprocessing.get_context("fork")

def child(told):
    told.send((signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, caught()[0] & 1 << 14))
    signal.pause()

def start(_):
    ours, theirs = fork.Pipe()
    process = fork.Process(target=child, args=(theirs,))
    process.start()
    found = ours.recv()
    process.terminate()
    process.join()
    return (*found, process.exitcode)

env = LocalEnvironment("forks")
codes = env.from_batch([1, 2]).map(start).collect()
{how}
tell(codes)
"""
    )
    assert (code, out) == (0, ["[(True, 0, -15), (True, 0, -15)]"]), err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -15), (signal.SIGINT, -2), (signal.SIGUSR1, 7)])
def test_contract_29_a_signal_to_a_process_that_the_program_forked(number: signal.Signals, code: int) -> None:
    ended, out, err = run(
        f"""
signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
env = make()
env.submit(); ticked.wait()
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    # A signal that comes before the wait ends that as well, which `signal.pause` does not promise.
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    os.write(write, b"x")
    while True: os.read(woken, 1)
os.read(read, 1)
os.kill(pid, {int(number)})
tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
env.stop()
"""
    )
    assert ended == 0 and str(code) in out, (out, err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_contract_18_with_finish_a_signal_is_a_drain_that_succeeds(number: signal.Signals) -> None:
    code, out, err = run(
        f"""
env = make(on_signal="finish", timeouts={{"drain": HOURS}})
threading.Thread(target=lambda: ticked.wait() and send({int(number)})).start()
job = env.submit(autostop=True)
tell((job.report.outcome, job.report.data["reason"]))
"""
    )
    assert (code, out) == (0, ["cleaned", "('succeeded', 'drain')"]), err


def test_contract_18_with_finish_a_program_that_does_not_wait_ends_when_all_is_finished() -> None:
    process = program(
        """
threading.Thread(target=lambda: make(on_signal="finish").submit(), daemon=True).start()
ticked.wait(); tell("ticks")
threading.Event().wait()
"""
    )
    assert process.stdout is not None and process.stdout.readline() == "ticks\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, out) == (-15, "cleaned\n"), err


def test_what_a_signal_does_is_one_of_two_words() -> None:
    with pytest.raises(ValueError, match="`on_signal` of `config` is \"drain\" or \"finish\", not 'finnish'"):
        LocalEnvironment("words", config={"on_signal": "finnish"})
