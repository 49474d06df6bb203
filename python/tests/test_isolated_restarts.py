"""Services in processes of their own whose place another takes, when they end by themselves."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from conformance import Log
from elsewhere import env, failed, no_processes  # noqa: F401 (fixtures)

from sage import BaseService, JobFailed, LocalEnvironment, Report, ServiceError

pytest.importorskip("cloudpickle")
pytestmark = pytest.mark.usefixtures("no_processes")

SHORT = {"timeouts": {"setup": 10.0, "stop": 1.0, "cleanup": 1.0}}


class Frail(BaseService):
    """Notes its hooks; what a hook is to do in its second process, it does."""

    def __init__(self, log: Log, then: str = "", where: str = "setup") -> None:
        self.log, self.then, self.where = log, then, where
        self.log.add("__init__")
        self.at("__init__")

    def at(self, hook: str) -> None:
        if hook != self.where or (self.log.lines.count("__init__") < 2 and hook != "stop"):
            return
        if self.then == "raise":
            raise OSError("no room")
        if self.then == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.then == "hang":
            self.log.reach("hangs")
            time.sleep(1000)

    def setup(self) -> None:
        self.log.add("setup")
        self.at("setup")

    def get(self, n: int) -> int:
        return n * 10

    async def later(self, n: int) -> int:
        return n * 10

    def pid(self) -> int:
        return os.getpid()

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def stop(self) -> None:
        self.log.add("stop")
        self.at("stop")

    def cleanup(self) -> None:
        self.log.add("cleanup")


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(str(tmp_path))


def outcomes(frail: Any, *calls: str) -> Any:
    """A function that makes these calls, and gives what comes of them."""

    def function(n: int) -> list[Any]:
        told: list[Any] = []
        for call in calls:
            try:
                told.append(getattr(frail, call)(*[n] * (call == "get")))
            except ServiceError as error:
                told.append(str(error))
        return told

    return function


def is_lost(report: Report, *how: str) -> None:
    """The service is lost in the report, as processes of it ended so."""
    (left,) = report.data["left"]
    assert report.outcome == "succeeded" and report.services["frail"]["state"] == "lost"
    assert left["what"] == "service `frail`" and left["why"].count("its cleanup could not run") == len(how)
    assert all(each in left["why"] for each in how)


def test_another_process_takes_the_place_of_one_that_is_lost(
    env: LocalEnvironment, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    frail = env.service("frail", Frail, (log,), isolated=True, restarts=2)
    records = env.from_batch([1]).map(outcomes(frail, "pid", "die", "get", "pid")).collect()
    report = failed(env).report
    first, died, result, second = records[0]
    assert f"(process {first}) was killed by SIGKILL while it was in `die`" in died
    assert result == 10 and second != first
    is_lost(report, f"(process {first}) was killed by SIGKILL")
    assert log.lines == ["__init__", "setup", "__init__", "setup", "stop", "cleanup"]
    told = [worker for worker in report.data["workers"] if worker["operator"] == "frail"]
    assert [(worker["pid"], worker["end"]) for worker in told] == [
        (first, "was killed by SIGKILL"), (second, "ended with exit code 0"),
    ]
    assert "another takes its place" in caplog.text


def test_calls_wait_while_another_process_begins(env: LocalEnvironment, log: Log) -> None:
    frail = env.service("frail", Frail, (log,), isolated=True, restarts=1)

    def plain(n: int) -> int:
        return int(frail.die() if n == 5 else frail.get(n))

    async def later(n: int) -> int:
        return int(await frail.later(n))

    first = env.from_batch(range(40)).map(plain, in_flight=4, on_error="skip").collect()
    second = env.from_batch(range(40)).map(later, in_flight=4, on_error="skip").collect()
    report = failed(env).report
    is_lost(report, "was killed by SIGKILL")
    # What was inside has failed, and nothing else.
    assert set(first) <= {10 * n for n in range(40)} - {50} and len(first) >= 40 - 4 and len(second) >= 40 - 4


def test_no_more_than_so_many_take_its_place(log: Log) -> None:
    env = LocalEnvironment("often")
    frail = env.service("frail", Frail, (log,), isolated=True, restarts=1)
    records = env.from_batch([1]).map(outcomes(frail, "die", "get", "die", "get")).collect()
    report = failed(env).report
    assert records[0][1] == 10 and records[0][3] == "service `frail` is not serving: it is lost"
    is_lost(report, "SIGKILL", "SIGKILL")
    assert log.lines == ["__init__", "setup"] * 2


@pytest.mark.parametrize("where", ["__init__", "setup"])
@pytest.mark.parametrize(("then", "how"), [("raise", "OSError: no room"), ("die", "was killed by SIGKILL")])
def test_one_that_cannot_be_set_up_is_lost_as_well(log: Log, where: str, then: str, how: str) -> None:
    env = LocalEnvironment("vain")
    frail = env.service("frail", Frail, (log, then, where), isolated=True, restarts=3)
    records = env.from_batch([1]).map(outcomes(frail, "die", "get")).collect()
    report = failed(env).report
    assert records[0][1] == "service `frail` is not serving: it is lost"
    is_lost(report, "was killed by SIGKILL", how)
    assert log.lines.count("__init__") == 2, "one that cannot be set up is not tried once more"


def test_none_begins_once_the_service_stops(log: Log) -> None:
    env = LocalEnvironment("stops")
    env.service("frail", Frail, (log, "die", "stop"), isolated=True, restarts=3)
    env.from_batch([1]).collect()
    report = failed(env).report
    assert report.services["frail"]["state"] == "lost"
    assert log.lines == ["__init__", "setup", "stop"] and len(report.data["workers"]) == 1


@pytest.mark.parametrize("where", ["__init__", "setup"])
def test_one_that_hangs_while_it_is_set_up_ends_with_the_job(log: Log, where: str) -> None:
    env = LocalEnvironment("hangs", SHORT)
    frail = env.service("frail", Frail, (log, "hang", where), isolated=True, restarts=3)
    env.from_batch([1]).map(outcomes(frail, "die", "get")).collect()
    job = env.submit()
    log.wait("hangs")
    job.cancel()
    with pytest.raises(JobFailed) as raised:
        job.wait()
    report = raised.value.report
    assert report.outcome == "cancelled" and report.services["frail"]["state"] == "lost"
    assert [worker["end"] for worker in report.data["workers"]] == ["was killed by SIGKILL"] * 2
    assert [left["what"] for left in report.data["left"]] == ["service `frail`"]


def test_restarts_are_for_isolated_services(log: Log) -> None:
    env = LocalEnvironment("bad")
    with pytest.raises(ValueError, match="add `isolated=True`"):
        env.service("frail", Frail, (log,), restarts=1)
    with pytest.raises(ValueError, match="`restarts`"):
        env.service("frail", Frail, (log,), isolated=True, restarts=-1)
