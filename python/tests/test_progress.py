"""The line that tells how far a job is, on a terminal made for the test."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import types
from functools import partial
from typing import Any

import pytest
from tqdm import tqdm

from sage import JobMetrics, LocalEnvironment, _progress
from sage._progress import line, summary

# Its bars have a lock across processes. An interpreter that starts those without a fork has a descriptor more from the
# first one on, which no job has left.
tqdm.get_lock()

PROGRAM = """
import sys, time
from sage import LocalEnvironment

env = LocalEnvironment("counted")
env.from_source(lambda: time.sleep(0.01) or 1).map(abs).take(MOST).sink(SINK, name="kept")
env.submit(autostop=True, progress=PROGRESS)
print("over", file=sys.stderr)
"""


def program(progress: str = "None", most: int = 150, sink: str = "[].append") -> list[str]:
    text = PROGRAM.replace("PROGRESS", progress).replace("MOST", str(most)).replace("SINK", sink)
    return [sys.executable, "-c", text]


def on_a_terminal(command: list[str], stop_at: str = "", **environment: str) -> tuple[str, int]:
    """What the program writes to a terminal of 40 columns, and its code; Ctrl-C is typed when ``stop_at`` is there."""
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    # Whoever runs the tests in the background has their programs ignore SIGINT.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    variables = {**os.environ, "TERM": "xterm", **environment}
    process = subprocess.Popen(command, stdout=slave, stderr=slave, stdin=slave, env=variables, preexec_fn=heed)
    os.close(slave)
    written = b""
    while True:
        try:
            written += os.read(master, 4096)
        except OSError:  # the program has ended
            break
        if stop_at and stop_at.encode() in written:
            process.send_signal(signal.SIGINT)
            stop_at = ""
    os.close(master)
    return written.decode(), process.wait(timeout=60)


def test_a_terminal_shows_how_far_the_job_is_and_one_line_stays() -> None:
    written, code = on_a_terminal(program())
    assert code == 0
    lines = re.findall(r"\r(counted (\d+) 0:0\d (?:\d+/s|\d+\.\d+/s))\x1b\[K", written)
    counts = [int(count) for _, count in lines]
    assert len(counts) >= 3 and counts == sorted(counts) and counts[0] < counts[-1] <= 200
    assert len(lines) <= 60, "at most ten a second"
    last, over = screen(written)[-3:-1]
    assert re.fullmatch(r"counted \d+ in 0:0\d \d+(\.\d+)?/s", last) and over == "over", "one line stays"
    assert all(len(line) < 40 for line in re.split(r"\r|\n", written.replace("\x1b[K", "")))


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (program("False"), {}),
        (program(), {"TERM": "dumb"}),
        (program(most=5), {}),
        (program(most=60, sink="print"), {}),
    ],
    ids=["not wanted", "dumb", "short", "prints itself"],
)
def test_nothing_is_drawn_where_it_would_be_in_the_way(command: list[str], variables: dict[str, str]) -> None:
    written, _ = on_a_terminal(command, **variables)
    assert "counted" not in written and written.endswith("over\r\n")


@pytest.mark.parametrize(("progress", "is_drawn"), [("None", False), ("True", True)])
def test_elsewhere_it_is_drawn_only_if_wanted(progress: str, is_drawn: bool) -> None:
    ran = subprocess.run(program(progress, most=20), capture_output=True, text=True, timeout=60, check=True)
    assert ("counted" in ran.stderr) == is_drawn and ran.stderr.endswith("over\n")
    assert ran.stdout == ""


def test_control_c_ends_the_job_as_without_it_and_says_how_far_it_was_once() -> None:
    written, code = on_a_terminal(program(most=10**9), stop_at="counted")
    assert code in (130, -signal.SIGINT)
    assert "KeyboardInterrupt" in written and "over" not in written
    rows = screen(written)
    assert sum(row.startswith("interrupted: ") for row in rows) == 1
    assert not any("counted" in row for row in rows), rows


MUTE = """
class Mute:
    def write(self, text):
        pass

    def flush(self):  # at the end of the interpreter
        pass

sys.stderr = Mute()
"""


@pytest.mark.parametrize("progress", ["None", "True"])
@pytest.mark.parametrize(
    "before",
    ["sys.stderr.close()", "sys.stderr = None", MUTE, "sys.modules['IPython'] = object()"],
    ids=["closed", "none", "an object with a few methods", "no IPython"],
)
def test_a_job_runs_wherever_standard_error_is(before: str, progress: str) -> None:
    job = f"""
import sys
from sage import LocalEnvironment
{before}
env = LocalEnvironment("counted")
kept = env.from_batch([1, 2]).collect()
env.submit(autostop=True, progress={progress})
print(kept)
"""
    ran = subprocess.run([sys.executable, "-c", job], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "[1, 2]\n"), ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_halted_terminal_does_not_hold_the_job_up() -> None:
    import termios

    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)  # as Ctrl-S does
    command = [*program()[:2], program()[2].replace("file=sys.stderr", "flush=True")]
    variables = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, env=variables, text=True)
    try:
        assert process.communicate(timeout=20)[0] == "over\n"
    finally:
        process.kill()
        termios.tcflow(slave, termios.TCOON)
        os.close(slave)
        os.close(master)
        process.wait()


PRINTING = """
import sys, time
from sage import LocalEnvironment

def row(n):
    time.sleep(0.02)
    if n % 10 == 5:  # a line in two parts, between which the other line may be drawn
        print(f"row {n // 5}", end="", flush=True)
        time.sleep(0.25)
        print(f"{n % 5}")
    else:
        print(f"row {n}", file=sys.stdout if n % 2 else sys.stderr)
    return n

streams = sys.stdout, sys.stderr
env = LocalEnvironment("counted")
env.from_batch(range(40)).map(row).sink([].append, name="a sink with a name")
env.submit(autostop=True, progress=True)
print("over", (sys.stdout, sys.stderr) == streams)
"""


def screen(written: str) -> list[str]:
    """What a terminal shows in the end: its rows."""
    rows, column = [""], 0
    for part in re.findall(r"\x1b\[K|.|\n|\r", written):
        if part == "\n":
            rows.append("")
        elif part == "\r":
            column = 0
        elif part == "\x1b[K":
            rows[-1] = rows[-1][:column]
        else:
            rows[-1] = rows[-1][:column].ljust(column) + part + rows[-1][column + 1 :]
            column += 1
    return rows


def test_what_a_program_prints_is_on_lines_of_its_own() -> None:
    written, code = on_a_terminal([sys.executable, "-c", PRINTING])
    assert code == 0, written
    rows = [f"row {n // 5}{n % 5}" if n % 10 == 5 else f"row {n}" for n in range(40)]
    *shown, summary, over, end = screen(written)
    assert (shown, over, end) == (rows, "over True", "") and summary.startswith("counted 40/40 in 0:0")
    assert len(re.findall(r"\rcounted \d+/40 \d+ %", written)) >= 5


def test_a_stream_that_the_program_puts_in_place_meanwhile_stays() -> None:
    program_ = """
import io, sys, time
from sage import LocalEnvironment

kept = io.StringIO()
def replace(n):
    time.sleep(0.3)
    sys.stdout = kept
    print(n)
    return n

env = LocalEnvironment("counted")
env.from_batch([1, 2]).map(replace).sink([].append)
env.submit(autostop=True, progress=True)
sys.stderr.write(f"over {sys.stdout is kept} {kept.getvalue()!r}")
"""
    written, code = on_a_terminal([sys.executable, "-c", program_])
    assert code == 0
    summary, over = screen(written)
    assert summary.startswith("counted 2/2 in") and over == r"over True '1\n2\n'"


# ---- what the line says


def metrics(**told: Any) -> JobMetrics:
    """Metrics of which only these matter."""
    plain = {"job": "1", "environment": "enrich", "state": "running", "outcome": None, "elapsed": 32.0, "read": 0}
    plain |= {"done": 0, "total": None, "rate": 0.0, "failed": 0, "retried": 0}
    nothing = {"operators": {}, "services": {}, "tasks": [], "queues": []}
    return JobMetrics(**{**plain, **nothing, **told})


LINES: list[tuple[dict[str, Any], str]] = [
    (
        {"done": 636, "total": 2000, "rate": 19.94, "failed": 2, "retried": 14},
        "enrich 636/2,000 31 % 19.9/s ETA 1:08 failed 2 retried 14",
    ),
    ({"total": 2000}, "enrich 0/2,000 0 %"),
    ({"done": 1636, "rate": 1234.5}, "enrich 1,636 0:32 1,234/s"),
    ({"done": 1, "total": 100, "rate": 0.02}, "enrich 1/100 1 % 0.02/s ETA 1:22:30"),
    ({"done": 5, "total": 3, "rate": 2.0}, "enrich 5/3 100 % 2.0/s ETA 0:00"),
    ({"total": 0}, "enrich 0/0"),
    ({"done": 3, "total": 9, "rate": 1.0, "state": "paused"}, "enrich 3/9 33 % 1.0/s ETA 0:06 paused"),
    ({"environment": "a\x1b[2J\nb"}, "a?[2J?b 0 0:32"),
]


@pytest.mark.parametrize(("told", "says"), LINES)
def test_the_line_says_how_far_the_job_is(told: dict[str, Any], says: str) -> None:
    assert line(metrics(**told)) == says


def test_the_last_line_says_what_has_become_of_it() -> None:
    over = metrics(state="ended", outcome="succeeded", done=2000, total=2000, elapsed=101.3, rate=19.75, failed=2)
    assert summary(over) == "enrich 2,000/2,000 in 1:41 19.8/s failed 2"
    late = metrics(state="ended", outcome="timed_out", done=636, elapsed=32.0, rate=19.9)
    assert summary(late) == "enrich timed out at 636 in 0:32 19.9/s"


# ---- where else it is shown


def test_lines_that_are_kept_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    kept = _progress._Kept(written)
    kept.show(metrics())
    kept.show(metrics(done=7))
    kept.end(metrics(state="ended", outcome="succeeded", done=9), False)
    assert written.getvalue() == "enrich 7 0:32 0.00/s\nenrich 9 in 0:32 0.00/s\n" and kept.interval >= 1.0


def slow(records: int = 30) -> LocalEnvironment:
    env = LocalEnvironment("slow")
    env.from_batch(range(records)).map(lambda n: time.sleep(0.01) or n).collect()
    return env


def test_a_function_is_told_how_far_the_job_is() -> None:
    told: list[JobMetrics] = []
    threads: set[str] = set()

    def tell(each: JobMetrics) -> None:
        told.append(each)
        threads.add(threading.current_thread().name)

    slow().submit(autostop=True, progress=tell)
    counts = [each.done for each in told]
    assert counts == sorted(counts) and len(counts) >= 3 and threads == {"sage-progress"}
    assert (told[-1].done, told[-1].total, told[-1].outcome) == (30, 30, "succeeded")


def test_it_is_shown_while_an_event_loop_goes_on() -> None:
    told: list[JobMetrics] = []
    asyncio.run(slow().submit_async(progress=told.append))
    assert len(told) >= 3 and told[-1].outcome == "succeeded"


def test_a_function_that_raises_is_told_nothing_more_and_the_job_goes_on() -> None:
    calls = []

    def tell(each: JobMetrics) -> None:
        calls.append(each)
        raise ValueError("wrong")

    with pytest.warns(UserWarning, match="was told how far the job is, and is not any more: ValueError: wrong"):
        job = slow().submit(autostop=True, progress=tell)
    assert len(calls) == 1 and job.report.outcome == "succeeded"


def test_a_function_that_does_not_return_does_not_hold_the_program_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "_LONGEST", 0.05)
    goes_on = threading.Event()
    threads: list[threading.Thread] = []

    def tell(_each: JobMetrics) -> None:
        threads.append(threading.current_thread())
        goes_on.wait(60)

    with pytest.warns(UserWarning, match="has not returned since the job is over"):
        slow().submit(autostop=True, progress=tell)
    goes_on.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("package", ["rich", "tqdm"])
def test_the_bar_of_a_package_is_shown(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    slow().submit(autostop=True, progress=package)
    shown = capsys.readouterr()
    assert shown.out == "" and "30/30" in shown.err and "slow" in shown.err


def test_a_package_that_is_not_there_is_named_before_the_job_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    env = slow()
    with pytest.raises(ImportError, match='`progress="tqdm"` needs the package tqdm: pip install tqdm'):
        env.submit(autostop=True, progress="tqdm")
    assert env.job is None
    words = 'True, False, "rich", "tqdm" or a function'
    with pytest.raises(ValueError, match=f"`progress` is {words}, not 'tqmd'"):
        env.submit(autostop=True, progress="tqmd")
    with pytest.raises(TypeError, match=f"`progress` is {words}, not 5"):
        env.submit(autostop=True, progress=5)  # type: ignore[arg-type]


def test_a_notebook_has_one_output_which_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    # As IPython's `display` is: it returns what replaces the output.
    outputs: list[list[str]] = []

    class Handle:
        def update(self, content: dict[str, str], raw: bool) -> None:
            assert raw
            outputs[-1].append(content["text/plain"])

    def display(content: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw and display_id
        outputs.append([content["text/plain"]])
        return Handle()

    python = types.ModuleType("IPython")
    python.get_ipython = type("ZMQInteractiveShell", (), {})  # type: ignore[attr-defined]
    shows = types.ModuleType("IPython.display")
    shows.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", shows)
    slow(100).submit(autostop=True)
    slow(1).submit(autostop=True)
    (texts,) = outputs
    assert len(texts) >= 3 and texts[-1].startswith("slow 100/100 in 0:0") and texts[0].startswith("slow ")
