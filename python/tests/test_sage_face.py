"""What SAGE programs use besides streams and services: files, the terminal, configuration, loggers, small functions."""

from __future__ import annotations

import logging
import sys
import threading
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from sage import BatchFunction, JobFailed, LocalEnvironment, MapFunction, SinkFunction, SubmitError
from sage.common.core.functions.future_function import FutureFunction
from sage.common.core.functions.simple_batch_function import SimpleBatchFunction
from sage.common.utils.config.loader import load_config
from sage.common.utils.logging.custom_logger import CustomLogger
from sage.core.communication.metronome import create_metronome
from sage.foundation import SourceFunction
from sage.libs.foundation.io.sink import FileSink as LaterFileSink
from sage.libs.io_utils.batch import JSONLBatch
from sage.libs.io_utils.sink import FileSink, MemWriteSink, PrintSink, RetriveSink, TerminalSink
from sage.libs.io_utils.source import FileSource


def run(env: LocalEnvironment) -> None:
    env.submit(autostop=True)


def test_lines_of_a_file_go_to_another(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("Zoë\n\nAdam", encoding="utf-8")
    env = LocalEnvironment()
    env.from_source(FileSource, names).map(str.upper).sink(FileSink, {"path": str(tmp_path / "out.txt")})
    run(env)
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "ZOË\n\nADAM\n"
    run(env)
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "ZOË\n\nADAM\n", "the file is replaced"


def test_replicas_append_whole_lines(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("before\n")
    expected = [f"{n:05}" * 500 for n in range(400)]
    env = LocalEnvironment()
    env.from_batch(expected).sink(FileSink, out, mode="a", parallelism=3)
    run(env)
    lines = out.read_text().splitlines()
    assert lines[0] == "before" and sorted(lines[1:]) == expected
    env = LocalEnvironment()
    env.from_batch(expected).sink(FileSink, out, parallelism=2)
    with pytest.raises((JobFailed, SubmitError), match="mode='a'"):
        run(env)


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"fine\n\xff\n")
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{"a": \n')
    cases: list[tuple[Any, str]] = [
        (lambda env: env.from_source(FileSource, tmp_path / "none.txt").collect(), "none.txt"),
        (lambda env: env.from_source(FileSource, bad).collect(), "bad.txt"),
        (lambda env: env.from_batch(JSONLBatch, tmp_path / "bad.jsonl").collect(), "bad.jsonl, line 2"),
        (lambda env: env.from_batch([1]).sink(FileSink, tmp_path / "none" / "out.txt"), "out.txt"),
        (lambda env: env.from_batch([1]).sink(FileSink, "/dev/full"), "/dev/full"),
        (lambda env: env.from_batch(["\ud800"]).sink(FileSink, "/dev/null"), "/dev/null"),
        (lambda env: env.from_batch([1]).sink(FileSink, {"file": "x"}), "data_path"),
        (lambda env: env.from_batch([1]).sink(FileSink, "x", mode="r"), "mode is"),
    ]
    for declare, named in cases:
        env = LocalEnvironment()
        declare(env)
        with pytest.raises((JobFailed, SubmitError)) as failed:
            run(env)
        assert named in str(failed.value.__cause__ or failed.value)


def test_values_of_json_lines_null_among_them(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"query": "why"}\n\nnull\n[1, 2]\n')
    env = LocalEnvironment()
    records = env.from_batch(JSONLBatch, {"data_path": str(questions)}).collect()
    run(env)
    assert records == ["why", None, [1, 2]], "of a mapping, as in SAGE"
    env = LocalEnvironment()
    records = env.from_batch(JSONLBatch, questions).collect()
    run(env)
    assert records == [{"query": "why"}, None, [1, 2]]


def test_a_file_source_of_a_mapping_strips_lines_and_reads_again(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("  Zoë \n\n\tAdam")
    env = LocalEnvironment()
    plain = env.from_source(FileSource, names).collect()
    stripped = env.from_source(FileSource, {"data_path": str(names)}).collect()
    again = env.from_source(FileSource, {"data_path": str(names), "loop_reading": True}).take(7).collect()
    run(env)
    assert plain == ["  Zoë ", "", "\tAdam"] and stripped == ["Zoë", "", "Adam"]
    assert again == ["Zoë", "", "Adam", "Zoë", "", "Adam", "Zoë"]


def test_an_empty_file_that_is_read_again_waits_for_lines(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    env = LocalEnvironment()
    first = env.from_source(FileSource, {"data_path": str(empty), "loop_reading": True}).take(1).collect()
    env.submit()
    empty.write_text("come\n")
    env.wait()
    assert first == ["come"]


def test_questions_and_answers_are_written_as_sage_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = [("why", "so"), {"question": "how", "response": "thus"}]
    env = LocalEnvironment()
    stream = env.from_batch(pairs[:1])
    stream.sink(FileSink, {"file_path": "answers.txt"}).sink(FileSink, "plain.txt").sink(MemWriteSink)
    stream.sink(FileSink, {"file_path": str(tmp_path / "absolute.txt")})
    env.from_batch([["a", 1], "b", ("c", 2), 3]).sink(MemWriteSink, {"file_path": "sub/memory.txt"})
    run(env)
    output, dashes = tmp_path / ".sage" / "output", "-" * 40
    answered = f"[Q] Question: why\n[A] Answer  : so\n{dashes}\n"
    assert (output / "answers.txt").read_text() == (tmp_path / "absolute.txt").read_text() == answered
    assert (tmp_path / "plain.txt").read_text() == "('why', 'so')\n"
    assert (output / "mem_output.txt").read_text() == f"[1] why\n[2] so\n{dashes}\n"
    memory = ["[1] a", "[2] 1", dashes, "[3] b", dashes, "[4] c", dashes, "[5] 3", dashes]
    assert (output / "sub" / "memory.txt").read_text().splitlines() == memory
    env = LocalEnvironment()
    env.from_batch(pairs).sink(TerminalSink, {})
    run(env)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["[TerminalSink]: [Q] Question :why", "[TerminalSink]: [A] Answer :so"]
    assert lines[2:] == ["[TerminalSink]: [Q] Question :how", "[TerminalSink]: [A] Answer :thus"]
    with pytest.raises(TypeError, match="`TerminalSink` takes a configuration, a mapping, not 'answer'"):
        TerminalSink("answer")  # type: ignore[arg-type]
    env = LocalEnvironment()
    env.from_batch([("why", ["a", "b"])]).sink(RetriveSink, {})
    run(env)
    assert capsys.readouterr().out.splitlines() == ["[Q] Question :why", "[A] Chunks :['a', 'b']"]


def test_records_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    env = LocalEnvironment()
    stream = env.from_batch(["a"])
    stream.sink(PrintSink, "answer", ": ", quiet=True).sink(TerminalSink, {"prefix": "t", "model": "x"}).sink(
        TerminalSink
    ).print("p")
    run(env)
    assert sorted(capsys.readouterr().out.splitlines()) == ["a", "answer: a", "p | a", "t | a"]


def test_a_simple_batch_has_every_record() -> None:
    env = LocalEnvironment()
    records = env.from_batch(SimpleBatchFunction, [1, None, 2]).collect()
    run(env)
    assert records == [1, None, 2]


def test_a_future_function_says_what_to_use() -> None:
    with pytest.raises(RuntimeError, match="from_future"):
        FutureFunction().execute()


def test_a_metronome_beats_at_its_pace_and_is_a_source() -> None:
    metronome = create_metronome(0.02)
    beats: list[int] = []

    class Ends(SourceFunction):
        def execute(self) -> Any:
            return metronome()

    def take(beat: int) -> None:
        beats.append(beat)
        if len(beats) == 4:
            metronome.stop()

    env = LocalEnvironment()
    env.from_source(Ends).sink(take)
    begin = time.monotonic()
    run(env)
    assert beats[0] == 0 and beats == sorted(set(beats)) and time.monotonic() - begin > 0.05
    with pytest.raises(ValueError, match="more than 0"):
        create_metronome(0)


#: A beat that nobody waits for.
HOUR = 3600.0


@pytest.mark.parametrize("end", ["stop", "cancel", "take", "metronome"])
def test_a_source_that_waits_for_a_beat_ends_with_its_job(end: str) -> None:
    metronome, first = create_metronome(HOUR), threading.Event()

    class Beats(SourceFunction):
        def execute(self) -> Any:
            return metronome()

    env = LocalEnvironment("beats")
    stream = env.from_source(Beats)
    got = (stream.take(1) if end == "take" else stream).map(lambda beat: first.set() or beat).collect()
    job = env.submit()
    assert first.wait(60)
    # It waits on when the job goes on after a pause.
    job.pause()
    job.resume()
    if end == "cancel":
        job.cancel()
        with pytest.raises(JobFailed, match="cancelled"):
            job.wait()
    elif end == "metronome":
        metronome.stop()
        job.wait()
    else:
        env.stop() if end == "stop" else job.wait()
    assert end == "cancel" or got == [0]


def test_a_function_keeps_to_the_beat_until_its_job_is_cancelled() -> None:
    quick, slow, waits = create_metronome(0.01), create_metronome(HOUR), threading.Event()
    times: list[float] = []

    def paced(n: int) -> int:
        quick.wait()
        times.append(time.monotonic())
        return n

    def held(n: int) -> int:
        slow.wait()
        waits.set()
        return n

    env = LocalEnvironment("paced")
    got = env.from_batch([1, 2, 3]).map(paced).collect()
    env.submit()
    env.stop()
    assert len(got) == len(times) and all(b - a > 0.005 for a, b in zip(times, times[1:]))
    env = LocalEnvironment("held")
    env.from_batch([1, 2, 3]).map(held).collect()
    job = env.submit()
    assert waits.wait(60)
    job.cancel()
    with pytest.raises(JobFailed, match="cancelled"):
        job.wait()


def test_outside_of_a_job_a_beat_is_waited_for_and_can_be_stopped() -> None:
    metronome = create_metronome(0.01)
    begin = time.monotonic()
    assert metronome.wait() and metronome.wait() and time.monotonic() - begin >= 0.01
    metronome = create_metronome(HOUR)
    assert metronome.wait()
    stopper = threading.Thread(target=metronome.stop)
    stopper.start()
    assert not metronome.wait()
    stopper.join()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_metronome_with_a_name_lets_one_record_through_at_a_time(is_async: bool) -> None:
    lock = create_metronome("one by one")
    seen: list[str] = []

    class Ask(BatchFunction):
        use_metronome = True
        metronome = lock
        n = 0

        def execute(self) -> Any:
            self.n += 1
            seen.append(f"ask {self.n}")
            return self.n if self.n < 4 else None

    class Answer(SinkFunction):
        use_metronome = True

        def __init__(self) -> None:
            self.metronome = lock

        def execute(self, n: int) -> None:
            seen.append(f"answer {n}")

    class AnswerLater(Answer):
        async def execute(self, n: int) -> None:  # type: ignore[override]
            seen.append(f"answer {n}")

    env = LocalEnvironment()
    assert lock.name == "one by one" and not lock.wait_for_release(0)
    lock.release_once()
    env.from_batch(Ask).map(lambda n: n).sink(AnswerLater if is_async else Answer)
    run(env)
    assert seen == [what for n in (1, 2, 3) for what in (f"ask {n}", f"answer {n}")] + ["ask 4"]


def test_a_source_that_waits_for_a_metronome_can_be_stopped() -> None:
    class Waits(SourceFunction):
        use_metronome = True
        metronome = create_metronome()

        def execute(self) -> Any:
            raise AssertionError("nobody released it")

    env = LocalEnvironment()
    got = env.from_source(Waits).collect()
    env.submit()
    env.stop()
    assert got == []


def test_a_configuration_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("source:\n  data_path: a.txt\nlevels: [1, 2]\n", encoding="utf-8")
    assert load_config(path) == {"source": {"data_path": "a.txt"}, "levels": [1, 2]}
    path.write_text("")
    assert load_config(str(path)) == {}
    for text, said in [
        ("- 1", "is a list, not a mapping"),
        ("a: [", "is not YAML"),
        ("a: !!python/object:os.system x", "is not YAML"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=said) as error:
            load_config(path)
        assert "config.yaml" in str(error.value)
    with pytest.raises(FileNotFoundError, match="none.yaml"):
        load_config(tmp_path / "none.yaml")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError, match=r"pip install 'sage-dataflow\[yaml\]'"):
        load_config(path)


def test_a_logger_writes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "app.log"
    log = CustomLogger([("console", "WARNING"), (path, "DEBUG")], name="told", level="ignored")
    assert not path.exists(), "opened with the first message"
    log.debug("into the file")
    log.warning("to both")
    again = CustomLogger([("console", "ERROR")], name="told")
    again.warning("nowhere")
    assert [line.rpartition(": ")[2] for line in path.read_text().splitlines()] == ["into the file", "to both"]
    assert "to both" in (err := capsys.readouterr().err) and "nowhere" not in err and "into" not in err


def test_a_logger_by_name_is_one_of_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        CustomLogger("by name").info("heard")
        CustomLogger(name="by keyword").info("too")
    assert [(record.name, record.message) for record in caplog.records] == [
        ("sage.by name", "heard"),
        ("sage.by keyword", "too"),
    ]


def test_the_messages_of_functions_are_shown_from_a_level_on(capsys: pytest.CaptureFixture[str]) -> None:
    class Chatty(MapFunction):
        def execute(self, data: int) -> int:
            self.logger.debug("too quiet %d", data)
            self.logger.info("at work on %d", data)
            return data

    env = LocalEnvironment("chatty")
    root, handlers = logging.getLogger(), logging.getLogger().handlers
    for level in ["INFO", "info"]:
        env.set_console_log_level(level)
    try:
        root.handlers = []
        env.from_batch([7]).map(Chatty, name="works").sink(lambda data: None)
        env.submit(autostop=True)
        (_begun, line, _ended) = capsys.readouterr().err.splitlines()
        assert line.endswith(" INFO sage.chatty.works: at work on 7")
        # A program that sets up logging gets them there, once.
        heard = StringIO()
        root.handlers = [logging.StreamHandler(heard)]
        env.submit(autostop=True)
        (_begun, line, _ended) = heard.getvalue().splitlines()
        assert line == "at work on 7" and capsys.readouterr().err == ""
    finally:
        root.handlers = handlers


def test_log_files_are_written_only_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def files(config: dict[str, Any], records: int) -> dict[str, int]:
        env = LocalEnvironment("logged", config)
        env.from_batch(range(records)).sink(lambda n: None)
        run(env)
        return {path.name: path.stat().st_size for path in Path(config.get("log_dir", tmp_path)).rglob("*.log")}

    assert files({}, 1) == {} and not list(tmp_path.iterdir())
    few = files({"log_dir": tmp_path / "few"}, 1)
    assert "Dispatcher.log" in few
    many = files({"log_dir": str(tmp_path / "many")}, 10_000)
    assert many["Dispatcher.log"] < few["Dispatcher.log"] + 500, "nothing per record"
