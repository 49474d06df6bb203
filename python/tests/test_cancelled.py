"""Jobs that are cancelled while their operators keep records and states: nothing of them may live on."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from sage import CoProcessFunction, Count, DataStream, DeadLetter, JobFailed, KeyContext, KeyedStream, LocalEnvironment


class Held:
    """A record that can be watched."""


class Keeps(CoProcessFunction):
    """Keeps the records of all streams, and a timer that never comes."""

    def on_record0(self, record: Held, key: KeyContext) -> None:
        key.state = [*(key.state or [])[:100], record]
        key.set_timer(1e10, clock=True)
        key.push(record)

    on_record1 = on_record0


def keyed(stream: DataStream) -> KeyedStream:
    return stream.keyby(lambda record: "k")


def expiring(stream: DataStream) -> DataStream:
    return keyed(stream).map_with_state(None, lambda kept, record: (record, record), expire_after=60)


def distinct(stream: DataStream) -> DataStream:
    return stream.keyby(lambda record: record).distinct(expire_after=60)


def zipped(stream: DataStream) -> DataStream:
    # One is ahead of the other by as many records as there are.
    return stream.zip(stream.filter(lambda record: False)).map(lambda pair: pair[0])


def split(stream: DataStream) -> DataStream:
    one, other = stream.split(lambda record: id(record) % 64 > 16)
    other.sink(lambda record: None)
    return one


def letters(stream: DataStream) -> DataStream:
    dead = DeadLetter()

    def fails(record: Held) -> Held:
        raise ValueError("none")

    stream.map(fails, on_error=dead).sink(lambda record: None)
    return dead.letters.map(lambda letter: letter.record)


def connected(stream: DataStream) -> DataStream:
    return keyed(stream).connect(keyed(stream)).coprocess(Keeps)


def folded(stream: DataStream) -> DataStream:
    windows = keyed(stream).window(Count(1_000_000))
    return windows.fold(None, lambda kept, record: record)


@pytest.mark.parametrize("operator", [expiring, distinct, zipped, split, letters, connected, folded])
def test_a_cancelled_job_frees_what_its_operators_kept(operator: Callable[[DataStream], DataStream]) -> None:
    watched: list[weakref.ref[Held]] = []
    enough = threading.Event()

    def make() -> Held:
        record = Held()
        watched.append(weakref.ref(record))
        if len(watched) == 5000:
            enough.set()
        return record

    def cancelled() -> None:
        env = LocalEnvironment("cancelled")
        operator(env.from_source(make)).sink(lambda record: None)
        job = env.submit()
        assert enough.wait(30)
        job.cancel()
        with pytest.raises(JobFailed, match="cancelled"):
            job.wait()

    cancelled()
    gc.collect()
    assert len(watched) >= 5000 and not any(record() for record in watched)
