"""Services: their life, their calls, and that they are cleaned whatever happens."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from sage import BaseService, BatchFunction, JobFailed, LocalEnvironment, SinkFunction

events: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    events.clear()


class Store(BaseService):
    fails_in = ""

    def __init__(self, fails_in: str = "") -> None:
        self.fails_in = fails_in
        self.note("init")
        self.rows: list[Any] = []

    def note(self, event: str) -> None:
        events.append(f"{self.name} {event}")
        if self.fails_in == event:
            raise OSError(f"{event} broke")

    def setup(self) -> None:
        self.note("setup")

    def start(self) -> None:
        self.note("start")

    def process(self, row: Any, weight: int = 1) -> int:
        self.rows.append(row)
        return len(self.rows) * weight

    def broken(self) -> None:
        raise LookupError("no such row")

    def stop(self) -> None:
        self.note("stop")

    def cleanup(self) -> None:
        self.note("cleanup")


class Save(SinkFunction):
    def execute(self, row: Any) -> None:
        events.append(f"saved {self.call_service('db', row, weight=10)}")


ALL = ["db init", "db setup", "db start", "saved 10", "saved 20", "db stop", "db cleanup"]


def test_a_service_lives_in_order_and_is_cleaned_when_submit_returns() -> None:
    env = LocalEnvironment("order")
    env.register_service("db", Store)
    env.from_batch(["a", "b"]).sink(Save)
    job = env.submit(autostop=True)
    assert events == ALL
    assert job.report.services["db"]["state"] == "cleaned"
    assert not env.is_running


class Plain:
    """Knows nothing of the engine."""

    def start_running(self) -> None:
        events.append("started")

    def add(self, a: int, b: int) -> int:
        return a + b

    def terminate(self) -> None:
        events.append("terminated")

    def close(self) -> None:
        events.append("closed")


class Adds(SinkFunction):
    def execute(self, n: int) -> None:
        assert self.call_service["plain"].add(n, b=1) == n + 1
        assert self.call_service("plain", n, 1, method="add", timeout=5) == n + 1


def test_a_plain_class_is_a_service() -> None:
    env = LocalEnvironment("plain")
    env.register_service("plain", Plain)
    env.from_batch([1]).sink(Adds)
    env.submit(autostop=True)
    assert events == ["started", "terminated", "closed"]


class Breaks(SinkFunction):
    def __init__(self, name: str, method: str) -> None:
        self.service, self.method = name, method

    def execute(self, _: Any) -> None:
        self.call_service(self.service, method=self.method)


def test_what_a_method_raises_is_raised_in_the_caller() -> None:
    env = LocalEnvironment("raises")
    env.register_service("db", Store)
    env.from_batch([1]).sink(Breaks, "db", "broken")
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, LookupError)
    assert events[-2:] == ["db stop", "db cleanup"]


def test_a_service_or_method_that_does_not_exist_is_named() -> None:
    env = LocalEnvironment("missing")
    env.register_service("database", Store)
    env.from_batch([1]).sink(Breaks, "databse", "process")
    with pytest.raises(JobFailed, match="no service `databse`; did you mean one of these: database"):
        env.submit(autostop=True)
    env = LocalEnvironment("method")
    env.register_service("db", Store)
    env.from_batch([1]).sink(Breaks, "db", "proces")
    with pytest.raises(JobFailed, match="proces"):
        env.submit(autostop=True)


@pytest.mark.parametrize("hook", ["init", "setup", "start", "stop", "cleanup"])
def test_a_hook_that_raises_keeps_no_service_from_its_cleanup(hook: str) -> None:
    env = LocalEnvironment("hooks")
    env.register_service("other", Store)
    env.register_service("db", Store, fails_in=hook)
    env.from_batch([1]).sink(Save)
    with pytest.raises(JobFailed, match=f"{hook} broke") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, OSError) or hook in ("stop", "cleanup")
    assert events.count("other cleanup") == 1
    assert events.count("db cleanup") == (0 if hook == "init" else 1)
    assert (f"saved {10}" in events) == (hook in ("stop", "cleanup"))


class Outer(BaseService):
    def setup(self) -> None:
        events.append(f"outer sees {self.call_service('db', 'x')}")

    def cleanup(self) -> None:
        events.append("outer cleanup")


def test_who_uses_a_service_is_cleaned_before_it() -> None:
    env = LocalEnvironment("nested")
    env.register_service("db", Store)
    env.register_service("outer", Outer)
    env.from_batch([1]).sink(lambda _: None)
    env.submit(autostop=True)
    assert events.index("outer sees 1") < events.index("outer cleanup") < events.index("db cleanup")


class Slow(BaseService):
    def process(self, seconds: float) -> str:
        released.wait(seconds)
        return "answer"


released = threading.Event()


class Asks(SinkFunction):
    def __init__(self, how: str) -> None:
        self.how = how

    def execute(self, seconds: float) -> None:
        if self.how == "timeout":
            self.call_service("slow", seconds, timeout=0.05)
        future = self.call_service_async("slow", seconds)
        if self.how == "awaited":
            events.append(future.result(timeout=30))
            assert future.done()


def asks(how: str, seconds: float) -> LocalEnvironment:
    released.clear()
    env = LocalEnvironment("slow")
    env.register_service("slow", Slow)
    env.from_batch([seconds]).sink(Asks, how)
    return env


def test_an_asynchronous_call_gives_a_future() -> None:
    asks("awaited", 0.01).submit(autostop=True)
    assert events == ["answer"]


def test_an_asynchronous_call_that_nobody_awaits_holds_the_job_up_no_longer_than_it_takes() -> None:
    began = time.monotonic()
    asks("forgotten", 0.2).submit(autostop=True)
    assert time.monotonic() - began < 5


def test_a_call_that_takes_longer_than_its_timeout_raises() -> None:
    env = asks("timeout", 1.0)
    with pytest.raises(JobFailed, match="`slow` did not answer `process` within 0.05 s") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, TimeoutError)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    env = LocalEnvironment("timeout")
    env.register_service("db", Store)
    env.from_batch([1]).sink(CallsWithin, timeout)
    with pytest.raises(JobFailed, match="a timeout is more than 0 seconds"):
        env.submit(autostop=True)


class CallsWithin(SinkFunction):
    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    def execute(self, record: Any) -> None:
        self.call_service("db", record, timeout=self.timeout)


class Failing(BatchFunction):
    def execute(self) -> Any:
        raise ValueError("no input")


def test_services_are_cleaned_when_the_job_fails() -> None:
    env = LocalEnvironment("failing")
    env.register_service("db", Store)
    env.from_batch(Failing).sink(Save)
    with pytest.raises(JobFailed, match="no input"):
        env.submit(autostop=True)
    assert events == ["db init", "db setup", "db start", "db stop", "db cleanup"]
