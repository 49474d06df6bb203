"""A program that is killed at random moments while it has workers, an isolated service, and what these started.

``kills.py PHASE`` is the program. ``kills.py --runs N`` starts it N times, kills it at random moments of random phases,
and tells of which runs something was there 2 s later. What is not random in it follows from ``--seed``.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: For each phase, how long after its begin the program is killed at most, in seconds.
PHASES = {"start": 0.5, "running": 0.1, "drain": 0.1, "stop": 0.1, "cleanup": 0.1}

#: So long after the program's end nothing is left, in seconds.
LEFT = 2.0

#: All processes below a program have this in their environment, whatever session they are in.
MARK = "SAGE_KILLS"


def program() -> None:
    """Runs until it is killed; says what phase it is in."""
    from sage import BaseService, JobFailed, LocalEnvironment, MapFunction

    running = threading.Event()

    class Store(BaseService):
        def __init__(self) -> None:
            subprocess.Popen(["sleep", "1000"], start_new_session=True)

        def process(self, n: int) -> int:
            return n

        def stop(self) -> None:
            print("stop")
            time.sleep(0.1)

        def cleanup(self) -> None:
            print("cleanup")
            time.sleep(0.1)

    class Works(MapFunction):
        def __init__(self) -> None:
            subprocess.Popen(["sleep", "1000"], start_new_session=True)

        def execute(self, n: int) -> int:
            time.sleep(0.01)
            return int(self.call_service("store", n))

    def numbers() -> Iterator[int]:
        while True:
            yield 1

    def told(_: int) -> None:
        running.set()

    env = LocalEnvironment("kills", workers="processes")
    env.register_service("store", Store, remote=True)
    env.from_batch(numbers()).map(Works, parallelism=2).sink(told, workers=None)
    print("start", flush=True)
    job = env.submit()
    running.wait()
    if os.fork() == 0:
        signal.pause()  # it has all descriptors of the program
    print("running", flush=True)
    time.sleep(0.1)
    print("drain", flush=True)
    job.drain()
    try:
        job.wait()
    except JobFailed as error:
        print(error, flush=True)
    signal.pause()


def marked(mark: str) -> set[int]:
    """The processes that have the mark, and run."""
    found = set()
    for folder in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{folder}/environ").read_bytes()
        except OSError:
            continue
        if f"{MARK}={mark}\0".encode() in environment:
            found.add(int(folder))
    return found


def command(pid: int) -> str:
    """The command line of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def forked(mark: str) -> set[int]:
    """What the program has forked off, which is its own and stays."""
    return {pid for pid in marked(mark) if Path(__file__).name in command(pid)}


def run(phase: str, delay: float) -> str | None:
    """Runs the program once; says what is wrong with its end."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    process = subprocess.Popen(
        [sys.executable, __file__, phase], stdout=subprocess.PIPE, text=True, env={**os.environ, MARK: mark}
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.strip().endswith(phase):
                break
        time.sleep(delay)
        had = marked(mark)
        process.kill()
        process.wait()
        until = time.monotonic() + LEFT
        while left := marked(mark) - forked(mark):
            if time.monotonic() > until:
                told = [command(pid) for pid in left]
                return f"{phase} after {delay:.3f} s: of {len(had)} processes, {told} are left"
            time.sleep(0.005)
        return None
    finally:
        for pid in marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("phase", nargs="?", choices=PHASES)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.phase:
        return program()
    chance, phases = random.Random(options.seed), list(PHASES)
    wrong = []
    for number in range(options.runs):
        phase = phases[number % len(phases)]
        wrong.append(run(phase, chance.uniform(0, PHASES[phase])))
    found = [what for what in wrong if what]
    print(*found, f"{options.runs} kills from seed {options.seed}, {len(found)} wrong", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
