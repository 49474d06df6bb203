"""What does not come back by its deadline is named, with the Python stack of the thread it is stuck in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, SinkFunction

DEADLINES = {name: 0.3 for name in ("setup", "drain", "cancel", "stop", "cleanup")}

gate = threading.Event()


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    """Lets what hangs end when its test is over, so that it leaves no thread."""
    gate.clear()
    yield
    gate.set()


def hang_here() -> None:
    gate.wait()


class Hanging(BaseService):
    hook = ""
    seen: list[str]

    def __init__(self) -> None:
        self.at("__init__")

    def at(self, name: str) -> None:
        type(self).seen.append(name)
        if name == self.hook:
            hang_here()

    def setup(self) -> None:
        self.at("setup")

    def start(self) -> None:
        self.at("start")

    def stop(self) -> None:
        self.at("stop")

    def cleanup(self) -> None:
        self.at("cleanup")


def failure(env: LocalEnvironment) -> JobFailed:
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    return failed.value


def check_stack(failed: JobFailed, function: str, says: str = "did not come back within 300ms") -> None:
    for text in (str(failed), str(failed.report)):
        assert says in text
        lines = [line.strip() for line in text.splitlines()]
        here = [line.startswith(f'File "{__file__}"') and line.endswith(f"in {function}") for line in lines]
        at = [index for index, is_here in enumerate(here) if is_here]
        assert at, text
        assert any(line.endswith("in hang_here") for line in lines[at[0] :]), text
        # What led there is no part of the program.
        assert "/sage/_" not in text and "<sage chain" not in text


@pytest.mark.parametrize("hook", ["__init__", "setup", "start", "stop", "cleanup"])
def test_a_hook_that_hangs(hook: str) -> None:
    class Stuck(Hanging):
        seen: list[str] = []

    Stuck.hook = hook
    env = LocalEnvironment("stuck", config={"timeouts": DEADLINES})
    env.register_service("db", Stuck)
    records = env.from_batch([1]).collect()
    failed = failure(env)
    check_stack(failed, hook)
    assert "service `db`" in str(failed)
    assert failed.report.services["db"]["state"] == "abandoned"
    assert records == ([1] if hook in ("stop", "cleanup") else [])
    # Cleaned once as well where another hook hangs; where the constructor does, when it comes back.
    assert Stuck.seen.count("cleanup") == (0 if hook == "__init__" else 1)


class HangingSink(SinkFunction):
    def execute(self, record: Any) -> None:
        hang_here()


def hang(_: Any) -> Any:
    hang_here()


@pytest.mark.parametrize(("kind", "function"), [("map", "hang"), ("sink", "execute"), ("source", "tick")])
def test_a_function_that_hangs(kind: str, function: str) -> None:
    reached = threading.Event()

    def mark(record: Any) -> Any:
        reached.set()
        return record

    def tick() -> Any:
        reached.set()
        hang_here()

    class Db(BaseService):
        cleaned = 0

        def cleanup(self) -> None:
            Db.cleaned += 1

    env = LocalEnvironment("stuck", config={"timeouts": DEADLINES})
    env.register_service("db", Db)
    if kind == "map":
        env.from_batch([1]).map(mark).map(hang).sink(print)
    elif kind == "sink":
        env.from_batch([1]).map(mark).sink(HangingSink)
    else:
        env.from_source(tick).sink(print)
    job = env.submit()
    reached.wait()
    job.cancel()
    with pytest.raises(JobFailed) as failed:
        job.wait()
    check_stack(failed.value, function)
    assert Db.cleaned == 1


class HangingStore(BaseService):
    reached: threading.Semaphore

    def search(self, query: Any) -> None:
        self.reached.release()
        hang_here()

    def search_through(self, query: Any) -> None:
        self.call_service_async("other", query, method="search").result()


class Searching(SinkFunction):
    how: str
    calls = 1

    def execute(self, record: Any) -> None:
        if self.how == "plain":
            self.call_service("db", record, method="search")
        elif self.how == "timeout":
            self.call_service("db", record, method="search", timeout=0.05)
        else:
            method = "search_through" if self.how == "through another" else "search"
            for _ in range(self.calls):
                self.call_service_async("db", record, method=method)
            for _ in range(self.calls):
                HangingStore.reached.acquire()


def searching(how: str, calls: int = 1) -> LocalEnvironment:
    HangingStore.reached = threading.Semaphore(0)
    env = LocalEnvironment("stuck", config={"timeouts": DEADLINES})
    for name in ("other", "db"):
        env.register_service(name, HangingStore)
    env.from_batch([1]).sink(type("Search", (Searching,), {"how": how, "calls": calls}))
    return env


@pytest.mark.parametrize("how", ["asynchronous", "timeout", "through another"])
def test_a_call_of_a_service_that_hangs_on_another_thread(how: str) -> None:
    failed = failure(searching(how))
    says = "1 call was still inside; its value is not freed under them, here:"
    check_stack(failed, "search_through" if how == "through another" else "search", says)
    assert failed.report.services["db"]["state"] == "abandoned"
    assert isinstance(failed.__cause__, TimeoutError) == (how == "timeout")


def test_a_call_of_a_service_that_hangs_on_the_thread_of_its_operator() -> None:
    job = searching("plain").submit()
    HangingStore.reached.acquire()
    job.cancel()
    with pytest.raises(JobFailed) as failed:
        job.wait()
    check_stack(failed.value, "execute")
    check_stack(failed.value, "search")


def test_of_many_calls_that_hang_a_few_are_told() -> None:
    text = str(failure(searching("asynchronous", 5)))
    assert "5 calls were still inside" in text
    assert text.count("in search\n") == 3 and "and 2 more" in text


def test_what_comes_back_late_is_cleaned_once() -> None:
    class Late(Hanging):
        hook = "__init__"
        seen: list[str] = []
        over = threading.Event()

        def cleanup(self) -> None:
            super().cleanup()
            self.over.set()

    env = LocalEnvironment("late", config={"timeouts": DEADLINES})
    env.register_service("db", Late)
    env.from_batch([1]).sink(print)
    failure(env)
    gate.set()
    assert Late.over.wait(10)
    assert Late.seen == ["__init__", "cleanup"]
