"""Calls of services that wait for a thread: how many may, and that nobody waits for ever."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, ServiceError, SinkFunction

#: As many calls are under way at once.
THREADS = 64


class Slow(BaseService):
    """Keeps its calls inside until they are let go, one by one or all together."""

    def __init__(self) -> None:
        self.calls = 0
        self.lock = threading.Lock()
        self.full = threading.Event()
        self.let_go = threading.Semaphore(0)

    def stop(self) -> None:
        self.let_go.release(10_000)

    def process(self) -> None:
        with self.lock:
            self.calls += 1
            if self.calls == THREADS:
                self.full.set()
        assert self.let_go.acquire(timeout=60)

    def itself(self) -> Slow:
        return self


def environment(do: Any, most: int = 1000, **services: type) -> LocalEnvironment:
    """An environment with these services and one record, for which ``do`` is called with its sink."""

    class Does(SinkFunction):
        def execute(self, _: Any) -> None:
            do(self)

    env = LocalEnvironment("queued", {"most_queued_calls": most})
    for name, service in services.items():
        env.register_service(name, service)
    env.from_batch([1]).sink(Does)
    return env


def fill(sink: SinkFunction, more: int) -> tuple[Slow, list[Any]]:
    """Has all threads be inside the service, and some more calls wait for one."""
    slow = sink.call_service("slow", method="itself")
    futures = [sink.call_service_async("slow") for _ in range(THREADS)]
    assert slow.full.wait(60)
    return slow, futures + [sink.call_service_async("slow") for _ in range(more)]


def test_one_call_too_many_waits_until_there_is_room() -> None:
    told: list[str] = []

    def do(sink: SinkFunction) -> None:
        slow, futures = fill(sink, 2)
        is_back = threading.Event()

        def look() -> None:
            # That this thread runs at all shows that who waits does not hold the interpreter.
            told.append("back too early" if is_back.wait(0.2) else "waits")
            slow.let_go.release()

        other = threading.Thread(target=look)
        other.start()
        futures.append(sink.call_service_async("slow"))
        is_back.set()
        other.join()
        told.append("back")
        slow.let_go.release(100)
        assert [future.result(60) for future in futures] == [None] * (THREADS + 3)

    environment(do, 2, slow=Slow).submit(autostop=True)
    assert told == ["waits", "back"]


def test_a_timeout_bounds_the_wait_for_room_as_well() -> None:
    def do(sink: SinkFunction) -> None:
        slow, futures = fill(sink, 1)
        with pytest.raises(TimeoutError, match="`slow` did not answer `process` within 0.02 s"):
            sink.call_service_async("slow", timeout=0.02)
        with pytest.raises(TimeoutError, match="`slow` did not answer `process` within 0.02 s"):
            sink.call_service("slow", timeout=0.02)
        slow.let_go.release(100)
        for future in futures:
            future.result(60)
        assert slow.calls == THREADS + 1

    environment(do, 1, slow=Slow).submit(autostop=True)


def test_calls_that_nobody_waits_for_any_more_take_no_room() -> None:
    def do(sink: SinkFunction) -> None:
        slow, futures = fill(sink, 0)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                sink.call_service("slow", timeout=0.02)
        futures.append(sink.call_service_async("slow", timeout=20))
        slow.let_go.release(100)
        for future in futures:
            future.result(60)

    environment(do, 1, slow=Slow).submit(autostop=True)


def test_who_waits_for_room_is_roused_when_the_job_is_cancelled() -> None:
    about_to = threading.Event()

    def do(sink: SinkFunction) -> None:
        fill(sink, 1)
        about_to.set()
        sink.call_service_async("slow")

    job = environment(do, 1, slow=Slow).submit()
    assert about_to.wait(60)
    job.cancel()
    with pytest.raises(JobFailed):
        job.wait(60)
    assert job.report.data["left"] == [], "the task ended by itself"


def test_a_service_that_is_called_so_does_not_wait_for_room_that_it_is_to_make() -> None:
    together = threading.Barrier(THREADS, timeout=60)
    told: list[str] = []

    class Calls(BaseService):
        def process(self) -> None:
            together.wait()  # all threads are here
            try:
                self.call_service_async("plain")
                told.append("queued")
            except ServiceError as error:
                told.append(str(error))
            together.wait()

    class Plain(BaseService):
        def process(self) -> None:
            pass

    def do(sink: SinkFunction) -> None:
        for future in [sink.call_service_async("calls") for _ in range(THREADS)]:
            future.result(60)

    environment(do, 1, calls=Calls, plain=Plain).submit(autostop=True)
    assert told.count("queued") == 1 and len(told) == THREADS
    told.remove("queued")
    assert all("64 calls of services are under way and 1 wait for a thread, which is the most" in text for text in told)


def test_services_that_all_wait_for_calls_without_a_thread_make_them_themselves() -> None:
    together = threading.Barrier(THREADS, timeout=60)
    results: list[int] = []

    class Deep(BaseService):
        def process(self, depth: int, is_first: bool = False) -> int:
            if is_first:
                together.wait()
            if depth == 0:
                return 0
            return 1 + int(self.call_service_async("deep", depth - 1).result())

    def do(sink: SinkFunction) -> None:
        futures = [sink.call_service_async("deep", 3, True) for _ in range(THREADS)]
        results.extend(future.result() for future in futures)

    job = environment(do, deep=Deep).submit()
    assert job.wait(60) is not None, "they wait for each other"
    assert results == [3] * THREADS


@pytest.mark.parametrize("most", [0, -1, 2.5, "many", None, 10**8])
def test_a_limit_that_is_none_is_refused(most: Any) -> None:
    env = environment(print, most)
    with pytest.raises(ValueError, match="`most_queued_calls` is a whole number from 1 to 10,000,000"):
        env.submit()
    assert not env.is_running
