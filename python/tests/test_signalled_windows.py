"""Windows that a signal cuts: real signals to real programs."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from sage import Count, LocalEnvironment, Session, Tumbling

how, kind, on_signal = sys.argv[1:]
env = LocalEnvironment("minutes", config={"on_signal": how})
records = iter([1, 2, 3])

def read():
    record = next(records, None)
    if record is None:
        print("read", flush=True)
    return record

def show(result):
    print(kind, result.value, result.is_partial, flush=True)

keyed = env.from_source(read, delay=0.01).with_timestamps(lambda n: n / 10).keyby(lambda n: "k")
if kind == "clock":
    windows = keyed.window_by_clock(Tumbling(1e6), on_signal=on_signal)
else:
    shape = {"session": Session(60), "records": Count(100)}.get(kind, Tumbling(60))
    windows = keyed.window(shape, on_signal=on_signal)
by = {"clock": windows.count, "count": windows.count, "sum": windows.sum,
      "session": windows.count, "records": windows.count,
      "fold": lambda: windows.fold(0, lambda so_far, n: so_far + n),
      "apply": lambda: windows.apply(lambda key, start, end, ns: sum(ns))}
if kind == "join":
    once = env.from_batch([1]).with_timestamps(lambda n: n / 10).keyby(lambda n: "k")
    pairs = keyed.join(once).window(Tumbling(60), on_signal=on_signal).left()
    pairs.sink(lambda pair: print(kind, pair.right, pair.is_partial, flush=True))
else:
    by[kind]().sink(show)
try:
    env.submit(autostop=True, progress=False)
except KeyboardInterrupt:
    pass
report = env.job.report
print("dropped", sum(o["dropped_windows"] for o in report.data["operators"]), "open window dropped" in str(report))
"""


def ended(*arguments: str) -> list[str]:
    """What the program prints after the records were read, interrupted then."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    heeds = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heeds) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "read\n"
        process.send_signal(signal.SIGINT)
        lines = process.stdout.read().splitlines()
    assert process.returncode == 0
    return [line for line in lines if line != "read"]


@pytest.mark.parametrize("kind", ["clock", "count", "sum", "fold", "apply", "session", "records"])
def test_contract_18_windows_that_a_signal_cuts_are_dropped_and_counted(kind: str) -> None:
    assert ended("drain", kind, "drop") == ["dropped 1 True"]


@pytest.mark.parametrize("kind", ["clock", "count", "sum", "fold", "apply", "session", "records"])
def test_contract_18_windows_that_a_signal_cuts_can_be_emitted_as_partial(kind: str) -> None:
    value = 6 if kind in ("sum", "fold", "apply") else 3
    assert ended("drain", kind, "emit") == [f"{kind} {value} True", "dropped 0 False"]


def test_windows_fire_at_a_signal_that_is_like_stop() -> None:
    assert ended("finish", "sum", "drop") == ["sum 6 False", "dropped 0 False"]


def test_contract_18_joins_in_windows_that_a_signal_cuts_are_dropped_or_partial() -> None:
    assert ended("drain", "join", "drop") == ["dropped 1 True"]
    assert ended("drain", "join", "emit") == [*["join 1 True"] * 3, "dropped 0 False"]
