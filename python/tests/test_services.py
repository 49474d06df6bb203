"""Services: their life, their calls, and that they are cleaned whatever happens."""

from __future__ import annotations

import contextvars
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from sage import BaseService, BatchFunction, JobFailed, LocalEnvironment, ServiceError, SinkFunction

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


class Worker(BaseService):
    """Counts how many calls are inside at once, and waits until the test lets them go."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.most = self.calls = 0
        self.full = threading.Event()
        self.released = threading.Event()

    def stop(self) -> None:
        self.released.set()

    def process(self, wait: bool = True) -> str:
        with self.lock:
            self.calls += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside == 64:
                self.full.set()
        if wait:
            assert self.released.wait(60)
        with self.lock:
            self.inside -= 1
        return threading.current_thread().name

    def read(self) -> Worker:
        return self


def using(*services: tuple[str, type], do: Any) -> LocalEnvironment:
    """An environment with these services and one record, for which a function that may call services is run."""

    class Does(SinkFunction):
        def execute(self, _: Any) -> None:
            do(self)

    env = LocalEnvironment("using")
    for name, service in services:
        env.register_service(name, service)
    env.from_batch([1]).sink(Does)
    return env


def test_at_most_64_asynchronous_calls_are_inside_and_the_others_wait_their_turn() -> None:
    def do(sink: SinkFunction) -> None:
        worker = sink.call_service("worker", method="read")
        futures = [sink.call_service_async("worker") for _ in range(100)]
        assert worker.full.wait(60)
        assert worker.most == 64 and not any(future.done() for future in futures)
        worker.released.set()
        events.extend({future.result(60) for future in futures})
        assert worker.most == 64 and worker.calls == 100

    using(("worker", Worker), do=do).submit(autostop=True)
    assert len(events) >= 1


def test_a_caller_whose_time_is_up_leaves_the_queue_and_its_call_is_never_made() -> None:
    def do(sink: SinkFunction) -> None:
        worker = sink.call_service("worker", method="read")
        futures = [sink.call_service_async("worker") for _ in range(64)]
        assert worker.full.wait(60)
        with pytest.raises(TimeoutError, match="`worker` did not answer `process` within 0.02 s"):
            sink.call_service("worker", timeout=0.02)
        worker.released.set()
        for future in futures:
            future.result(60)
        assert sink.call_service("worker", False, timeout=60)
        assert worker.calls == 65

    using(("worker", Worker), do=do).submit(autostop=True)


def test_calls_that_had_not_begun_when_the_service_stops_are_refused() -> None:
    futures: list[Any] = []

    def do(sink: SinkFunction) -> None:
        worker = sink.call_service("worker", method="read")
        futures.extend(sink.call_service_async("worker") for _ in range(70))
        assert worker.full.wait(60)

    using(("worker", Worker), do=do).submit(autostop=True)
    ended = [future for future in futures if future.done()]
    assert len(ended) == 70
    refused = 0
    for future in futures:
        try:
            future.result(1)
        except ServiceError as error:
            assert "not serving" in str(error)
            refused += 1
    assert refused == 6


def test_no_thread_is_left_when_submit_returns() -> None:
    def do(sink: SinkFunction) -> None:
        worker = sink.call_service("worker", method="read")
        futures = [sink.call_service_async("worker") for _ in range(64)]
        assert worker.full.wait(60)
        worker.released.set()
        for future in futures:
            future.result(60)

    for _ in range(20):
        using(("worker", Worker), do=do).submit(autostop=True)
        names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
        assert "sage-call" not in names


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


class Reads(BaseService):
    def process(self) -> str:
        seen = variable.get()
        variable.set("the service's")
        return seen


def test_a_call_on_another_thread_sees_the_callers_context_variables_and_sets_its_own() -> None:
    def do(sink: SinkFunction) -> None:
        variable.set("the caller's")
        events.append(sink.call_service("reads", timeout=30))
        events.append(sink.call_service_async("reads").result(30))
        events.append(variable.get())

    using(("reads", Reads), do=do).submit(autostop=True)
    assert events == ["the caller's"] * 3


def test_a_call_on_another_thread_notices_who_uses_whom() -> None:
    class Later(BaseService):
        def setup(self) -> None:
            self.call_service("db", "x", timeout=30)

        def process(self) -> None:
            self.call_service_async("other", "x").result(30)

        def cleanup(self) -> None:
            events.append("later cleanup")

    using(
        ("later", Later),
        ("db", Store),
        ("other", Store),
        do=lambda sink: sink.call_service("later", timeout=30),
    ).submit(True)
    cleaned = [event for event in events if "cleanup" in event]
    assert cleaned[0] == "later cleanup" and len(cleaned) == 3


def test_an_exception_of_a_call_with_a_timeout_keeps_type_and_traceback() -> None:
    env = using(("db", Store), do=lambda sink: sink.call_service("db", method="broken", timeout=30))
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert type(failed.value.__cause__) is LookupError
    assert traceback.extract_tb(failed.value.__cause__.__traceback__)[-1].name == "broken"


def test_arguments_by_name_reach_the_method_however_it_is_called() -> None:
    class Named(BaseService):
        def process(self, *args: int, key: int, **others: int) -> tuple[Any, ...]:
            return args, key, others

    def do(sink: SinkFunction) -> None:
        wanted = ((1, 2), 3, {"other": 4})
        by_name: dict[str, Any] = {"key": 3, "other": 4, "method": "process"}
        for _ in range(2):
            assert sink.call_service("named", 1, 2, key=3, other=4) == wanted
            assert sink.call_service("named", 1, 2, key=3, method="process", timeout=None, other=4) == wanted
            assert sink.call_service("named", 1, 2, key=3, timeout=30, other=4) == wanted
            assert sink.call_service("named", *[1, 2], **by_name) == wanted
            assert sink.call_service["named"].process(1, 2, key=3, other=4) == wanted
            assert sink.call_service_async("named", 1, 2, key=3, other=4).result(30) == wanted
        with pytest.raises(TypeError, match="key"):
            sink.call_service("named", 1)

    using(("named", Named), do=do).submit(autostop=True)


def test_a_future_may_be_asked_again_and_by_others() -> None:
    def do(sink: SinkFunction) -> None:
        worker = sink.call_service("worker", method="read")
        future = sink.call_service_async("worker", timeout=0.02)
        with pytest.raises(TimeoutError, match="within 0.02 s"):
            future.result()
        assert not future.done()
        worker.released.set()
        assert future.result(30) == future.result(30)

    using(("worker", Worker), do=do).submit(autostop=True)


def test_a_job_that_was_not_waited_for_leaves_no_handle_to_its_services() -> None:
    class Asks(SinkFunction):
        def execute(self, _: Any) -> None:
            events.append(str(self.call_service("db", "x", timeout=30)))

    env = LocalEnvironment("again")
    env.register_service("db", Store)
    env.from_batch([1]).sink(Asks)
    for _ in range(3):
        job = env.submit()
        assert job.report.outcome == "succeeded"
    assert [event for event in events if event.isdigit()] == ["1", "1", "1"]


STUCK = """
import threading, time
from sage import BaseService, LocalEnvironment, SinkFunction

class Stuck(BaseService):
    def process(self):
        print("inside", flush=True)
        threading.Event().wait()

class Asks(SinkFunction):
    def execute(self, _):
        try:
            self.call_service("stuck", timeout=0.05)
        except TimeoutError:
            print("timeout", flush=True)

env = LocalEnvironment("stuck", {"timeouts": {"stop": 0.1, "cleanup": 0.1}})
env.register_service("stuck", Stuck)
env.from_batch([1]).sink(Asks)
try:
    env.submit(autostop=True)
except Exception as error:
    print(type(error).__name__, flush=True)
"""


def test_a_call_that_never_returns_keeps_no_program_from_ending() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["inside", "timeout", "JobFailed"], done.stderr
    assert done.returncode == 0, done.stderr
