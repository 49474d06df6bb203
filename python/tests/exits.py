"""A program that ends in one of many ways while jobs run or are left behind.

``exits.py KIND`` is one end of an interpreter. ``exits.py --runs N`` starts N of them, each of a random kind and with
signals at random moments, and tells those that crashed, hung, or did not clean exactly once. What is not random in it
follows from ``--seed``.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import Any

KINDS = ["plain", "background", "abandoned", "call", "daemon", "signal"]
#: After so many seconds a program hangs.
LONGEST = 30
DEADLINES = {name: 0.2 for name in ("setup", "drain", "cancel", "stop", "cleanup")}


def end(kind: str) -> None:
    """Is the program."""
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    from sage import BaseService, JobFailed, LocalEnvironment, SinkFunction

    class Db(BaseService):
        def cleanup(self) -> None:
            os.write(1, b"cleaned\n")

        def wait(self) -> None:
            spin()

    class Call(SinkFunction):
        def execute(self, record: int) -> None:
            self.call_service_async("db", method="wait")
            self.call_service("db", method="wait")

    reached = threading.Event()

    def spin(*_: Any) -> Any:
        """In and out of the interpreter, for ever."""
        reached.set()
        while True:
            time.sleep(0.0002)

    def tick() -> int:
        reached.set()
        time.sleep(0.0002)
        return 1

    env = LocalEnvironment(kind, config={"timeouts": DEADLINES if kind in ("abandoned", "call") else {}})
    env.register_service("db", Db)
    os.write(1, b"declared\n")
    if kind == "plain":
        env.from_batch(range(1000)).map(str).sink(len)
        env.submit(autostop=True)
    elif kind in ("abandoned", "call"):
        env.from_batch([1]).sink(spin if kind == "abandoned" else Call)
        job = env.submit()
        reached.wait()
        job.cancel()
        try:
            job.wait()
        except JobFailed:
            pass
    else:
        env.from_source(tick).map(str).map(len).sink(str)
        if kind == "daemon":
            threading.Thread(target=partial(env.submit, autostop=True), daemon=True).start()
        else:
            env.submit()
        reached.wait()
        if kind == "signal":
            threading.Event().wait()


def run(kind: str, delay: float) -> str | None:
    """Runs the program once; says what is wrong with its end."""
    command = [sys.executable, __file__, kind]
    # Whoever runs this in the background has its programs ignore SIGINT.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    number = signal.SIGINT if delay * 1e6 % 2 < 1 else signal.SIGTERM
    if kind == "signal":
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(number)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"{kind}: it hangs, after {process.communicate()}"
    codes = (0,) if kind != "signal" else (128 + number, -number)
    # A signal may come before the job was submitted.
    counts = (1,) if kind != "signal" else (0, 1)
    if process.returncode in codes and out.count("cleaned") in counts and "Fatal" not in err and "panicked" not in err:
        return None
    return f"{kind}: code {process.returncode}, output {out!r}, errors {err}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", nargs="?", choices=KINDS)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.kind:
        return end(options.kind)
    chance = random.Random(options.seed)
    wrong = [run(chance.choice(KINDS), chance.uniform(0, 0.1)) for _ in range(options.runs)]
    found = [what for what in wrong if what]
    print(*found, f"{options.runs} ends, {len(found)} wrong", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
