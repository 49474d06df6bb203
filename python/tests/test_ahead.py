"""What is read ahead of a step that is slow: how many records, and how many bytes."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sage import LocalEnvironment, SourceFunction

MEBIBYTE = 1 << 20


class Numbers:
    """Counts what is read of it."""

    def __init__(self, most: int = 2000, make: Callable[[int], Any] = lambda number: number) -> None:
        self.most = most
        self.make = make
        self.read = 0

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.most):
            self.read += 1
            yield self.make(number)


def reads(expected: int, most: int, env: LocalEnvironment, numbers: Numbers, let_go: Callable[[], object]) -> None:
    """So many records are read while the end of the pipeline is held up, `most` at the most."""
    job = env.submit()
    moment = threading.Event()
    try:
        for _ in range(3000):
            if numbers.read >= expected:
                break
            moment.wait(0.01)
        assert numbers.read >= expected
        # Whoever would read another one has the interpreter for itself meanwhile.
        moment.wait(0.1)
    finally:
        job.cancel()
        while job.state == "running":
            moment.wait(0.001)
        let_go()
        with pytest.raises(Exception, match="cancelled"):
            job.wait()
    assert expected <= numbers.read <= most


@pytest.mark.parametrize("parallelism", [1, 2])
def test_two_records_wait_for_each_replica_of_a_slow_sink(parallelism: int) -> None:
    """One is worked on, two wait; the source waits for the first replica that has no room."""
    env, numbers, gate = LocalEnvironment("sink"), Numbers(), threading.Event()
    env.from_batch(iter(numbers)).sink(lambda _number: gate.wait(30), parallelism=parallelism)
    reads(2 * parallelism + 1, 3 * parallelism, env, numbers, gate.set)


@pytest.mark.parametrize("is_async", [True, False])
def test_twice_as_many_as_are_in_flight_wait_for_a_slow_function(is_async: bool) -> None:
    env, numbers, gate = LocalEnvironment("in-flight"), Numbers(), threading.Event()

    async def ask(number: int) -> int:
        while not gate.is_set():
            await asyncio.sleep(0.01)
        return number

    def wait(number: int) -> int:
        gate.wait(30)
        return number

    env.from_batch(iter(numbers)).map(ask if is_async else wait, in_flight=16).collect()
    # The source waits for half of what may wait to be taken, which may have begun before all 16 were.
    reads(33, 48, env, numbers, gate.set)


def test_a_signal_finishes_the_few_that_were_read() -> None:
    env, numbers, calls = LocalEnvironment("signal"), Numbers(), 0

    async def ask(number: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 60:
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.02)
        while calls >= 60 and job.state == "running":
            await asyncio.sleep(0.001)
        return number

    answered = env.from_batch(iter(numbers)).map(ask, in_flight=16).collect()
    job = env.submit()
    with pytest.raises(KeyboardInterrupt):
        job.wait()
    # Those in flight, twice as many that waited, and what was answered before the job heard of the signal.
    assert calls - 60 <= 64
    assert len(answered) == calls == numbers.read


class FromQueue(SourceFunction):
    def __init__(self, messages: queue.SimpleQueue[int]) -> None:
        self.messages = messages

    def execute(self) -> int:
        return self.messages.get()


def test_a_take_reads_about_as_many_messages_as_it_takes() -> None:
    messages: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(10_000):
        messages.put(number)
    env = LocalEnvironment("take")
    taken = env.from_source(FromQueue, messages).take(5).collect()
    env.submit(autostop=True)
    assert taken == [0, 1, 2, 3, 4]
    assert messages.qsize() >= 10_000 - 12


def test_bytes_bound_what_waits() -> None:
    """A sink that is quick is held back by bytes alone."""
    env = LocalEnvironment("bytes", {"queue_bytes": 4 * MEBIBYTE})
    waiting, most = 0, 0
    lock = threading.Lock()

    def made(number: int) -> bytes:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        return b"x" * (MEBIBYTE // 4)

    def taken(_record: bytes) -> None:
        nonlocal waiting
        with lock:
            waiting -= 1

    env.from_batch(iter(Numbers(400, made))).sink(taken)
    env.submit(autostop=True)
    assert waiting == 0
    # 16 that wait, as many that the sink was handed and has not come to, and a few that are being pushed.
    assert most <= 40


@pytest.mark.parametrize(
    "record",
    [
        lambda: ("id", b"x" * MEBIBYTE),
        lambda: ["id", "x" * MEBIBYTE],
        lambda: {"id": 1, "text": "x" * MEBIBYTE},
        lambda: Document("x" * MEBIBYTE),
        lambda: Slotted("x" * MEBIBYTE),
        lambda: vars(document := Document("x" * MEBIBYTE)) and document,
        lambda: bytearray(MEBIBYTE),
        lambda: memoryview(bytearray(MEBIBYTE)),
    ],
    ids=["tuple", "list", "dict", "object", "slots", "dictionary of an object", "bytearray", "memoryview"],
)
def test_one_level_of_a_record_is_weighed(record: Callable[[], Any]) -> None:
    """Eight of them are more than may wait: the task that makes them is held back by bytes, though its sink is quick.
    """
    env, numbers, gate = LocalEnvironment("weighed", {"queue_bytes": 8 * MEBIBYTE}), Numbers(60), threading.Event()
    read = []

    def take(_record: Any) -> None:
        read.append(numbers.read)
        if len(read) == 30:
            gate.wait(30)

    numbers.make = lambda _number: record()
    env.from_batch(iter(numbers)).sink(take)
    job = env.submit()
    moment = threading.Event()
    for _ in range(3000):
        if len(read) == 30:
            break
        moment.wait(0.01)
    moment.wait(0.1)
    ahead = numbers.read - 30
    gate.set()
    job.wait()
    assert ahead <= 10, "more than 8 MiB waited"


class Document:
    def __init__(self, text: str) -> None:
        self.text = text


class Slotted:
    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


@pytest.mark.parametrize("record", [type, Document, len, [type, int, len], {1, 2}, iter([1]), ValueError("x"), None])
def test_anything_can_be_weighed(record: Any) -> None:
    env = LocalEnvironment("anything")
    records = env.from_batch(iter([record] * 3)).map(lambda it: it, parallelism=2, keep_none=True).collect()
    env.submit(autostop=True)
    assert len(records) == 3


def test_the_bytes_of_an_edge_are_checked() -> None:
    env = LocalEnvironment("none", {"queue_bytes": 0})
    env.from_batch([1]).sink(print)
    with pytest.raises(ValueError, match="queue_bytes"):
        env.submit()


def test_the_report_tells_what_held_a_step_back() -> None:
    env, numbers = LocalEnvironment("report"), Numbers(20)
    gate = threading.Event()
    env.from_batch(iter(numbers)).sink(lambda _number: gate.wait(0.005))
    job = env.submit(autostop=True)
    report = job.report.data
    assert report["operators"][0]["blocked_by"] == "pace"
    assert report["dropped"] == 0
