"""The pace of sources and batches: `delay`, `progress_log_interval`, `total_count`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sage import BatchFunction, DataStream, LocalEnvironment, SinkFunction, SourceFunction, StopSignal
from sage._metronome import Lock
from sage._pace import Paced
from sage._sage import Wait


class Polled(SourceFunction):
    """Notes when it is called; has nothing the second time."""

    def __init__(self, times: list[float], most: int = 4, **more: Any) -> None:
        assert not more
        self.times, self.most = times, most

    def execute(self) -> Any:
        self.times.append(time.monotonic())
        n = len(self.times)
        return None if n == 2 else n if n <= self.most else StopSignal()


class Batch(BatchFunction):
    def __init__(self, times: list[float]) -> None:
        self.times = times

    def execute(self) -> Any:
        self.times.append(time.monotonic())
        return len(self.times) if len(self.times) < 4 else None


def noted(times: list[float]) -> Any:
    def call() -> Any:
        times.append(time.monotonic())
        return len(times) if len(times) < 4 else StopSignal()

    return call


WAYS: dict[str, Callable[[LocalEnvironment, list[float], float], DataStream]] = {
    "source": lambda env, times, delay: env.from_source(Polled, times, most=3, delay=delay),
    "batch": lambda env, times, delay: env.from_batch(Batch, times, delay=delay),
    "callable": lambda env, times, delay: env.from_source(noted(times), delay=delay),
    "retried": lambda env, times, delay: env.from_source(noted(times), delay=delay, retry=2),
    "iterator": lambda env, times, delay: env.from_batch(iter(noted(times), None), delay=delay).take(3),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_delay_is_between_two_polls(way: str) -> None:
    env, times = LocalEnvironment("slow"), list[float]()
    WAYS[way](env, times, 0.03).collect()
    env.submit(autostop=True)
    assert len(times) >= 3
    assert all(later - before >= 0.03 for before, later in zip(times, times[1:]))


def test_a_list_is_given_at_a_pace_as_well() -> None:
    env, times = LocalEnvironment("list"), list[float]()
    got = env.from_batch([1, None, 3], delay=0.03).map(lambda n: times.append(time.monotonic()) or n, keep_none=True)
    records = got.collect()
    began = time.monotonic()
    env.submit(autostop=True)
    # When a record is taken does not say when it was given, but never is it before.
    assert records == [1, None, 3] and all(taken - began >= 0.03 * n for n, taken in enumerate(times))


@pytest.mark.parametrize("end", ["drain", "cancel"])
def test_a_long_delay_holds_nothing_up(end: str) -> None:
    env, come = LocalEnvironment("long"), threading.Event()
    env.from_batch([1, 2], delay=3600).sink(lambda n: come.set())
    job = env.submit()
    assert come.wait(10)
    began = time.monotonic()
    getattr(job, end)()
    try:
        job.wait()
    except RuntimeError:
        assert end == "cancel"
    assert time.monotonic() - began < 5


def test_a_delay_is_one_wait_however_long_and_whatever_wakes_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[Any] = []
    ask = Paced.__next__
    monkeypatch.setattr(Paced, "__next__", lambda paced: (polls.append(ask(paced)), polls[-1])[1])
    env, come = LocalEnvironment("idle"), threading.Event()
    env.from_batch([1, 2], delay=3600).sink(lambda n: come.set())
    job = env.submit()
    assert come.wait(10)
    for _ in range(3):
        # Each wakes the source, which then waits on.
        job.pause()
        job.resume()
    job.drain()
    job.wait()
    # A job that is told to end at once may do so before the wait.
    assert polls[0] == 1 and len(polls) <= 2 and all(type(poll) is Wait for poll in polls[1:])


def test_nobody_looks_again_and_again_whether_a_metronome_was_released() -> None:
    class Looked(Lock):
        looks = 0

        def awaited(self) -> Any:
            self.looks += 1
            return super().awaited()

    lock = Looked("slow")

    class Ask(BatchFunction):
        use_metronome = True
        metronome = lock
        n = 0

        def execute(self) -> Any:
            self.n += 1
            return self.n if self.n < 4 else None

    class Answer(SinkFunction):
        use_metronome = True
        metronome = lock

        def execute(self, n: int) -> None:
            got.append(n)

    got: list[int] = []
    env = LocalEnvironment("locked")
    env.from_batch(Ask).sink(Answer)
    job = env.submit()
    job.pause()
    job.resume()
    lock.release_once()
    job.wait()
    # Once before each poll, and once more where it had to wait.
    assert got == [1, 2, 3] and lock.looks <= 8


class WithDelay(Batch):
    def __init__(self, times: list[float], delay: float = 7.0, total_count: int = 8) -> None:
        super().__init__(times)
        self.got = delay, total_count
        GOT.append(self.got)


GOT: list[tuple[float, int]] = []


def test_the_constructor_never_gets_them(caplog: pytest.LogCaptureFixture) -> None:
    env = LocalEnvironment("own")
    env.from_batch(WithDelay, [], delay=0.0, total_count=3).collect()
    env.from_source(WithDelay, [], delay=0.0, total_count=3).take(3).collect()
    env.submit(autostop=True)
    assert GOT == [(7.0, 8)] * 2


def test_progress_is_logged_when_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sage"):
        env = LocalEnvironment("progress")
        env.from_batch(range(7), name="some", progress_log_interval=3, total_count=7).collect()
        env.from_batch(range(4), name="silent", total_count=4).collect()
        env.submit(autostop=True)
    lines = [record.message for record in caplog.records if record.name == "sage.progress.some"]
    assert lines == ["3 records read of 7", "6 records read of 7", "7 records read of 7"]
    assert not [record for record in caplog.records if record.name == "sage.progress.silent"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"delay": -1}, "`delay`"), ({"delay": ""}, "`delay`"), ({"total_count": "many"}, "`total_count`")],
)
def test_what_cannot_be_a_pace_is_an_error(wrong: dict[str, Any], said: str) -> None:
    env = LocalEnvironment("wrong")
    for declare in (lambda: env.from_batch([1], **wrong), lambda: env.from_source(Polled, [], **wrong)):
        with pytest.raises(ValueError, match=said):
            declare()
