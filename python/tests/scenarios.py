"""Scenarios that come to the same wherever functions run: on threads, in worker processes, on Ray.

Each is a pipeline with what is done to its job. What it comes to on threads is what it has to come to elsewhere: see
``test_conformance.py`` here and among Ray's tests.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from conformance import Asks, Awaits, Bounces, Db, Holds, Kept, Later, Log, Noted, Second, Sink, Step, Twice
from conformance import add, fail_at_five, fail_at_threes, fail_at_threes_later, key_of

from sage import DeadLetterQueue, JobFailed, JobId, LocalEnvironment, Retry, Skip


def cancel(job: JobId, log: Log) -> None:
    log.wait("works")
    job.cancel()
    log.reach("drained")
    log.reach("over")


def drain(job: JobId, log: Log) -> None:
    log.wait("works")
    job.drain()
    log.reach("drained")
    log.reach("over")


def cancel_in_drain(job: JobId, log: Log) -> None:
    log.wait("works")
    job.drain()
    log.reach("drained")
    log.wait("drains")
    job.cancel()
    log.reach("over")


class Build:
    """What a scenario has: an environment, its log and its dead letters. It makes its parts."""

    def __init__(self, env: LocalEnvironment, log: Log) -> None:
        self.env, self.log, self.dead = env, log, DeadLetterQueue()

    def numbers(self, count: int = 12) -> Any:
        return self.env.from_batch(range(count))

    def forever(self) -> Any:
        return self.env.from_batch(itertools.count())

    def db(self, fails: str = "", isolated: bool = False) -> Any:
        return self.env.service("db", Db, (self.log, fails), isolated=isolated)

    def bouncing(self, isolated: bool) -> Any:
        self.env.service("a", Db, (self.log, "", "b"))
        self.env.service("b", Db, (self.log, "", "a"), isolated=isolated)
        return self.numbers(5)

    def hooks(self, made: type[Noted], fails: str) -> Any:
        """A function of any kind that raises there, beside a service."""
        self.db()
        numbers, how = self.numbers(), {"name": "step"}
        if made is Sink:
            return numbers.map(abs).sink(Sink, self.log, fails, **how)
        if made is Kept:
            return numbers.filter(Kept, self.log, fails, **how)
        return (numbers.flatmap if made is Twice else numbers.map)(made, self.log, fails, **how)

    def seed(self) -> None:
        self.env.register_service("db", Db, self.log)
        self.env.from_batch([1, 2, 3, 4, 5]).map(Asks).sink(Sink, self.log)

    def held(self, how: str = "") -> Any:
        self.db()
        return self.forever().map(Holds, self.log, how, name="step")


class Scenario(NamedTuple):
    build: Callable[[Build], Any]
    #: What is done to the job.
    steer: Callable[[JobId, Log], None] | None = None
    config: dict[str, Any] = {}
    is_ordered: bool = True


NOW = Retry(2, 0.0)
SCENARIOS: dict[str, Scenario] = {
    "chain": Scenario(lambda b: b.numbers().map(Step, b.log).filter(lambda n: n % 20 == 0).flatmap(Twice, b.log)),
    "async": Scenario(lambda b: b.numbers().map(Later, b.log, in_flight=4)),
    "threads": Scenario(lambda b: b.numbers().map(Step, b.log, in_flight=4)),
    "replicas": Scenario(lambda b: b.numbers().map(lambda n: n + 1, parallelism=2), is_ordered=False),
    "keys": Scenario(lambda b: b.numbers().keyby(lambda n: n % 3).reduce(lambda x, y: x + y)),
    "state": Scenario(lambda b: b.numbers(5).keyby(lambda n: n % 2).map_with_state(0, add)),
    "the seed": Scenario(Build.seed),
    "nothing": Scenario(lambda b: b.numbers(0).map(Step, b.log)),
    # Functions that fail.
    "map fails": Scenario(lambda b: b.hooks(Step, "execute")),
    "async fails": Scenario(lambda b: b.hooks(Later, "execute")),
    "flatmap fails": Scenario(lambda b: b.hooks(Twice, "execute")),
    "filter fails": Scenario(lambda b: b.hooks(Kept, "execute")),
    "keyby fails": Scenario(lambda b: b.numbers().keyby(key_of, name="step").count()),
    "state fails": Scenario(lambda b: b.numbers().keyby(lambda n: n % 2).map_with_state(0, add)),
    "second fails": Scenario(lambda b: b.numbers().map(Step, b.log).map(lambda n: fail_at_five(n // 10), name="step")),
    "sink fails": Scenario(lambda b: b.hooks(Sink, "execute")),
    **{
        f"{made.__name__}.{hook} fails": Scenario(lambda b, made=made, hook=hook: b.hooks(made, hook))
        for made, hooks in {
            Step: ("__init__", "setup", "teardown", "close"),
            Later: ("setup", "close"),
            Sink: ("setup", "close"),
        }.items()
        for hook in hooks
    },
    **{
        f"service's {hook} fails": Scenario(lambda b, hook=hook: (b.db(hook), b.numbers().map(Asks, name="step"))[1])
        for hook in ("__init__", "setup", "start", "process", "stop", "cleanup")
    },
    # Ends of jobs.
    "cancel": Scenario(Build.held, cancel),
    "drain": Scenario(Build.held, drain),
    "cancel in drain": Scenario(Build.held, cancel_in_drain),
    "deadline": Scenario(lambda b: b.held("for long"), drain, {"timeouts": {"drain": 0.2}}),
    # Error policies.
    "skip": Scenario(lambda b: b.numbers().map(fail_at_threes, name="step", on_error="skip")),
    "skip too many": Scenario(lambda b: b.numbers(50).map(fail_at_threes, name="step", on_error=Skip(at_most=3))),
    "retry": Scenario(lambda b: b.numbers().map(Second, name="step", retry=NOW)),
    "retry in vain": Scenario(lambda b: b.numbers().map(fail_at_threes, name="step", retry=NOW)),
    "letters": Scenario(lambda b: b.numbers(30).map(fail_at_threes, name="step", on_error=b.dead, retry=NOW)),
    "letters of async": Scenario(
        lambda b: b.numbers(30).map(fail_at_threes_later, name="step", on_error=b.dead, retry=NOW)
    ),
    # Services.
    "handles": Scenario(lambda b: (lambda db: b.numbers().map(lambda n: db.process(n)))(b.db())),
    "handles of isolated": Scenario(lambda b: (lambda db: b.numbers().map(lambda n: db.process(n)))(b.db("", True))),
    "nested": Scenario(lambda b: b.bouncing(False).map(Bounces)),
    "nested, isolated": Scenario(lambda b: b.bouncing(True).map(Bounces)),
    "awaited": Scenario(lambda b: (b.db(), b.numbers().map(Awaits, in_flight=4))[1]),
    "awaited, isolated": Scenario(lambda b: (b.db("", True), b.numbers().map(Awaits, in_flight=4))[1]),
}


class Outcome(NamedTuple):
    """What a scenario has come to."""

    #: Of a job that succeeded.
    results: list[Any]
    error: str
    cause: str
    report: dict[str, str]
    services: dict[str, tuple[str, int, int]]
    #: Of all operators: how many records failed, and how many further attempts were made.
    counts: dict[str, int]
    letters: list[Any]
    log: list[str]


def run(scenario: Scenario, make: Callable[[str, dict[str, Any]], LocalEnvironment]) -> Outcome:
    """Runs a scenario in an environment of this kind."""
    with TemporaryDirectory() as folder:
        build = Build(make("scenario", scenario.config), Log(folder))
        stream, results, letters = scenario.build(build), [], []
        if hasattr(stream, "collect"):
            results = stream.collect()
        if build.dead._streams:
            letters = build.dead.letters.map(tuple, workers=None).collect()
        cause = None
        try:
            if scenario.steer is None:
                report = build.env.submit(autostop=True).report
            else:
                job = build.env.submit()
                scenario.steer(job, build.log)
                job.wait()
                report = job.report
            error = ""
        except JobFailed as failed:
            report, error, cause = failed.report, str(failed), failed.__cause__
        assert not build.env.is_running
        data = report.data
        assert "was killed by SIGKILL" not in {worker["end"] for worker in data["workers"]}, "they end as they are told"
        return Outcome(
            [] if error or scenario.steer else results if scenario.is_ordered else sorted(results),
            _told(error),
            f"{type(cause).__name__}: {cause}",
            {key: _told(str(data[key])) for key in ("outcome", "cleanliness", "reason", "left")},
            {name: (told["state"], told["calls"], told["errors"]) for name, told in report.services.items()},
            {count: sum(row[count] for row in data["operators"]) for count in ("failed", "retries", "restarts")},
            [letter[:-1] for letter in letters],
            _in_order(line for line in build.log.lines if not (error and line.startswith("got "))),
        )


def _told(error: str) -> str:
    """A source and a sink may share the chain and the task of a function on threads, so that a failure names the
    function besides."""
    error = re.sub("task `(batch|step)`", "the task", re.sub(" → (collect|Sink)", "", error))
    return re.sub(r"(?<=operator )`(\w+)`(, record \d+)?: in `\1`: ", r"`\1`\2: ", error)


def _in_order(lines: Iterable[str]) -> list[str]:
    """Services that do not depend on each other start at the same time."""
    log = list(lines)
    starts = [line for line in log if line[0].islower() and line.endswith((".__init__", ".setup", ".start"))]
    return [*sorted(starts, key=lambda line: line.split(".")[0]), *(line for line in log if line not in starts)]


@cache
def on_threads(name: str) -> Outcome:
    """What the scenario of this name is to come to."""
    return run(SCENARIOS[name], LocalEnvironment)
