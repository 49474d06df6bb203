"""What a program's author reads: how objects show themselves, and what is said of a misspelt name."""

from __future__ import annotations

import copy
import inspect
import json
import os
import pickle
import pty
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as xml
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import sage
from sage import Count, DataStream, DeadLetterQueue, JobFailed, JobId, LocalEnvironment, ProcessFunction, Retry, Skip
from sage import JobMetrics, StopSignal, Tumbling
from sage._base_environment import BaseEnvironment
from sage._context import Context
from sage._file_sinks import FileSinks
from sage._file_sources import FileSources
from sage._flownet import FlownetEnvironment
from sage._metronome import Lock
from sage._pipeline import Pipeline
from sage.common.utils.config.loader import load_config
from sage.common.utils.logging import get_logger
from sage.core.communication.metronome import Metronome, create_metronome
from sage.core.communication.packet import Packet
from sage.kernel.scheduler import PlacementDecision
from sage.kernel.scheduler.impl import FIFOScheduler, LoadAwareScheduler
from sage.ray import RayEnvironment
from sage.runtime.job_manager import JobManager
from sage.runtime.jobmanager_client import JobManagerClient
from sage.testing import KafkaCluster


# ---- how objects show themselves


def test_streams_show_where_they_are() -> None:
    env = LocalEnvironment("m")
    numbers = env.from_batch([1, 2])
    keyed = numbers.map(abs).keyby(abs)
    assert repr(numbers) == "<DataStream of m, 1 step>"
    assert repr(keyed) == "<KeyedStream of m, 3 steps>"
    assert repr(keyed.window(Count(2))) == "<WindowedStream of m, 3 steps, Count(records=2)>"
    assert repr(keyed.join(keyed).max_records(5)) == "<JoinedStreams of m, 3 steps>"
    assert repr(numbers.connect(keyed)) == "<ConnectedStreams of m, 3 steps, 2 streams>"
    assert repr(keyed.window(Count(2)).count()) == "<DataStream of m, 4 steps>", "steps of the package are no more"
    assert repr(numbers.count()) == "<DataStream of m, 2 steps>"
    again = env.from_future("again")
    again.map(abs).fill_future(again)
    assert repr(again) == "<DataStream of m, 1 step>"


def test_environments_show_their_steps_and_what_their_job_does() -> None:
    env = LocalEnvironment("m")
    assert repr(env) == "<LocalEnvironment m, 0 steps>"
    began, ends = threading.Event(), threading.Event()
    env.from_batch([1]).map(lambda n: began.set() or ends.wait(60)).collect()
    assert repr(env) == "<LocalEnvironment m, 3 steps>"
    env.submit()
    assert began.wait(60) and repr(env) == "<LocalEnvironment m, 3 steps, job running>"
    ends.set()
    env.wait()
    assert repr(env) == "<LocalEnvironment m, 3 steps, job ended>"


def test_reports_and_queues_show_what_they_are() -> None:
    env = LocalEnvironment("m")
    env.from_batch([1]).collect()
    assert repr(env.submit(autostop=True).report) == "<Report of m: succeeded, clean>"
    assert repr(DeadLetterQueue()) == "<DeadLetterQueue>"
    assert repr(DeadLetterQueue("bad.jsonl")) == "<DeadLetterQueue to 'bad.jsonl'>"


def test_a_job_is_shown_in_a_notebook() -> None:
    env = LocalEnvironment("<m>")
    began, ends = threading.Event(), threading.Event()
    env.from_batch([1]).map(lambda n: began.set() or ends.wait(60), name="<wait>").collect()
    job = env.submit()
    assert began.wait(60)
    shown = "".join(xml.fromstring(f"<div>{job._repr_html_()}</div>").itertext())
    assert shown.startswith(f"job {job}: running, <m> 0/1 0 %")
    there = "".join(xml.fromstring(f"<div>{pickle.loads(pickle.dumps(job))._repr_html_()}</div>").itertext())
    assert there == f"job {job}: running"
    ends.set()
    job.wait()
    assert job._repr_html_() == job.report._repr_html_()
    assert pickle.loads(pickle.dumps(job))._repr_html_() == job.report._repr_html_()


def test_dir_of_a_job_lists_what_jobs_have_and_the_job_stays_a_text() -> None:
    env = LocalEnvironment("m")
    env.from_batch([1]).collect()
    job = env.submit(autostop=True)
    public = [name for name in dir(job) if not name.startswith("_")]
    assert {"cancel", "drain", "pause", "report", "resume", "state", "wait"} <= set(public)
    assert not set(public) & set(dir(str))
    assert isinstance(job, str) and job.upper() == str(job).upper() and hasattr(job, "split")


# ---- reports as data


def report(**options: Any) -> Any:
    env = LocalEnvironment("m")
    env.register_service("db", sage.BaseService)
    env.from_batch([1, 0, 2]).map(lambda n: 1 // n, name="part", on_error="skip").collect()
    return env.submit(autostop=True).report


def test_a_report_is_given_as_a_dict_and_as_json() -> None:
    told = report()
    data = told.to_dict()
    assert data["outcome"] == "succeeded" and data["environment"] == "m"
    part = next(row for row in data["operators"] if row["name"].startswith("part"))
    assert (part["records_in"], part["failed"]) == (3, 1)
    assert 0.0 < data["elapsed"] < 60.0 and isinstance(part["busy"], float) and data["started"] > 1.7e9
    assert json.loads(told.to_json()) == json.loads(told.to_json(indent=2)) == data
    assert "\n" in told.to_json(indent=2) and "\n" not in told.to_json()
    data["operators"].clear()
    assert told.to_dict()["operators"], "what a program does to it is not the report's"


FAKE = """
class DataFrame:
    def __init__(self, rows):
        self.rows = rows
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a library in the place of the real one, which need not be there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("pandas", "polars"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        # So that an installed one is not found.
        monkeypatch.setitem(sys.modules, name, None)

    def install(name: str) -> None:
        (tmp_path / f"{name}.py").write_text(FAKE)
        monkeypatch.delitem(sys.modules, name)

    yield install
    for name in ("pandas", "polars"):
        sys.modules.pop(name, None)


def test_a_data_frame_is_made_by_the_library_that_is_there(installed: Callable[[str], None]) -> None:
    told = report()
    with pytest.raises(ImportError, match="`to_frame` needs pandas or polars: pip install pandas"):
        told.to_frame()
    with pytest.raises(ImportError, match="`to_frame` needs polars: pip install polars"):
        told.to_frame(library="polars")
    installed("polars")
    made = told.to_frame()
    assert type(made).__module__ == "polars"
    assert [row["name"] for row in made.rows] == [row["name"] for row in told.to_dict()["operators"]]
    assert all("functions" not in row for row in made.rows)
    installed("pandas")
    assert type(told.to_frame(library="pandas")).__module__ == "pandas"
    assert type(told.to_frame()).__module__ in ("pandas", "polars")
    assert [row["name"] for row in told.to_frame("services").rows] == ["db"]
    assert told.to_frame("workers").rows == []
    with pytest.raises(ValueError, match="rows of operators, services, workers, not 'steps'"):
        told.to_frame("steps")
    with pytest.raises(ValueError, match="`library` is \"pandas\" or \"polars\", not 'spark'"):
        told.to_frame(library="spark")


# ---- misspelt keywords

#: The classes whose methods a program calls. It overrides those of the others; a `KeyContext` is asked for each record,
#: and looks at what went wrong.
CLASSES = [
    *(getattr(sage, name) for name in sage.__all__ if name.endswith(("Stream", "Streams", "Environment"))),
    *(sage.Count, sage.Session, sage.Sliding, sage.Tumbling, sage.Retry, sage.Skip, sage.JobId, sage.Report),
    *(BaseEnvironment, Pipeline, FileSinks, FileSources, JobManager, JobManagerClient, KafkaCluster, RayEnvironment),
    *(Context, FIFOScheduler, FlownetEnvironment, JobMetrics, LoadAwareScheduler, Lock, Metronome, Packet, StopSignal),
]


def fixed() -> list[Any]:
    """The constructors and public methods that take fixed keywords, and these."""
    found = []
    for cls in CLASSES:
        for name, method in vars(cls).items():
            if (name != "__init__" and name.startswith("_")) or not inspect.isfunction(method):
                continue
            parameters = list(inspect.signature(method).parameters.values())[1:]
            if any(each.kind is each.VAR_KEYWORD for each in parameters):
                continue
            names = [each.name for each in parameters if each.kind is not each.VAR_POSITIONAL]
            if names:
                found.append(pytest.param(method, names, id=f"{cls.__name__}.{name}"))
    return found


@pytest.mark.parametrize(("method", "names"), fixed())
def test_a_misspelt_keyword_of_a_method_is_told_with_the_one_that_was_meant(
    method: Callable[..., Any], names: list[str]
) -> None:
    for name in names:
        with pytest.raises(TypeError, match=f"`[a-zA-Z_]+` has no parameter `{name}x`; .*`{name}`"):
            returned = method(None, **{f"{name}x": 1})
            returned.send(None)  # of an async one


def test_the_methods_that_hint_are_many() -> None:
    assert len(fixed()) > 60


MISSPELT: dict[str, tuple[Callable[[LocalEnvironment], Any], str]] = {
    "submit": (lambda env: env.submit(autostp=True), "`submit` has no parameter `autostp`; did you mean `autostop`?"),
    "map": (lambda env: env.from_batch([1]).map(abs, paralelism=2), "did you mean `parallelism`?"),
    "map keeps none": (lambda env: env.from_batch([1]).map(abs, keep_nones=True), "did you mean `keep_none`?"),
    "keyby": (lambda env: env.from_batch([1]).keyby(abs, stratgy="hash"), "did you mean `strategy`"),
    "sink": (lambda env: env.from_batch([1]).sink(abs, on_eror="skip"), "did you mean `on_error`?"),
    "take": (lambda env: env.from_batch([1]).take(cont=1), "did you mean `count`?"),
    "from_batch": (lambda env: env.from_batch([1], dely=1), "did you mean `delay`?"),
    "service": (lambda env: env.service("db", dict, isolatd=True), "did you mean `isolated`?"),
    "environment": (lambda _env: LocalEnvironment("m", wrkers="processes"), "did you mean `workers`?"),
    "retry": (lambda _env: Retry(atempts=3), "`Retry` has no parameter `atempts`; did you mean `attempts`?"),
    "skip": (lambda _env: Skip(atmost=3), "did you mean `at_most`"),
    "window": (lambda _env: Tumbling(sise=3), "did you mean `size`?"),
    "ops": (lambda _env: sage.ops.split(seperator=","), "did you mean `separator`?"),
    "kafka": (lambda env: env.from_kafka_source("b", "t", "g", untilend=True), "did you mean `until_end`?"),
    "configuration": (lambda _env: load_config(pth="x"), "`load_config` has no parameter `pth`; did you mean `path`?"),
    "metronome": (lambda _env: create_metronome(nme="x"), "`create_metronome` has no parameter `nme`; did you mean"),
    "logger": (lambda _env: get_logger(nam="x"), "`get_logger` has no parameter `nam`; did you mean `name`?"),
    "class method": (lambda _env: PlacementDecision.with_delay(delay_second=1), "did you mean `delay_seconds`?"),
    "to kafka": (lambda env: env.from_batch([1]).to_kafka("b", "t", paralelism=2), "did you mean `parallelism`?"),
}


@pytest.mark.parametrize(("call", "hint"), MISSPELT.values(), ids=MISSPELT.keys())
def test_a_misspelt_keyword_names_the_one_that_was_meant(call: Callable[[LocalEnvironment], Any], hint: str) -> None:
    with pytest.raises(TypeError) as raised:
        call(LocalEnvironment("m"))
    assert hint in str(raised.value)


@pytest.mark.parametrize("method", ["set_timer", "cancel_timer"])
def test_a_misspelt_keyword_of_the_context_of_a_key_names_the_one_that_was_meant(method: str) -> None:
    class Sets(ProcessFunction):
        def on_record(self, _record: object, key: sage.KeyContext) -> None:
            getattr(key, method)(60.0, clok=True)

    class SetsLater(ProcessFunction):
        def on_record(self, record: float, key: sage.KeyContext) -> None:
            key.set_timer(record)

        def on_timer(self, _timer: object, key: sage.KeyContext) -> None:
            getattr(key, method)(60.0, clok=True)

    for function in (Sets, SetsLater):
        env = LocalEnvironment("clok")
        env.from_batch([1.0]).keyby(lambda n: n).process(function).collect()
        with pytest.raises(sage.JobFailed, match=f"`{method}` has no parameter `clok`; did you mean `clock`") as failed:
            env.submit(autostop=True)
        assert isinstance(failed.value.__cause__, TypeError)


def test_methods_look_as_they_are_written() -> None:
    assert list(inspect.signature(LocalEnvironment.submit).parameters) == ["self", "autostop", "progress"]
    assert inspect.iscoroutinefunction(LocalEnvironment.submit_async)
    assert DataStream.take.__doc__ and DataStream.take.__module__ == "sage._stream"
    assert DataStream.take.__globals__["__name__"] == "sage._stream"


# ---- methods of other streams


@pytest.mark.parametrize(
    "method", ["window", "window_by_clock", "map_with_state", "flatmap_with_state", "distinct", "top_k", "join"]
)
def test_a_stream_without_keys_says_that_keyby_comes_first(method: str) -> None:
    stream = LocalEnvironment("m").from_batch([1])
    with pytest.raises(AttributeError, match=f"`DataStream` has no `{method}`: .* use `keyby` first"):
        getattr(stream, method)
    assert not hasattr(stream, method) and getattr(stream, method, None) is None
    assert hasattr(stream.keyby(abs), method)


def test_what_no_stream_has_is_an_attribute_error_with_the_interpreters_own_hint() -> None:
    program = "import sage\nsage.LocalEnvironment('m').from_batch([1]).fliter(abs)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    last = ran.stderr.splitlines()[-1]
    assert last == "AttributeError: 'DataStream' object has no attribute 'fliter'. Did you mean: 'filter'?"


def test_windows_and_joins_say_what_comes_first() -> None:
    keyed = LocalEnvironment("m").from_batch([1]).keyby(abs)
    with pytest.raises(AttributeError, match="`WindowedStream` has no `map`: make one record of each window first"):
        keyed.window(Count(2)).map(abs)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="`JoinedStreams` has no `map`: say first which pairs"):
        keyed.join(keyed).map(abs)  # type: ignore[attr-defined]


def test_streams_are_copied_as_before() -> None:
    stream = LocalEnvironment("m").from_batch([1])
    again = copy.copy(stream)
    assert again is not stream and again._step is stream._step
    bare = DataStream.__new__(DataStream)
    assert not hasattr(bare, "_step") and not hasattr(bare, "__deepcopy__") and not hasattr(bare, "_repr_png_")


# ---- how a job's end is told


def test_a_cancel_is_told_once() -> None:
    env = LocalEnvironment("m")
    began = threading.Event()

    def wait(_: int) -> None:
        began.set()

    env.from_source(lambda: 1).sink(wait)
    job: JobId = env.submit()
    assert began.wait(60)
    job.cancel()
    with pytest.raises(JobFailed) as failed:
        job.wait()
    assert str(failed.value) == "job `m` cancelled"
    lines = str(failed.value.report).splitlines()
    assert [line for line in lines if "cancel" in line] == lines[:1], lines


# ---- Ctrl-C inside of `with`

PROGRAM = """
import os, time
from sage import LocalEnvironment

def slow(n):
    if n == 3:
        os.write(1, b"now\\n")
    time.sleep(0.01)
    return n

with LocalEnvironment("m", config={"timeouts": {"drain": 3600}}) as env:
    kept = env.from_batch(range(2000)).map(slow).collect()
    BLOCK
"""

BLOCKS = {
    "submit": ("env.submit(autostop=True)", "env.submit(autostop=True)"),
    "a handle": ("job = env.submit(); job.wait()", "job = env.submit(); job.wait()"),
    "the program's own work": ("env.submit(); time.sleep(3600)", "env.submit(); time.sleep(3600)"),
    "a function of the program": (
        "def run():\n        env.submit(autostop=True)\n    run()",
        "env.submit(autostop=True)",
    ),
}


def interrupted(path: Path, block: str, is_terminal: bool, number: int = signal.SIGINT) -> tuple[int, list[str]]:
    """The exit code of a program that is sent a signal when it says "now", and what it wrote after that."""
    path.write_text(PROGRAM.replace("BLOCK", block))
    ours, theirs = pty.openpty() if is_terminal else os.pipe()
    # Whoever runs the tests in the background has their programs ignore SIGINT.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    # Without the line of progress, which has tests of its own.
    variables = {**os.environ, "TERM": "dumb"}
    command = [sys.executable, str(path)]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=variables, preexec_fn=heed)
    os.close(theirs)
    written, is_sent = b"", False
    while True:
        try:
            more = os.read(ours, 4096)
        except OSError:  # the program has left the terminal
            more = b""
        if not more:
            break
        written += more
        if b"now" in written and not is_sent:
            process.send_signal(number)
            is_sent = True
    os.close(ours)
    return process.wait(timeout=60), written.decode().replace("\r\n", "\n").partition("now\n")[2].splitlines()


@pytest.mark.parametrize("is_terminal", [True, False], ids=["on a terminal", "elsewhere"])
@pytest.mark.parametrize(("block", "line"), BLOCKS.values(), ids=BLOCKS.keys())
def test_contract_18_ctrl_c_inside_of_with_gives_one_summary_and_one_traceback_of_the_programs_own(
    tmp_path: Path, block: str, line: str, is_terminal: bool
) -> None:
    code, lines = interrupted(tmp_path / "program.py", block, is_terminal)
    assert code == -signal.SIGINT
    assert sum(line.startswith("Traceback") for line in lines) == 1, lines
    assert [line for line in lines if line.startswith("interrupted: ")] == [lines[1]], lines
    files = [text for text in lines if text.lstrip().startswith("File ")]
    assert files and all(str(tmp_path) in text for text in files), lines
    assert lines[-1] == "KeyboardInterrupt" and [text.strip(" ^~") for text in lines if text.strip(" ^~")][-2] == line


def test_a_termination_inside_of_with_is_told_once(tmp_path: Path) -> None:
    code, lines = interrupted(tmp_path / "program.py", BLOCKS["the program's own work"][0], False, signal.SIGTERM)
    assert code == 143 and [line.partition(":")[0] for line in lines] == ["stopping", "interrupted"], lines


def test_what_ends_a_block_has_the_report_of_its_job() -> None:
    env = LocalEnvironment("m")
    began = threading.Event()
    env.from_source(lambda: began.set() or 1).sink(abs)
    with pytest.raises(KeyboardInterrupt) as ends:
        with env:
            env.submit()
            assert began.wait(60)
            signal.raise_signal(signal.SIGINT)
            threading.Event().wait(60)
    assert ends.value.report.outcome == "cancelled"  # type: ignore[attr-defined]
    assert ends.value.__context__ is None and not env.is_running
