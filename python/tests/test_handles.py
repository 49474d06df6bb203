"""Typed handles of services: what they look like, when they work, and that nothing is kept by them."""

from __future__ import annotations

import asyncio
import gc
import inspect
import re
import sys
import threading
import traceback
import weakref
from pathlib import Path
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, ServiceError, ServiceHandle, SinkFunction, SubmitError

events: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    events.clear()


class Store(BaseService):
    limit = 3

    def __init__(self, first: int = 0, *, step: int = 1) -> None:
        self.count = first
        self.step = step

    def setup(self) -> None:
        events.append(f"{self.name} setup")

    def cleanup(self) -> None:
        events.append(f"{self.name} cleanup")

    def add(self, n: int, /, *more: int, times: int = 1, **named: int) -> int:
        self.count += (n + sum(more) + sum(named.values())) * times * self.step
        return self.count

    def search(self, text: str, k: int = 4) -> list[str]:
        return [text] * k

    def myself(self) -> Store:
        return self

    def broken(self) -> None:
        raise LookupError("no such row")

    def attributes(self) -> None:
        raise AttributeError("not of the service")

    async def later(self, n: int) -> int:
        await asyncio.sleep(0)
        return n + 1


def run(env: LocalEnvironment, function: Any, records: Any = (1,), **how: Any) -> list[Any]:
    """What a function makes of records."""
    results = env.from_batch(records).map(function, **how).collect()
    env.submit(autostop=True)
    return results


def test_a_handle_calls_the_service_with_all_kinds_of_arguments() -> None:
    env = LocalEnvironment("arguments")
    db = env.service("db", Store, (100,), {"step": 2})
    assert isinstance(db, ServiceHandle) and repr(db) == "<handle of service db>"

    def use(_: int) -> list[int]:
        named = {f"n{n}": n for n in range(10)}
        return [db.add(1), db.add(1, times=2), db.add(1, *range(20), times=1, **named), db.add(*[1], **{"times": 3})]

    assert run(env, use) == [[102, 106, 106 + 2 * (1 + 190 + 45), 106 + 2 * (1 + 190 + 45) + 6]]
    assert "add" in vars(db), "a method that was used is a plain attribute"


def test_a_method_of_a_handle_is_a_function_like_others() -> None:
    env = LocalEnvironment("method")
    db = env.service("db", Store)
    assert db.search.__name__ == "search" and "search of service db" in repr(db.search)
    assert list(run(env, db.search, ["a", "b"])) == [["a"] * 4, ["b"] * 4]


@pytest.mark.parametrize("policy", [{}, {"retry": 2, "timeout": 20}])
def test_an_async_method_of_a_handle_is_awaited_like_an_async_function(policy: dict[str, Any]) -> None:
    class Model:
        async def answer(self, n: int) -> int:
            return n + 1

    env = LocalEnvironment("awaited")
    model = env.service("model", Model, **policy)
    answers = env.from_batch(range(5)).map(model.answer, in_flight=2, ordered=True).collect()
    env.submit(autostop=True)
    assert answers == [1, 2, 3, 4, 5]
    with pytest.raises(TypeError, match="cannot come from an async function"):
        env.from_batch(range(5)).keyby(model.answer)


def test_a_handle_called_by_c_code_gets_its_arguments() -> None:
    # `map` lends no place before the arguments, which CPython's own calls do.
    env = LocalEnvironment("builtin")
    db = env.service("db", Store)
    assert run(env, lambda _: list(map(db.search, ["a", "b"], [1, 2]))) == [[["a"], ["b", "b"]]]


def test_a_handle_serves_lambdas_functions_and_services_and_the_use_is_noticed() -> None:
    class Outer(BaseService):
        def process(self, text: str) -> str:
            return "".join(db.search(text, k=2))

        def cleanup(self) -> None:
            events.append("outer cleanup")

    env = LocalEnvironment("captured")
    outer = env.service("outer", Outer)
    db = env.service("db", Store)
    assert run(env, lambda text: outer.process(text), ["x"]) == ["xx"]
    assert events == ["db setup", "outer cleanup", "db cleanup"]


@pytest.mark.parametrize("by", ["handle", "name", "both"])
def test_after_orders_start_and_cleanup(by: str) -> None:
    env = LocalEnvironment("after")
    one = env.service("one", Store)
    after: Any = {"handle": one, "name": "one", "both": [one, "zero"]}[by]
    env.service("two", Store, after=after)
    env.service("zero", Store)
    run(env, lambda n: n)
    assert events.index("one setup") < events.index("two setup")
    assert events.index("two cleanup") < events.index("one cleanup")


def test_what_after_cannot_mean_is_refused_before_anything_starts() -> None:
    env = LocalEnvironment("unknown")
    env.service("one", Store, after=["nobody"])
    env.from_batch([1]).collect()
    with pytest.raises(SubmitError, match="nobody"):
        env.submit(autostop=True)
    env = LocalEnvironment("cycle")
    env.service("one", Store, after=["two"])
    env.service("two", Store, after=["one"])
    env.from_batch([1]).collect()
    with pytest.raises(SubmitError, match="one"):
        env.submit(autostop=True)
    assert events == []
    other = LocalEnvironment("other").service("one", Store)
    with pytest.raises(ValueError, match="another environment"):
        env.service("three", Store, after=[other])
    with pytest.raises(TypeError, match="handles of services"):
        env.service("three", Store, after=[3])
    with pytest.raises(TypeError, match="needs a class"):
        env.service("three", Store())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="more than 0 seconds"):
        env.service("three", Store, timeout=0)


def test_before_and_after_a_job_a_handle_says_what_to_do() -> None:
    env = LocalEnvironment("outside")
    db = env.service("db", Store)
    search = db.search
    with pytest.raises(ServiceError, match="while a job of its environment runs"):
        search("a")
    run(env, search, ["a"])
    with pytest.raises(ServiceError, match="`db` can be called while a job"):
        search("a")


def test_a_handle_means_the_service_of_the_job_that_runs() -> None:
    env = LocalEnvironment("twice")
    db = env.service("db", Store)
    numbers = env.from_batch([1, 1]).map(db.add).collect()
    instances = env.from_batch([1]).map(lambda _: id(db.myself())).collect()
    for _ in range(2):
        env.submit(autostop=True)
    assert numbers == [1, 2, 1, 2]
    assert len(instances) == 2
    assert events.count("db cleanup") == 2


def test_a_stopped_service_refuses() -> None:
    refused: list[str] = []

    class Late(BaseService):
        """Calls the other one in its own cleanup, which comes afterwards."""

        def cleanup(self) -> None:
            for call in (
                lambda: db.search("a"),
                lambda: slow.search("a"),
                lambda: self.call_service("db", "a", method="search"),
            ):
                try:
                    call()
                except ServiceError as error:
                    refused.append(str(error))

    env = LocalEnvironment("stopped")
    env.service("late", Late)
    db = env.service("db", Store, after=["late"])
    slow = env.service("slow", Store, after=["late", "db"], timeout=5)
    run(env, lambda text: (db.search(text), slow.search(text)), ["a"])
    assert len(refused) == 3 and all("not serving" in text for text in refused), refused


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_what_a_method_raises_keeps_its_type_and_traceback(timeout: float | None) -> None:
    env = LocalEnvironment("raises")
    db = env.service("db", Store, timeout=timeout)
    env.from_batch([1]).sink(lambda _: db.broken())
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    cause = failed.value.__cause__
    assert type(cause) is LookupError
    assert traceback.extract_tb(cause.__traceback__)[-1].name == "broken"


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_method_that_does_not_exist_is_an_error_that_names_those_close(timeout: float | None) -> None:
    env = LocalEnvironment("missing")
    db = env.service("db", Store, timeout=timeout)
    env.from_batch([1]).sink(lambda _: db.serach("x"))  # type: ignore[attr-defined]
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, AttributeError)
    assert str(failed.value.__cause__) == "`Store` has no method `serach`; did you mean one of these: search?"


def test_an_attribute_error_of_a_method_is_left_alone() -> None:
    env = LocalEnvironment("attributes")
    db = env.service("db", Store)
    env.from_batch([1]).sink(lambda _: db.attributes())
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert str(failed.value.__cause__) == "not of the service"


def test_only_methods_are_had_through_a_handle() -> None:
    db = LocalEnvironment("methods").service("db", Store)
    with pytest.raises(AttributeError, match="`limit` of service `db` is not a method"):
        _ = db.limit
    with pytest.raises(AttributeError, match="cannot be set"):
        db.limit = 4
    assert not hasattr(db, "__len__") and not inspect.iscoroutinefunction(db)


def test_an_async_method_gives_its_coroutine() -> None:
    env = LocalEnvironment("async")
    db = env.service("db", Store)
    assert run(env, lambda n: asyncio.run(db.later(n)), [1, 2]) == [2, 3]


def test_a_method_that_a_service_replaces_is_the_new_one() -> None:
    class Lazy:
        def process(self, n: int) -> str:
            self.process = self._loaded  # type: ignore[method-assign]
            return "loads"

        def _loaded(self, n: int) -> str:
            return "is loaded"

    env = LocalEnvironment("lazy")
    lazy = env.service("lazy", Lazy)
    assert run(env, lambda n: lazy.process(n), range(3)) == ["loads", "is loaded", "is loaded"]


def test_a_service_may_call_itself() -> None:
    class Counts(BaseService):
        def down(self, n: int) -> int:
            return 0 if n == 0 else 1 + counts.down(n - 1)

        def named(self, n: int) -> int:
            return 0 if n == 0 else 1 + int(self.call_service("counts", n - 1, method="named", timeout=30))

    env = LocalEnvironment("itself")
    counts = env.service("counts", Counts)
    assert run(env, lambda n: (counts.down(n), counts.named(n)), [5]) == [(5, 5)]


def test_a_service_that_calls_itself_while_it_starts_fails_at_once() -> None:
    class Early(BaseService):
        def setup(self) -> None:
            early.ping()

        def ping(self) -> None: ...

    env = LocalEnvironment("early")
    early = env.service("early", Early)
    env.from_batch([1]).sink(lambda _: None)
    with pytest.raises(JobFailed, match="and neither has started"):
        env.submit(autostop=True)


def test_replicas_call_at_the_same_time_and_every_call_is_counted() -> None:
    both = threading.Barrier(2)

    class Meets(BaseService):
        def process(self, n: int) -> int:
            # The first two go to different replicas; of the others, as many as each has room for.
            if n < 2:
                both.wait(30)
            return n

    env = LocalEnvironment("replicas")
    meets = env.service("meets", Meets)
    tagged = env.from_batch(range(100)).keyby(lambda n: n, strategy="round_robin")
    results = tagged.map(meets.process, parallelism=2).collect()
    job = env.submit(autostop=True)
    assert sorted(results) == list(range(100))
    assert job.report.services["meets"]["calls"] == 100


def test_a_handle_works_from_the_thread_that_submitted() -> None:
    goes_on, served = threading.Event(), threading.Event()

    def hold(n: int) -> int:
        db.search("x")
        served.set()
        assert goes_on.wait(30)
        return n

    env = LocalEnvironment("background")
    db = env.service("db", Store)
    env.from_batch([1]).sink(hold)
    env.submit()
    assert served.wait(30)
    assert db.search("y", k=1) == ["y"]
    goes_on.set()
    env.wait()


def test_handles_keep_no_service_alive_and_are_collected() -> None:
    seen: list[weakref.ref[Store]] = []

    def job() -> weakref.ref[Any]:
        env = LocalEnvironment("collected")
        db = env.service("db", Store)
        mine = env.service("mine", Store, timeout=30)

        def look(n: int) -> int:
            seen.append(weakref.ref(db.myself()))
            seen.append(weakref.ref(mine.myself()))
            return n

        run(env, look)
        return weakref.ref(db)

    handle = job()
    gc.collect()
    assert len(seen) == 2 and all(ref() is None for ref in seen)
    assert handle() is None


def test_calls_leak_no_references() -> None:
    env = LocalEnvironment("references")
    db = env.service("db", Store)
    slow = env.service("slow", Store, timeout=30)
    marker = object()

    class Keeps(BaseService):
        def process(self, x: object, *, y: object = None) -> object:
            return x

    keeps = env.service("keeps", Keeps)
    late = env.service("late", Keeps, timeout=30)
    counted: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def use(_: int) -> None:
        def counts() -> tuple[int, ...]:
            return sys.getrefcount(marker), sys.getrefcount(db_itself), sys.getrefcount(kwarg)

        db_itself, kwarg = db.myself(), object()
        before = counts()
        for _ in range(1000):
            assert keeps.process(marker, y=kwarg) is marker
            assert list(map(keeps.process, [marker])) == [marker]
            assert db.myself() is db_itself
        for _ in range(100):
            assert late.process(marker, y=kwarg) is marker
            slow.search("x")
        counted.append((before, counts()))

    env.from_batch([1]).sink(use)
    env.submit(autostop=True)
    (before, after), = counted
    assert after == before


def test_a_hundred_thousand_handles_leave_no_memory() -> None:
    def allocated() -> int:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found
        return int(found[1]) << 10

    sizes: list[int] = []

    class Uses(SinkFunction):
        def execute(self, handles: int) -> None:
            for _ in range(handles):
                self.call_service["db"].search("x", k=1)
            sizes.append(allocated())

    env = LocalEnvironment("memory")
    env.service("db", Store)
    env.from_batch([10_000, 100_000]).sink(Uses)
    env.submit(autostop=True)
    assert sizes[1] - sizes[0] < 4 << 20
