"""Arguments: what cannot be meant is an error where it is written, what may be is one warning."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from sage import (
    BaseService,
    BatchFunction,
    Count,
    FilterFunction,
    FlatMapFunction,
    JobFailed,
    KeyContext,
    LocalEnvironment,
    MapFunction,
    ProcessFunction,
    Retry,
    Session,
    SinkFunction,
    Skip,
    Sliding,
    SourceFunction,
    StopSignal,
    Timer,
    Tumbling,
)
from sage._arguments import millis
from sage._sage import SubmitError


class Scale:
    """A class of the program's own, which knows nothing of ours."""

    closed = 0

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def execute(self, record: int) -> Any:
        return record * self.factor

    def close(self) -> None:
        Scale.closed += 1


class Waits(Scale):
    async def execute(self, record: int) -> Any:
        return record * self.factor


class Gives:
    def __init__(self, most: int) -> None:
        self.left = most

    def execute(self) -> int | None:
        self.left -= 1
        return self.left if self.left >= 0 else None


class Bare(MapFunction):
    def execute(self, record: Any) -> Any:
        return record


class Configured(MapFunction):
    def __init__(self, config: dict[str, Any], **others: Any) -> None:
        self.others = others

    def execute(self, record: Any) -> Any:
        return self.others


class Polls(BatchFunction):
    """As in SAGE, whose sources never hear of `delay`."""

    def __init__(self, most: int) -> None:
        self.left = most

    def execute(self) -> int | None:
        self.left -= 1
        return self.left if self.left >= 0 else None


class Db(BaseService):
    def process(self, question: str) -> str:
        return question


def test_a_class_that_has_execute_is_a_function_class() -> None:
    Scale.closed = 0
    env = LocalEnvironment("classes")
    numbers = env.from_batch([1, 2])
    doubled, tripled = numbers.map(Scale, 2).collect(), numbers.map(Scale, factor=3).collect()
    waited = numbers.map(Waits, 4).collect()
    kept = numbers.filter(Scale, 0).collect()
    counts = numbers.keyby(Scale, 10).count().collect()
    left = env.from_batch(Gives, 2).collect()
    skipped = numbers.map(Scale, 5, on_error="skip").collect()
    env.submit(autostop=True)
    assert (doubled, tripled, waited, kept, skipped) == ([2, 4], [3, 6], [4, 8], [], [5, 10])
    assert (counts, left, Scale.closed) == ([(10, 1), (20, 1)], [1, 0], 6)


def fails(declare: Callable[[Any], Any], said: str) -> None:
    env = LocalEnvironment("mistakes")
    stream = env.from_batch([1])
    before = list(env.pipeline)
    with pytest.raises((TypeError, ValueError), match=said):
        declare(stream)
    now = [step for step in env.pipeline if step.kind.name != "keyby"]
    assert now == before, "a declaration that raises leaves the pipeline as it was"


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda s: s.map(Scale), "factor"),
        (lambda s: s.map(Scale, 1, 2), "too many positional"),
        (lambda s: s.map(Scale, fcator=1), "`Scale` has no parameter `fcator`; did you mean `factor`"),
        (lambda s: s.map(Scale, 2, paralelism=2), "`paralelism`; did you mean `parallelism`"),
        (lambda s: s.map(Bare, 3), "`Bare` has no `__init__`, so nothing would read"),
        (lambda s: s.map(Bare, on_eror="skip"), "`on_eror`; did you mean `on_error`"),
        (lambda s: s.map(str, nmae="x"), "`map` has no parameter `nmae`; did you mean `name`"),
        (lambda s: s.map(abs, 2), "functools.partial"),
        (lambda s: s.map(Scale(3)), "pass the class `Scale`"),
        (lambda s: s.keyby(str).process(Ring, 5), "`Ring` has no `__init__`"),
        (lambda s: s.connect(5), "`connect` needs another stream"),
        (lambda s: s._environment.from_batch([1, 2], 7), r"nothing would read \(7,\)"),
        (lambda s: s._environment.from_batch([1, 2], nmae="x"), "`from_batch` has no parameter `nmae`.*`name`"),
        (lambda s: s._environment.from_batch([1, 2], parallelism=4), "no parameter `parallelism`"),
        (lambda s: s._environment.from_batch(Polls), "most"),
        (lambda s: s._environment.from_batch(Polls(3)), "pass the class `Polls`"),
        (lambda s: s._environment.from_batch(generated), "pass what `generated` returns"),
        (lambda s: s._environment.from_source(generated), r"use `from_batch\(generated\(\)\)`"),
        (lambda s: s._environment.from_source(lambda: 1, 2), "nothing would read"),
        (lambda s: s._environment.from_source([1]), "there is `from_batch`"),
        (lambda s: s._environment.register_service("db", Db, k=5), "`Db` has no parameter `k`"),
        (lambda s: s._environment.register_service_factory("db", lambda k: Db()), "cannot be called"),
        (lambda s: s._environment.service("db", Db, "kb.idx"), "`args` is a tuple"),
        (lambda s: s._environment.service("db", Gives, kwargs={"mots": 1}), "did you mean `most`"),
        (lambda s: s.filter(generated), "a generator is always true"),
        (lambda s: s.sink(generated), "its code would not run"),
        (lambda s: s.keyby(generated), "a key of its own"),
        (lambda s: s.map(str, parallelism="4"), "parallelism is a whole number"),
        (lambda s: s.map(str, parallelism=True), "parallelism is a whole number"),
        (lambda s: s.map(str, parallelism=2.0), "parallelism is a whole number"),
        (lambda s: s.map(str, in_flight=True), "`in_flight` is a whole number"),
        (lambda s: s.map(str, in_flight=2, timeout=-1), "a timeout is more than 0 seconds"),
        (lambda s: s.map(str, in_flight=2, timeout=float("nan")), "a timeout is more than 0 seconds"),
        (lambda s: s.map(str, in_flight=2, timeout="5"), "a timeout is more than 0 seconds, not '5'"),
        (lambda s: s.map(str, in_flight=2, ordered="no"), "`ordered` is True or False"),
        (lambda s: s.map(str, name=5), "the name of a step is a text"),
        (lambda s: s.map(str, retry=Retry("3")), "at least one attempt"),
        (lambda s: s.map(str, retry=Retry(3, float("nan"))), "`first` of a Retry"),
        (lambda s: s.map(str, retry=Retry(3, 2.0, 1.0)), "not less than its `first`"),
        (lambda s: s.map(str, on_error=Skip(True)), "`at_most` of a Skip"),
        (lambda s: s.map(str, on_error=Skip(at_most_share=5)), "share from 0.0 to 1.0"),
        (lambda s: s.map(str, on_error=Skip), r"write `Skip\(\)`"),
        (lambda s: s.take(True), "`take` takes"),
        (lambda s: s.take("5"), "`take` takes"),
        (lambda s: s.with_timestamps(float, out_of_order="1"), "`out_of_order`"),
        (lambda s: s.with_timestamps(float, idle_after=True), "`idle_after`"),
    ],
)
def test_what_nobody_would_read_or_cannot_be_is_an_error(declare: Callable[[Any], Any], said: str) -> None:
    fails(declare, said)


@pytest.mark.parametrize(
    "windows",
    [Tumbling("10"), Tumbling(True), Tumbling(-1), Sliding(10, float("nan")), Session(None), Count(True), Count(0)],
)
def test_windows_that_cannot_be_are_refused_where_they_are_declared(windows: Any) -> None:
    env = LocalEnvironment("windows")
    with pytest.raises(ValueError, match="of windows|of sessions|of a window"):
        env.from_batch([1]).with_timestamps(float).keyby(str).window(windows)


def generated(*record: Any) -> Any:
    yield record


class Ring(ProcessFunction):
    """Rings half a second after each record."""

    def on_record(self, record: Any, key: KeyContext) -> None:
        key.set_timer(record + Decimal("0.5"))

    def on_timer(self, timer: Timer, key: KeyContext) -> None:
        key.push(timer.at)


def test_what_sage_programs_pass_is_taken() -> None:
    class Slow(SourceFunction):
        def __init__(self, delay: float) -> None:
            self.delay = delay

        def execute(self) -> Any:
            return StopSignal() if self.delay is None else self._once()

        def _once(self) -> Any:
            delay, self.delay = self.delay, None  # type: ignore[assignment]
            return delay

    env = LocalEnvironment("sage", {"engine_host": "127.0.0.1", "model": {"timeout": 3}, "fault_tolerance": {}})
    polled = env.from_batch(Polls, 2, delay=0.1, progress_log_interval=5, total_count=2).collect()
    own = env.from_source(Slow, 2.5, delay=0.01).collect()
    plain = env.from_batch([1], delay=0.1).map(Configured, {"a": 1}, anything=2).collect()
    env.submit(autostop=True)
    assert (polled, own, plain) == ([1, 0], [2.5], [{"anything": 2}])
    assert env.config["model"] == {"timeout": 3}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"timeout": {"cleanup": 1}}, "`timeout`, which nothing reads; did you mean `timeouts`"),
        ({"Timeouts": {}}, "did you mean `timeouts`"),
        ({"log-dir": "x"}, "did you mean `log_dir`"),
        ({"most_queued_call": 5}, "did you mean `most_queued_calls`"),
        ({"timeouts": {"clean_up": 1}}, "no `clean_up`; did you mean `cleanup`"),
        ({"timeouts": {"cleanup": "1"}}, "the timeout `cleanup`"),
        ({"timeouts": {"drain": float("nan")}}, "the timeout `drain`"),
        ({"timeouts": 5}, "a mapping of names to seconds"),
        ({"log_dir": 5}, "`log_dir` of `config` is the path of a folder, not 5"),
        ({"log_dir": ""}, "`log_dir` of `config` is the path of a folder, not ''"),
        ({"log_dir": b"logs"}, "`log_dir` of `config` is the path of a folder"),
        ("config.yaml", "`load_config` reads a file"),
    ],
)
def test_a_setting_that_nothing_reads_is_an_error(config: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        LocalEnvironment("config", config)
    env = LocalEnvironment("later")
    got = env.from_batch([1]).collect()
    if isinstance(config, dict):
        env.config.update(config)
        with pytest.raises((TypeError, ValueError), match=said):
            env.submit()
    assert got == []


class Frame:
    """What is gone through as a data frame is: by its columns."""

    def __dataframe__(self) -> None: ...

    def __iter__(self) -> Any:
        return iter(["a", "b"])


@pytest.mark.parametrize("records", ["ab", b"ab", {"a": 1, "b": 2}, Frame()])
def test_what_is_seldom_meant_warns_once_and_goes_on(records: Any) -> None:
    env = LocalEnvironment("warned")
    with pytest.warns(UserWarning, match="`from_batch` of a") as warned:
        got = env.from_batch(records).collect()
        env.submit(autostop=True)
    assert got == list(records)
    assert [warning.filename for warning in warned] == [__file__], "at the line of the program"


def test_a_map_that_gives_generators_or_prints_warns() -> None:
    env = LocalEnvironment("warned")
    with pytest.warns(UserWarning, match="`flatmap` gives what it yields"):
        env.from_batch([1]).map(generated)
    with pytest.warns(UserWarning, match="`print` returns None"):
        env.from_batch([1]).map(print)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.from_batch([[1]]).flatmap(generated)
        env.from_batch([1]).sink(print)


@pytest.mark.parametrize(
    "records", [[(1, 2), (3, 4)], [[1], [2]], ["1", "2"], [b"1", b"2"], [None], [None, 1], [1, None], [1, "2"]]
)
@pytest.mark.parametrize("way", ["all", "keyed", "windowed", "native", "sessions"])
def test_a_sum_of_what_is_joined_and_not_added_is_an_error(records: list[Any], way: str) -> None:
    from sage import ops

    env = LocalEnvironment("sums")
    stream = env.from_batch(records)

    def keyed() -> Any:
        return stream.with_timestamps(lambda _: 1).keyby(lambda _: 0)

    {
        "all": lambda: stream.sum(),
        "keyed": lambda: keyed().sum(),
        "windowed": lambda: keyed().window(Tumbling(1)).sum(),
        "native": lambda: stream.keyby(ops.identity()).sum() if None not in records else stream.sum(),
        "sessions": lambda: keyed().window(Session(1)).sum(),
    }[way]().collect()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, TypeError)


def test_a_sum_is_what_python_makes_of_it() -> None:
    env = LocalEnvironment("sums")
    sums = [
        env.from_batch(records).sum().collect()
        for records in ([], [True], [True, True], [Decimal("0.1")] * 3, [timedelta(1), timedelta(2)], [1, 2.5])
    ]
    env.submit(autostop=True)
    assert sums == [[0], [1], [2], [Decimal("0.3")], [timedelta(3)], [3.5]]
    assert type(sums[1][0]) is int


MOMENT = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=timezone.utc)


def test_times_are_rounded_whatever_their_type() -> None:
    assert [millis(t) for t in (32.3, 32.2, -32.3, 0.0004, 0.0006, -0.0006, 1_714_521_600.123)] == [
        32300,
        32200,
        -32300,
        0,
        1,
        -1,
        1_714_521_600_123,
    ]
    assert [millis(t) for t in (5, -5, Decimal("32.3"), Fraction(323, 10), MOMENT)] == [
        5000,
        -5000,
        32300,
        32300,
        1714564800250,
    ]
    for wrong in (float("nan"), float("inf"), 1e300, 10**400, Decimal("nan")):
        with pytest.raises(ValueError, match="a time is a finite number of seconds"):
            millis(wrong)
    for wrong in ("32.3", True, None, [1], timedelta(1)):
        with pytest.raises(TypeError, match="a time is a finite number of seconds"):
            millis(wrong)


class Fixed:
    """A number of numpy's kind: it has an index, and what it is multiplied by may be too much for it."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number

    def __float__(self) -> float:
        return float(self._number)

    def __mul__(self, other: Any) -> Any:
        raise OverflowError("32 bits")


def test_numbers_of_other_libraries_are_times_and_counts() -> None:
    assert millis(Fixed(1_714_521_600)) == 1_714_521_600_000
    env = LocalEnvironment("numbers")
    timed = env.from_batch([1, 2, 11]).with_timestamps(Fixed, out_of_order=timedelta(0))  # type: ignore[arg-type]
    keyed = timed.keyby(lambda _: 0)
    counts = keyed.window(Tumbling(Fixed(10))).count().collect()  # type: ignore[arg-type]
    slid = keyed.window(Sliding(timedelta(seconds=10), Decimal(5))).count().collect()  # type: ignore[arg-type]
    first = keyed.take(Fixed(1)).collect()  # type: ignore[arg-type]
    env.submit(autostop=True)
    assert [(w.start, w.value) for w in counts] == [(0, 2), (10, 1)] and first == [1]
    assert [(w.start, w.value) for w in slid] == [(-5, 2), (0, 2), (5, 1), (10, 1)]


@pytest.mark.parametrize("windows", [Tumbling(0.1), Sliding(0.1, 0.1)])
def test_a_moment_at_the_begin_of_a_window_is_in_it(windows: Any) -> None:
    env = LocalEnvironment("tenths")
    tenths = [n / 10 for n in range(-500, 500)]
    got = env.from_batch(tenths).with_timestamps(lambda t: t).keyby(lambda _: 0).window(windows)
    values = got.apply(lambda key, start, end, records: records).collect()
    env.submit(autostop=True)
    assert [(w.start, w.end, w.value) for w in values] == [(t, pytest.approx(t + 0.1), [t]) for t in tenths]


def test_timers_are_set_at_rounded_moments() -> None:
    env = LocalEnvironment("timers")
    records = [Decimal("31.8"), Decimal("32.3")]
    rung = env.from_batch(records).with_timestamps(lambda t: t).keyby(lambda _: 0).process(Ring).collect()
    env.submit(autostop=True)
    assert rung == [32.3, 32.8]


@pytest.mark.parametrize("moment", [float("nan"), 1e300, "yesterday", True])
def test_what_is_no_moment_fails_the_job_with_the_step_named(moment: Any) -> None:
    env = LocalEnvironment("no-time")
    env.from_batch([1, moment]).with_timestamps(lambda t: t, out_of_order=1).keyby(lambda _: 0).count().collect()
    with pytest.raises(JobFailed, match="a time is a finite number of seconds since 1970") as failed:
        env.submit(autostop=True)
    assert "record 2" in str(failed.value)


NAME = "caf\udce9"


def test_names_that_are_not_utf8_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="the name of an environment cannot be written in UTF-8"):
        LocalEnvironment(NAME)
    with pytest.raises(TypeError, match="the name of an environment is a text"):
        LocalEnvironment({"name": "x"})  # type: ignore[arg-type]
    fails(lambda s: s.map(str, name=NAME), r"the name of a step cannot be written in UTF-8.*caf\\udce9")
    fails(lambda s: s._environment.register_service(NAME, Db), "the name of a service cannot be written")
    fails(lambda s: s._environment.from_future(NAME), "the name of a step cannot be written")


def test_the_name_of_a_function_is_shown_as_well_as_it_can_be() -> None:
    def double(record: int) -> int:
        return 2 * record

    double.__name__ = NAME
    env = LocalEnvironment("names")
    got = env.from_batch([1]).map(double).collect()
    job = env.submit(autostop=True)
    assert got == [2] and "caf?" in str(job.report)


@pytest.mark.parametrize("message", [f"no {NAME}", "\ud83d", "zero\0byte"])
def test_a_message_with_half_a_character_hides_no_exception(message: str) -> None:
    class Odd(Exception):
        pass

    def fail(record: Any) -> None:
        raise Odd(message)

    env = LocalEnvironment("odd")
    env.from_batch([1]).map(fail).collect()
    with pytest.raises(JobFailed, match="record 1: .*Odd: ") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, Odd) and failed.value.__cause__.args == (message,)


def test_folders_and_keys_that_are_not_utf8_work(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    env = LocalEnvironment("folders", {"log_dir": folder})
    keys = [NAME, NAME, "caf"]
    counts = env.from_batch(keys).keyby(lambda key: key).count(parallelism=2).collect()
    env.submit(autostop=True)
    assert dict(counts) == {NAME: 2, "caf": 1} and list(folder.rglob("*.log"))


class Sinks(SinkFunction):
    pass


class Filters(FilterFunction):
    pass


class Flattens(FlatMapFunction):
    pass


@pytest.mark.parametrize(("kind", "cls"), [("sink", Sinks), ("filter", Filters), ("flatmap", Flattens)])
def test_every_kind_of_step_checks_the_arguments_of_its_class(kind: str, cls: Any) -> None:
    fails(lambda s: getattr(s, kind)(cls, 1), "nothing would read")


def test_a_yes_or_no_is_no_text() -> None:
    env = LocalEnvironment("autostop")
    env.from_batch([1]).collect()
    with pytest.raises(TypeError, match="`autostop` is True or False"):
        env.submit("false")  # type: ignore[arg-type]
    with pytest.raises(SubmitError, match="no pipeline"):
        LocalEnvironment("empty").submit(autostop=True)


FORGOTTEN = """
import sys
from sage import LocalEnvironment
env = LocalEnvironment("forgotten")
records = env.from_batch([1]).collect()
other = LocalEnvironment("submitted")
other.from_batch([1]).collect()
other.submit(autostop=True)
shown = LocalEnvironment("shown")
shown.from_batch([1]).collect()
shown.explain()
if sys.argv[1] == "raise":
    raise SystemError("its own")
print(records)
"""


@pytest.mark.parametrize("how", ["end", "raise"])
def test_a_pipeline_that_was_never_submitted_is_named_at_the_end(how: str) -> None:
    command = [sys.executable, "-c", FORGOTTEN, how]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    told = "`forgotten` was declared and never submitted, so nothing ran"
    assert (told in ran.stderr) == (how == "end"), ran.stderr
    assert "`submitted`" not in ran.stderr and "`shown`" not in ran.stderr


@pytest.mark.parametrize("name", ["a\0b", 5, b"bytes"])
def test_a_name_that_cannot_be_shown_is_refused(name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="the name of an environment"):
        LocalEnvironment(name)
    fails(lambda s: s.sink(print, name=name), "the name of a step")


def test_counts_beyond_all_limits_are_refused_in_words() -> None:
    fails(lambda s: s.take(10**30), "whole number from 0 to 9,223,372,036,854,775,807")
    fails(lambda s: s.map(str, parallelism=10**30), "parallelism is a whole number from 1 to 65,536")


def test_one_that_is_closed_without_having_run_warns_then() -> None:
    with pytest.warns(UserWarning, match="`closed` was declared and never submitted") as warned:
        with LocalEnvironment("closed") as env:
            env.from_batch([1]).sink(print)
    assert len(warned) == 1 and warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with LocalEnvironment("empty") as env:
            env.from_batch([1])
        with pytest.raises(KeyError), LocalEnvironment("failed") as env:
            env.from_batch([1]).sink(print)
            raise KeyError


def test_one_that_came_after_a_closed_one_warns_too() -> None:
    env = LocalEnvironment("second")
    env.from_batch([1]).collect()
    env.submit(autostop=True)
    env.close()
    env.from_batch([2]).collect()
    with pytest.warns(UserWarning, match="`second` was declared and never submitted"):
        env.close()


LEFT = """
import sys, threading
from sage import LocalEnvironment
begun, numbers = threading.Event(), iter(range(10**9))
env = LocalEnvironment("left")
env.from_source(lambda: next(numbers)).sink(lambda _: begun.set())
env.submit()
begun.wait()
if sys.argv[1] == "stop":
    env.stop()
"""


FAILED = """
import sys
from sage import JobFailed, LocalEnvironment
for name in ["first", "second"]:
    env = LocalEnvironment(name)
    env.from_batch([0]).map(lambda number: 1 / number).sink(print)
    job = env.submit()
    while job.state != "ended":
        pass
if sys.argv[1] == "wait":
    try:
        env.stop()
    except JobFailed:
        pass
"""


@pytest.mark.parametrize("how", ["end", "wait"])
def test_a_job_that_failed_and_that_nobody_waited_for_is_named_at_the_end(how: str) -> None:
    ran = subprocess.run([sys.executable, "-c", FAILED, how], capture_output=True, text=True, timeout=60, check=True)
    first = "job `first` failed at operator `lambda → print`, record 1: in `lambda`: ZeroDivisionError"
    assert first in ran.stderr and ("as 1 more did" in ran.stderr) == (how == "end"), ran.stderr
    assert "Nobody waited for it" in ran.stderr


@pytest.mark.parametrize("how", ["end", "stop"])
def test_a_job_that_nobody_waited_for_is_named_at_the_end(how: str) -> None:
    ran = subprocess.run([sys.executable, "-c", LEFT, how], capture_output=True, text=True, timeout=60, check=True)
    assert ("`left` was running when the program ended, and was cancelled" in ran.stderr) == (how == "end"), ran.stderr
