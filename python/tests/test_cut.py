"""Loops over records that are ended between two of them: whatever the mix of quick and slow records, what is asked of a
job is done, and what is ready goes on, as soon as the function that runs has returned."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage import (
    BaseCoMapFunction,
    Count,
    DataStream,
    JobFailed,
    KeyContext,
    LocalEnvironment,
    ProcessFunction,
    Session,
    Tumbling,
    ops,
)

#: It says of some containers what their records are.
pytestmark = pytest.mark.filterwarnings("ignore:`from_batch` of a")

#: Quick records, and then slow ones.
QUICK = 20_000


class Cold:
    """A function that is quick at first. It then stops each caller until it is let go on, for one record at a time."""

    def __init__(self, quick: int = QUICK) -> None:
        self.left = quick
        self.slow = 0
        self.is_slow = threading.Event()
        self.go_on = threading.Semaphore(0)
        self.is_over = False

    def __call__(self, record: Any, *_others: Any) -> Any:
        if self.left > 0:
            self.left -= 1
        elif not self.is_over:
            self.slow += 1
            self.is_slow.set()
            assert self.go_on.acquire(timeout=30)
            # Longer than a loop may go on, also on a busy machine.
            threading.Event().wait(0.1)
        return record


def mapped(stream: DataStream, cold: Cold) -> DataStream:
    return stream.map(cold)


def spread(stream: DataStream, cold: Cold) -> DataStream:
    return stream.map(cold, parallelism=2).map(lambda n: n)


def filtered(stream: DataStream, cold: Cold) -> DataStream:
    return stream.filter(cold)


def expanded(stream: DataStream, cold: Cold) -> DataStream:
    return stream.flatmap(lambda n: [n]).map(cold)


def in_one_record(stream: DataStream, cold: Cold) -> DataStream:
    return stream.take(1).flatmap(lambda n: range(2 * QUICK)).map(cold)


def in_a_list(stream: DataStream, cold: Cold) -> DataStream:
    return stream.take(1).flatmap(lambda n: [*range(2 * QUICK)]).map(lambda n: n).filter(lambda n: True).map(cold)


def nested(stream: DataStream, cold: Cold) -> DataStream:
    return stream.take(1).flatmap(lambda n: range(200)).flatmap(lambda n: range(200)).map(cold)


def keyed(stream: DataStream, cold: Cold) -> DataStream:
    return stream.keyby(lambda n: n % 7).map_with_state(0, lambda state, n: (state + 1, cold(n)))


def forgotten(stream: DataStream, cold: Cold) -> DataStream:
    return stream.keyby(lambda n: 0).map_with_state(0, lambda state, n: (state + 1, cold(n)), expire_after=60)


def at_the_end(stream: DataStream, cold: Cold) -> DataStream:
    return stream.keyby(lambda n: n).count().map(cold)


def after_a_fold(stream: DataStream, cold: Cold) -> DataStream:
    return stream.fold(0, lambda a, b: a + 1).flatmap(range).map(cold)


def in_a_fold(stream: DataStream, cold: Cold) -> DataStream:
    return stream.keyby(lambda n: 0).fold(0, cold)


def in_a_window(stream: DataStream, cold: Cold) -> DataStream:
    return stream.keyby(lambda n: 0).window(Count(2 * QUICK)).fold(0, cold)


def in_a_session(stream: DataStream, cold: Cold) -> DataStream:
    return stream.with_timestamps(lambda n: 0).keyby(lambda n: 0).window(Session(1)).sum(cold)


def behind_a_window(stream: DataStream, cold: Cold) -> DataStream:
    return stream.with_timestamps(lambda n: n).keyby(lambda n: 0).window(Tumbling(1)).count().map(cold)


class Process(ProcessFunction):
    def __init__(self, cold: Cold) -> None:
        self.cold = cold

    def on_record(self, record: int, key: KeyContext) -> None:
        key.set_timer(1e10 + record)

    def on_timer(self, timer: Any, key: KeyContext) -> None:
        self.cold(0)


def in_timers(stream: DataStream, cold: Cold) -> DataStream:
    return stream.with_timestamps(lambda n: n).keyby(lambda n: 0).process(Process, cold)


class Maps(BaseCoMapFunction):
    def __init__(self, cold: Cold) -> None:
        self.cold = cold

    def map0(self, n: int) -> Any:
        return self.cold(n)

    map1 = map0


def connected(stream: DataStream, cold: Cold) -> DataStream:
    return stream.connect(stream.filter(lambda n: False)).comap(Maps, cold)


def sunk(stream: DataStream, cold: Cold) -> DataStream:
    stream.sink(cold)
    return stream.filter(lambda n: False)


FORMS: list[Callable[[DataStream, Cold], DataStream]] = [
    *(mapped, spread, filtered, expanded, in_one_record, in_a_list, nested, keyed, forgotten, at_the_end),
    *(after_a_fold, in_a_fold, in_a_window, in_a_session, behind_a_window, in_timers, connected, sunk),
]


@pytest.mark.parametrize("form", FORMS)
def test_contract_27_a_cancel_is_obeyed_behind_the_record_that_is_worked_on(form: Callable[..., DataStream]) -> None:
    env = LocalEnvironment("cold", config={"timeouts": {"cancel": 20}})
    cold = Cold()
    form(env.from_batch(range(2 * QUICK)), cold).sink(lambda n: None)
    job = env.submit()
    assert cold.is_slow.wait(30)
    job.cancel()
    slow = cold.slow
    # For one record at a time, in each of two replicas, and one that began when the others were told.
    for _ in range(4):
        cold.go_on.release()
    with pytest.raises(JobFailed, match="cancelled") as failed:
        job.wait()
    assert cold.slow <= slow + 2
    assert "left" not in str(failed.value)


@pytest.mark.parametrize("kind", [lambda r: r, list, tuple, set, dict.fromkeys, lambda r: "x" * len(r)])
def test_contract_27_a_drain_ends_a_container_behind_the_record_that_is_worked_on(kind: Callable[..., Any]) -> None:
    env = LocalEnvironment("drained")
    cold = Cold()
    got = env.from_batch(kind(range(2 * QUICK)), name="all").map(cold).collect()
    job = env.submit()
    assert cold.is_slow.wait(30)
    job.drain()
    cold.go_on.release()
    cold.go_on.release()
    report = job.wait()
    assert report is not None and len(got) == QUICK + cold.slow <= QUICK + 2
    # What was taken is told, to the record.
    counts = {operator["name"]: operator["records_in"] for operator in report.data["operators"]}
    assert set(counts.values()) == {len(got)}


@pytest.mark.parametrize(
    "form",
    [mapped, expanded, in_one_record, in_a_list, nested, keyed, at_the_end, after_a_fold, behind_a_window],
)
def test_contract_27_results_that_are_ready_have_left(form: Callable[..., DataStream]) -> None:
    env = LocalEnvironment("ready")
    cold = Cold()
    arrived = 0
    all_quick, all_slow = threading.Event(), threading.Event()

    def take(_record: Any) -> None:
        nonlocal arrived
        arrived += 1
        if arrived >= QUICK:
            all_quick.set()
        if arrived >= QUICK + 1:
            all_slow.set()

    # In another task.
    form(env.from_batch(range(2 * QUICK)), cold).map(take, parallelism=2).sink(lambda n: None)
    job = env.submit()
    assert cold.is_slow.wait(30)
    # Behind the record that is worked on, those before it, and it itself.
    cold.go_on.release()
    assert all_quick.wait(60) and all_slow.wait(60)
    job.cancel()
    cold.is_over = True
    for _ in range(4):
        cold.go_on.release()
    with pytest.raises(JobFailed):
        job.wait()


@pytest.mark.parametrize("made", [itertools.count, lambda: itertools.repeat(0), lambda: iter(int, 1)])
def test_what_a_function_makes_of_one_record_may_be_endless(made: Callable[[], Any]) -> None:
    env = LocalEnvironment("endless")
    got = env.from_batch([1]).flatmap(lambda n: made()).take(5).collect()
    twice = env.from_batch([1, 2]).flatmap(lambda n: made()).flatmap(lambda n: [n] * 3).take(7).collect()
    env.submit(autostop=True)
    assert got == [*itertools.islice(made(), 5)]
    assert twice == [*itertools.islice((n for n in made() for _ in range(3)), 7)]


@pytest.mark.parametrize("of", [ops.identity(), ops.field("numbers")])
def test_what_a_record_has_inside_may_be_endless(of: ops.Op) -> None:
    env = LocalEnvironment("inside")
    records = [itertools.count()] if of.name == "identity" else [{"numbers": itertools.count()}]
    first = env.from_batch(records).flatmap(of).take(5).collect()
    env.submit(autostop=True)
    assert first == [0, 1, 2, 3, 4]


def test_an_endless_expansion_is_cancelled_and_its_generator_closed() -> None:
    closed: list[int] = []
    begun = threading.Event()

    def endless(n: int) -> Iterator[int]:
        try:
            while True:
                begun.set()
                yield n
        finally:
            closed.append(threading.get_ident())

    env = LocalEnvironment("endless")
    env.from_batch([1]).flatmap(endless).filter(lambda n: False).sink(print)
    job = env.submit()
    assert begun.wait(30)
    job.cancel()
    with pytest.raises(JobFailed, match="cancelled"):
        job.wait()
    assert len(closed) == 1 and closed[0] != threading.get_ident()


def slow_now_and_then(n: int) -> int:
    if n % 97 == 0:
        threading.Event().wait(0.007)
    return n


def test_records_keep_their_order_keys_and_times_however_often_a_loop_is_ended() -> None:
    """Against the same in plain Python."""
    env = LocalEnvironment("order")
    numbers = env.from_batch(range(1500))
    inner = numbers.map(slow_now_and_then).flatmap(lambda n: [n, -n]).flatmap(lambda n: (n for _ in range(abs(n) % 3)))
    by_five = inner.map(slow_now_and_then).keyby(lambda n: n % 5)
    pairs = by_five.map_with_state(0, lambda s, n: (s + 1, (s, n))).collect()
    timed = numbers.with_timestamps(lambda n: n / 10).flatmap(lambda n: [slow_now_and_then(n)] * 2)
    windows = timed.keyby(lambda n: n % 2).window(Tumbling(10)).reduce(lambda a, b: slow_now_and_then(a) + b).collect()
    top = numbers.keyby(lambda n: n % 3).top_k(4).flatmap(lambda pair: [(pair[0], n) for n in pair[1]])
    best = top.map(lambda pair: (slow_now_and_then(pair[0]), pair[1])).collect()
    env.submit(autostop=True)
    expected = [m for n in range(1500) for m in (n, -n) for _ in range(abs(m) % 3)]
    seen: dict[int, int] = {}
    for n, (state, got) in zip(expected, pairs):
        assert (state, got) == (seen.get(n % 5, 0), n)
        seen[n % 5] = state + 1
    assert len(pairs) == len(expected)
    sums = {(window.key, window.start): window.value for window in windows}
    windows = [(k, t) for k in (0, 1) for t in range(0, 150, 10)]
    assert sums == {(k, float(t)): 2 * sum(range(10 * t + k, 10 * t + 100, 2)) for k, t in windows}
    assert best == [(k, n) for k in range(3) for n in sorted(range(k, 1500, 3), reverse=True)[:4]]


@pytest.mark.parametrize("at", [0, 3, 2500])
def test_the_record_of_a_failure_is_the_right_one_though_loops_were_ended(at: int) -> None:
    env = LocalEnvironment("blame")

    def fails(pair: tuple[int, int]) -> int:
        if pair == (at, 2):
            raise LookupError("here")
        return slow_now_and_then(pair[0])

    env.from_batch(range(3000)).flatmap(lambda n: [(n, i) for i in range(3)]).map(fails).sink(lambda n: None)
    with pytest.raises(JobFailed, match=f"record {at + 1}: in `fails`: LookupError: here"):
        env.submit(autostop=True)


def grown(container: Any) -> None:
    if isinstance(container, dict):
        container[-1] = None
    elif isinstance(container, set):
        container.add(-1)
    else:
        container.append(-1)


@pytest.mark.parametrize(
    "made", [lambda: set(range(1000)), lambda: dict.fromkeys(range(1000)), lambda: deque(range(1000))]
)
@pytest.mark.parametrize("at", [0, 1, 500, 999])
@pytest.mark.parametrize("readers", [1, 2])
def test_a_container_that_changes_while_it_is_read_fails_as_in_a_loop(made: Any, at: int, readers: int) -> None:
    plain = made()
    with pytest.raises(RuntimeError) as expected:
        for n in plain:
            if n == at:
                grown(plain)
        # Nothing tells of a change behind the last record.
        raise RuntimeError("at the end")
    container = made()
    seen: list[int] = []

    def watched(n: int) -> int:
        seen.append(n)
        if n == at:
            grown(container)
        return n

    env = LocalEnvironment("changed")
    records = env.from_batch(container, name="changing")
    records.map(watched).sink(lambda n: None)
    if readers == 2:
        records.sink(lambda n: None)
    if readers == 2 or isinstance(container, deque):
        # It is read ahead of the functions, so that it may have been read by then.
        try:
            env.submit(autostop=True)
        except JobFailed as error:
            assert isinstance(error.__cause__, RuntimeError) and "`changing`, record" in str(error)
        return
    if str(expected.value) == "at the end":
        env.submit(autostop=True)
        assert len(seen) == 1000
        return
    with pytest.raises(JobFailed, match=f"`changing`, record {at + 1}: RuntimeError: {expected.value}"):
        env.submit(autostop=True)
    assert len(seen) == at + 1


@pytest.mark.parametrize("ended", [False, True])
def test_a_list_may_grow_and_shrink_while_it_is_read_as_in_a_loop(ended: bool) -> None:
    def loop(numbers: list[int], take: Callable[[int], None]) -> Callable[[int], None]:
        def changes(n: int) -> None:
            take(n)
            if n < 2000:
                numbers.append(n + 2000)
            if n == 3000:
                del numbers[3500:]

        return changes

    plain, expected = [*range(2000)], []
    change = loop(plain, expected.append)
    for n in plain:
        change(n)
    numbers: list[int] = [*range(2000)]
    got: list[int] = []
    env = LocalEnvironment("list")
    env.from_batch(numbers).sink(loop(numbers, got.append))
    env.submit(autostop=True)
    assert got == expected and len(got) == 3500 and numbers == plain


def test_no_thread_is_left_when_a_job_returns() -> None:
    import os

    for _ in range(50):
        before = len(os.listdir("/proc/self/task"))
        env = LocalEnvironment("threads")
        env.from_batch(range(100)).map(lambda n: n).sink(lambda n: None)
        env.submit(autostop=True)
        after = len(os.listdir("/proc/self/task"))
        # Of the process, from the first job on: the thread that waits for signals.
        assert after <= max(before, 2)


def test_a_key_that_cannot_be_one_is_that_of_its_record() -> None:
    env = LocalEnvironment("keys")
    keyed = env.from_batch(range(5000)).keyby(lambda n: [n] if n == 4000 else n)
    keyed.map(lambda n: n, parallelism=2).sink(lambda n: None)
    with pytest.raises(JobFailed, match="record 4001: .*unhashable"):
        env.submit(autostop=True)


@pytest.mark.parametrize("kind", ["container", "generator"])
@pytest.mark.parametrize("how", ["cancel", "drain"])
def test_contract_27_a_source_that_was_quick_is_ended_behind_one_slow_record(kind: str, how: str) -> None:
    slow = 0
    is_slow = threading.Event()

    def work(n: int) -> int:
        nonlocal slow
        if n >= 50_000:
            slow += 1
            is_slow.set()
            # Several times as long as it takes to tell the job.
            threading.Event().wait(0.25)
        return n

    env = LocalEnvironment("quick")
    if kind == "container":
        env.from_batch(range(60_000)).map(work).sink(lambda n: None)
    else:
        env.from_batch(work(n) for n in range(60_000)).sink(lambda n: None)
    job = env.submit()
    assert is_slow.wait(60)
    getattr(job, how)()
    told = slow
    try:
        job.wait()
    except JobFailed:
        assert how == "cancel"
    assert slow <= told + 1


def test_only_a_job_that_takes_longer_than_a_tick_has_a_thread_that_ends_its_loops() -> None:
    def cutters() -> int:
        return sum((task / "comm").read_text().strip() == "sage-cutter" for task in Path("/proc/self/task").iterdir())

    def look(_record: int) -> None:
        seen.append(cutters())
        # Several ticks.
        threading.Event().wait(0.02)

    seen: list[int] = []
    env = LocalEnvironment("ticks")
    env.from_batch([6]).flatmap(range).sink(look)
    env.submit(autostop=True)
    assert (seen[0], seen[-1]) == (0, 1)
    assert cutters() == 0
