"""Futures of asynchronous calls behave as those of `concurrent.futures`; and which method a call means."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest
from test_queued_calls import THREADS, Slow, environment, fill

from sage import BaseService, JobFailed, LocalEnvironment, SinkFunction


class Divider(BaseService):
    def process(self, n: int) -> float:
        return 1 / n


def test_a_future_has_its_result_or_its_exception() -> None:
    def do(sink: Any) -> None:
        good, bad = (sink.call_service_async("divider", n) for n in (2, 0))
        assert good.exception() is None and good.result() == 0.5
        assert isinstance(bad.exception(60), ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            bad.result()
        for future in (good, bad):
            assert future.done() and not future.running() and not future.cancelled() and not future.cancel()

    environment(do, divider=Divider).submit(autostop=True)


def test_a_call_that_has_not_begun_is_cancelled_and_one_that_runs_is_not() -> None:
    seen: list[Any] = []

    def do(sink: Any) -> None:
        slow, futures = fill(sink, 2)
        runs, waits, other = futures[0], futures[-2], futures[-1]
        waits.add_done_callback(lambda future: seen.append((future is waits, future.cancelled(), future.done())))
        assert runs.running() and not runs.cancel()
        assert waits.cancel() and waits.cancel() and waits.done() and not waits.running()
        for ask in (waits.result, waits.exception):
            with pytest.raises(CancelledError):
                ask()
        with pytest.raises(TimeoutError):
            other.exception(0.01)
        slow.let_go.release(100)
        assert [future.result(60) for future in futures if future is not waits] == [None] * (THREADS + 1)
        assert slow.calls == THREADS + 1

    environment(do, slow=Slow).submit(autostop=True)
    assert seen == [(True, True, True)]


def test_callbacks_are_called_in_their_order_when_the_call_is_over_or_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: raised.append(told.exc_value))

    def do(sink: Any) -> None:
        here = threading.current_thread()
        slow = sink.call_service("slow", method="itself")
        future = sink.call_service_async("slow")
        last = threading.Event()

        def note(name: str) -> Any:
            return lambda got: seen.append((name, got is future, got.result(), threading.current_thread() is here))

        future.add_done_callback(note("first"))
        future.add_done_callback(lambda _: 1 / 0)
        future.add_done_callback(note("second"))
        future.add_done_callback(lambda _: last.set())
        slow.let_go.release()
        assert last.wait(60)
        future.add_done_callback(note("at once"))
        future.add_done_callback(lambda _: [][0])

    environment(do, slow=Slow).submit(autostop=True)
    assert seen == [("first", True, None, False), ("second", True, None, False), ("at once", True, None, True)]
    assert [type(error) for error in raised] == [ZeroDivisionError, IndexError]


def test_a_callback_that_hangs_is_named_and_the_job_ends() -> None:
    hold, begun, added = threading.Event(), threading.Event(), threading.Event()

    class Waits(BaseService):
        def process(self) -> int:
            assert added.wait(60)
            return 1

    def hang(_: Any) -> None:
        begun.set()
        hold.wait()

    def do(sink: Any) -> None:
        future = sink.call_service_async("waits")
        future.add_done_callback(hang)
        added.set()
        assert begun.wait(60) and future.result() == 1

    env = environment(do, waits=Waits)
    env.config["timeouts"] = {"stop": 0.2, "cleanup": 0.2}
    try:
        with pytest.raises(JobFailed, match="(?s)waits.*in hang"):
            env.submit(autostop=True)
    finally:
        hold.set()


@pytest.mark.parametrize("names", [("process", "execute", "call"), ("execute", "call"), ("call",)])
def test_a_call_without_a_method_means_the_first_usual_one(names: tuple[str, ...]) -> None:
    service = type("Service", (), {name: (lambda self, n, name=name: (name, n)) for name in names})
    got: list[Any] = []

    def do(sink: Any) -> None:
        for n in range(2):
            got.append(sink.call_service("service", n))
            got.append(sink.call_service("service", n, method=None, timeout=None))
            got.append(sink.call_service("service", n, timeout=60))
            got.append(sink.call_service_async("service", n, method=None).result())

    environment(do, service=service).submit(autostop=True)
    assert got == [(names[0], n) for n in (0, 1) for _ in range(4)]


def test_a_service_with_none_of_the_usual_methods_is_named() -> None:
    env = LocalEnvironment()
    env.register_service("db", type("Db", (), {"search": lambda self, n: n, "call": 3}))
    env.from_batch([1]).sink(type("Ask", (SinkFunction,), {"execute": lambda self, n: self.call_service("db", n)}))
    with pytest.raises(JobFailed, match="`Db` has no method `process`; did you mean one of these: search"):
        env.submit(autostop=True)


def test_a_service_without_methods_has_none_that_was_meant() -> None:
    env = LocalEnvironment()
    env.register_service("db", object)
    env.from_batch([1]).sink(type("Ask", (SinkFunction,), {"execute": lambda self, n: self.call_service("db", n)}))
    with pytest.raises(JobFailed, match="`object` has no method `process`; it has none$"):
        env.submit(autostop=True)
