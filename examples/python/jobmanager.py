"""Runs the demo under a job manager, from Rust and from Python. Each is watched, drained half-way, and run again, to
its end this time. Then the job manager is stopped, and nothing is left.

    python examples/python/jobmanager.py target/release/examples/rag

It has a folder and a port of its own, so that it gets in the way of no other job manager.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rag

from sage import RemoteEnvironment

QUESTIONS = ["How is a socket closed?", "What does a generator return?", "How are modules found?"]

#: Half-way: so many documents are read, of some thousands.
SOME = 200


def sage(*words: str) -> str:
    """What a command says."""
    command = [sys.executable, "-m", "sage", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def told(*words: str) -> dict[str, Any]:
    """What a command tells, as JSON."""
    answer: dict[str, Any] = json.loads(sage(words[0], "--json", *words[1:]))
    return answer


@contextmanager
def job_manager() -> Iterator[int]:
    """A job manager in a folder of its own: its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SAGE_HOME"] = folder
        started = told("jobmanager", "start", "--port", str(port))
        print(f"the job manager listens at http://{started['daemon']}; its page: {started['page']}\n")
        try:
            yield port
        finally:
            sage("jobmanager", "stop", "--port", str(port), "--jobs", "cancel")
            left = processes_of(folder)
    if left:
        raise SystemExit(f"processes are left: {left}")
    print("the job manager is stopped, and no process of it or of its jobs is left")


def processes_of(folder: str) -> list[str]:
    """The processes that were started with this folder, but for this one."""
    mark = f"SAGE_HOME={folder}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_one = mark in (process / "environ").read_bytes().split(b"\0")
            is_one |= folder.encode() in (process / "cmdline").read_bytes()
        except OSError:
            continue
        if is_one and int(process.name) != os.getpid():
            found.append(process.name)
    return found


def read(job: str, port: int) -> int:
    """How many documents a job has read, as its report tells."""
    shown = told("job", "show", "--port", str(port), job)
    operators = [operator for report in shown["reports"] for operator in report["operators"]]
    return most_read(operators)


def most_read(operators: list[dict[str, Any]]) -> int:
    """How many documents the operator has taken that reads them: with those behind it, in Python."""
    return max((one["records_in"] for one in operators if one["name"].split(" ")[0] == "read"), default=0)


def half_way(job: str, port: int) -> None:
    """Watches a job, and drains it when it has read some documents."""
    watching = [sys.executable, "-m", "sage", "job", "watch", "--json", "--refresh", "0.1", "--port", str(port), job]
    is_drained = False
    with subprocess.Popen(watching, stdout=subprocess.PIPE, text=True) as watched:
        assert watched.stdout is not None
        for line in watched.stdout:
            figures = [one for of in json.loads(line)["figures"] for one in of["figures"]["metrics"]["operators"]]
            so_far = most_read(figures)
            if so_far >= SOME and not is_drained:
                is_drained = True
                print(f"{so_far} documents are read: draining it")
                sage("job", "drain", "--port", str(port), job)
    shown = told("job", "show", "--port", str(port), job)
    print(f"it {shown['state']}, and is {'clean' if shown['clean'] else 'NOT CLEAN'}: {shown['why'] or 'drained'}")
    if not (shown["state"] == "succeeded" and shown["clean"]):
        raise SystemExit(1)


def again(job: str, port: int, before: int) -> None:
    """Runs it again, to its end."""
    begun = time.perf_counter()
    sage("job", "resume", "--port", str(port), job)
    print(sage("job", "logs", "--follow", "--port", str(port), job).strip())
    whole = read(job, port)
    print(f"run again to its end in {time.perf_counter() - begun:.1f} s: {whole} documents, {before} the first time\n")
    if not before < whole:
        raise SystemExit("the first run was not drained half-way")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("program", type=Path, help="the demo in Rust: target/release/examples/rag")
    parser.add_argument("--folder", type=Path, default=Path(sysconfig.get_path("stdlib")), help="what is read")
    arguments = parser.parse_args()
    asked = [str(arguments.folder), "--ext", "py,txt,rst,md"]
    for question in QUESTIONS:
        asked += ["--question", question]

    with job_manager() as port:
        print("── from Rust")
        submit = ("job", "submit", "--port", str(port), "--name", "rag in Rust", str(arguments.program))
        job = told(*submit, *asked)["id"]
        half_way(job, port)
        again(job, port, read(job, port))

        print("── from Python")
        env = RemoteEnvironment("rag in Python", port=port)
        rag.declare(env, rag.parse(asked), rag.Notes())
        job = env.submit()
        half_way(job, port)
        again(job, port, read(job, port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
