"""How jobs end: with signals, with the interpreter; and that everything is cleaned once in each case."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from sage import LocalEnvironment

PROGRAM = """
import sys, threading, time
from sage import BaseService, LocalEnvironment, SourceFunction

class Db(BaseService):
    def cleanup(self):
        print("cleaned", flush=True)

ticked = threading.Event()

class Ticks(SourceFunction):
    def execute(self):
        print("tick", flush=True)
        ticked.set()
        time.sleep(0.01)
        return 1

env = LocalEnvironment("signalled")
env.register_service("db", Db)
env.from_source(Ticks).sink(lambda _: None)
"""


def program(rest: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM + rest]
    # Whoever runs the tests in the background has their programs ignore SIGINT.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out.split(), err


@pytest.mark.parametrize(
    ("number", "codes"), [(signal.SIGINT, (130, -signal.SIGINT)), (signal.SIGTERM, (143, -signal.SIGTERM))]
)
def test_a_signal_cleans_and_then_ends_the_program_with_its_code(
    number: signal.Signals, codes: tuple[int, int]
) -> None:
    process = program("env.submit(autostop=True)\nprint('not reached')")
    assert process.stdout is not None and process.stdout.readline() == "tick\n"
    process.send_signal(number)
    code, out, err = finish(process)
    assert code in codes, err
    assert out.count("cleaned") == 1 and "reached" not in out, err


@pytest.mark.parametrize("rest", ["", "raise ValueError('the program breaks')", "sys.exit(3)", "del env"])
def test_the_end_of_the_interpreter_cleans_a_job_in_the_background(rest: str) -> None:
    process = program(f"env.submit()\nticked.wait()\n{rest}")
    code, out, err = finish(process)
    assert out.count("cleaned") == 1 and out[-1] == "cleaned", err
    assert code == (1 if "raise" in rest else 3 if "exit" in rest else 0), err


def test_a_thousand_jobs_leave_nothing() -> None:
    def once() -> None:
        env = LocalEnvironment("many")
        env.from_batch(range(10)).map(lambda n: n).collect()
        env.submit(autostop=True)

    def allocated() -> int:
        """In bytes. The pages of program files, which come as code is first run, are not counted."""
        found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found
        return int(found[1]) << 10

    for _ in range(100):
        once()
    before = allocated()
    for _ in range(1000):
        once()
    assert allocated() - before < 8 << 20
