"""Measures the job manager: how soon a program begins; what many jobs at once, many records and idleness cost.

    cargo build --release -p sage-cli --bins --examples
    python3 benches/jobmanager/run.py [--python .venv/bin/python] [--out target/bench/jobmanager.json]

Every figure is of the release build, over TCP, with the token, on a folder of its own. Each row has a goal.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SAGE = ROOT / "target/release/sage"
COUNTING = ROOT / "target/release/examples/counting"

#: Seconds for anything at all.
LIMIT = 120


class Manager:
    """A job manager with a folder of its own."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder, self.port = folder, str(port)
        self.environ = {**os.environ, "SAGE_HOME": str(folder)}
        started = self.sage("jobmanager", "--json", "start", "--port", self.port, *options)
        told = json.loads(started)
        self.at, self.pid = told["daemon"], told["process"]
        self.token = (folder / "jobmanager" / self.port / "token").read_text().strip()

    def sage(self, *words: str) -> str:
        command = [SAGE, *words]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=LIMIT, check=False)
        if done.returncode:
            raise RuntimeError(f"{words}: {done.stdout}{done.stderr}")
        return done.stdout

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.at, timeout=LIMIT)

    def ask(self, method: str, path: str, body: Any = None, over: http.client.HTTPConnection | None = None) -> Any:
        connection = over or self.connect()
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Authorization": f"Bearer {self.token}"})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data.decode()}")
        return json.loads(data) if data[:1] in (b"{", b"[") else data

    def submit(self, path: str, *arguments: str, python: str | None = None) -> Any:
        program = {"file": {"path": path, "arguments": list(arguments), "python": python}}
        request = {"name": Path(path).name, "program": program, "folder": str(self.folder), "autostop": True}
        return self.ask("POST", "/api/v1/jobs", request)

    def streamed(self, path: str) -> Iterator[tuple[str, Any]]:
        connection = self.connect()
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        answer, event = connection.getresponse(), ""
        for line in iter(answer.readline, b""):
            if line.startswith(b"event: "):
                event = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield event, json.loads(line[6:])

    def over(self, job: str) -> Any:
        for event, data in self.streamed(f"/api/v1/jobs/{job}/stream?after=18446744073709551615"):
            if event == "over":
                return data
        raise RuntimeError(f"the stream of {job} has ended")

    def memory_mb(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def manager(*options: str, port: int = 0) -> Iterator[Manager]:
    with tempfile.TemporaryDirectory() as folder:
        made = Manager(Path(folder), *options, port=port)
        try:
            yield made
        finally:
            made.sage("jobmanager", "stop", "--port", made.port, "--jobs", "cancel")


def row(name: str, ours: float, unit: str, goal: float, *, note: str = "") -> dict[str, Any]:
    made = {"name": name, "ours": round(ours, 3), "unit": unit, "goal": goal, "met": ours <= goal, "note": note}
    print(f"{name:42} {ours:10.2f} {unit:4} goal {goal:g} {'met' if ours <= goal else 'NOT MET'} {note}", flush=True)
    return made


def first_instruction(python: str) -> Iterator[dict[str, Any]]:
    """From the request to the first thing that a program does, which is to tell the time."""
    with manager() as jobs:
        program = jobs.folder / "now.py"
        program.write_text("import time; print(time.time_ns())\n")
        for name, goal, path, arguments, interpreter in (
            ("submit to first instruction, binary", 60, "/bin/date", ["+%s%N"], None),
            ("submit to first instruction, Python", 250, str(program), [], python),
        ):
            took = []
            for _ in range(15):
                begun = time.time_ns()
                job = jobs.submit(path, *arguments, python=interpreter)["id"]
                jobs.over(job)
                took.append((int(jobs.ask("GET", f"/api/v1/jobs/{job}/output")) - begun) / 1e6)
            yield row(name, statistics.median(took), "ms", goal, note=f"worst {max(took):.0f}")


#: What a program for a remote environment does: it says when it submits, and its function when it is called.
REMOTE = """
import time
from sage import RemoteEnvironment

def now(_):
    print("first", time.time_ns())

for _ in range(15):
    env = RemoteEnvironment("first", port=PORT)
    env.from_batch([1]).sink(now)
    print("begun", time.time_ns())
    env.submit(autostop=True)
"""


def first_record(python: str) -> Iterator[dict[str, Any]]:
    """From `submit` of a remote environment to the first call of a function of it, which is to tell the time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with manager(port=port) as jobs:
        program = REMOTE.replace("PORT", str(port))
        done = subprocess.run(
            [python, "-c", program], env=jobs.environ, capture_output=True, text=True, timeout=LIMIT, check=True
        )
        times = [int(line.split()[1]) / 1e6 for line in done.stdout.splitlines()]
        took = [first - begun for begun, first in zip(times[::2], times[1::2], strict=True)]
        name = "submit to first call, remote environment"
        yield row(name, statistics.median(took), "ms", 250, note=f"worst {max(took):.0f}")


def idle() -> Iterator[dict[str, Any]]:
    with manager() as jobs:
        time.sleep(1)
        before = jobs.cpu_s()
        time.sleep(10)
        yield row("idle, memory", jobs.memory_mb(), "MB", 30)
        yield row("idle, processor", (jobs.cpu_s() - before) * 10, "%", 0)


def event_to_client() -> Iterator[dict[str, Any]]:
    """From a change of state, by the clock of the job, to a client of its stream."""
    with manager() as jobs:
        late = []
        for _ in range(10):
            job = jobs.submit(str(COUNTING), "records=200", "pace=1")["id"]
            for event, data in jobs.streamed(f"/api/v1/jobs/{job}/stream?figures=1"):
                if event == "happened" and "changed" in data:
                    at = data["changed"]["change"]["at"]
                    late.append(time.time() * 1e3 - at["secs_since_epoch"] * 1e3 - at["nanos_since_epoch"] / 1e6)
                elif event == "over":
                    break
        # The first ones happen before the stream is asked for.
        late.sort()
        yield row("event to client, 95th percentile", late[int(len(late) * 0.95)], "ms", 200, note=f"of {len(late)}")


def many(python: str) -> Iterator[dict[str, Any]]:
    """50 Rust jobs and 50 Python jobs at once, while a client watches and asks."""
    with manager("--limit", "100") as jobs:
        program = jobs.folder / "job.py"
        program.write_text(
            "from sage import LocalEnvironment\n"
            "env = LocalEnvironment('many')\n"
            "env.from_batch(range(2000)).map(lambda n: n + 1).sink(lambda n: None)\n"
            "env.submit(autostop=True)\n"
        )
        stop, took = threading.Event(), []

        def watch() -> None:
            connection = jobs.connect()
            while not stop.is_set():
                begun = time.perf_counter()
                jobs.ask("GET", "/api/v1/jobs?limit=50", over=connection)
                took.append((time.perf_counter() - begun) * 1e3)
                stop.wait(0.02)

        def look() -> None:
            for _ in jobs.streamed("/api/v1/stream"):
                if stop.is_set():
                    return

        watchers = [threading.Thread(target=watch), threading.Thread(target=look, daemon=True)]
        for watcher in watchers:
            watcher.start()
        begun = time.perf_counter()
        made = []
        for _ in range(50):
            made.append(jobs.submit(str(COUNTING), "records=2000")["id"])
            made.append(jobs.submit(str(program), python=python)["id"])
        ended = [jobs.over(job) for job in made]
        lasted, memory = time.perf_counter() - begun, jobs.memory_mb()
        stop.set()
        watchers[0].join()
        failed = [job for job in ended if job["state"] != "succeeded" or not job["clean"]]
        yield row("50 + 50 jobs at once, not succeeded", len(failed), "", 0, note=f"{lasted:.1f} s for all")
        yield row("50 + 50 jobs at once, memory", memory, "MB", 100)
        took.sort()
        p99 = took[int(len(took) * 0.99)]
        yield row("50 + 50 jobs at once, API p99", p99, "ms", 200, note=f"of {len(took)} requests")


def many_records() -> Iterator[dict[str, Any]]:
    """The first page of 100,000 jobs that are over: the records are made by the hundredthousand, from a real one."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = Manager(Path(folder))
        job = jobs.submit("/bin/true")["id"]
        jobs.over(job)
        jobs.sage("jobmanager", "stop", "--port", "0")
        base = Path(folder) / "jobmanager/0"
        records = sqlite3.connect(base / "records.sqlite")
        names = [column[1] for column in records.execute("PRAGMA table_info(jobs)")]
        real = dict(zip(names, records.execute("SELECT * FROM jobs").fetchone(), strict=True))
        made = []
        for number in range(2, 100_001):
            new = str(uuid.uuid4())
            record = {**json.loads(real["record"]), "id": new, "number": number}
            made.append({**real, "id": new, "number": number, "change": number, "record": json.dumps(record)})
            # A record whose folder is gone is none.
            (base / "jobs" / new).mkdir(mode=0o700)
        marks = ", ".join(f":{name}" for name in names)
        records.executemany(f"INSERT INTO jobs ({', '.join(names)}) VALUES ({marks})", made)
        records.execute("UPDATE counters SET value = 100001")
        records.commit()
        records.close()
        begun = time.perf_counter()
        jobs = Manager(Path(folder))
        started = time.perf_counter() - begun
        took = []
        for path in ["/", "/api/v1/jobs"] * 15:
            connection = jobs.connect()
            begun = time.perf_counter()
            jobs.ask("GET", path, over=connection)
            took.append((time.perf_counter() - begun) * 1e3)
        total = jobs.ask("GET", "/api/v1/jobs")["total"]
        yield row("first page of 100,000 jobs", max(took), "ms", 50, note=f"of {total}; start {started:.1f} s")
        jobs.sage("jobmanager", "stop", "--port", "0")


def reporting() -> Iterator[dict[str, Any]]:
    """A job that computes only, under `sage run`, which it tells of itself, and alone: by pairs, in turn."""
    ratios = []
    for _ in range(9):
        times = []
        for command in ([str(SAGE), "run", str(COUNTING)], [str(COUNTING)]):
            begun = time.perf_counter()
            subprocess.run([*command, "records=40000000"], check=True, timeout=LIMIT)
            times.append(time.perf_counter() - begun)
        ratios.append(times[0] / times[1])
    yield row("a job with reporting on, of one without", statistics.median(ratios), "×", 1.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=str(ROOT / ".venv/bin/python"), help="an interpreter with the package")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench/jobmanager.json")
    parser.add_argument("--only", help="rows whose function has this in its name")
    arguments = parser.parse_args()
    measures: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "first_instruction": lambda: first_instruction(arguments.python),
        "first_record": lambda: first_record(arguments.python),
        "idle": idle,
        "event": event_to_client,
        "many": lambda: many(arguments.python),
        "records": many_records,
        "reporting": reporting,
    }
    rows = [made for name, measure in measures.items() if (arguments.only or "") in name for made in measure()]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(made["met"] for made in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
