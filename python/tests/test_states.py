"""States of keys that are forgotten in time, and those that connected streams share."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any

import pytest

from sage import CoProcessFunction, JobFailed, KeyContext, LocalEnvironment, StopSignal, Timer

#: After how many seconds states expire here.
TTL = 0.8


def run(env: LocalEnvironment) -> None:
    env.submit(autostop=True)


class Paced:
    """A source between whose records the clock moves on: those before a ``None`` were seen when it begins to wait."""

    def __init__(self, *records: Any) -> None:
        self._records = list(records)
        self._given = self._seen = 0
        self._lock = threading.Condition()

    def __iter__(self) -> Any:
        for record in self._records:
            if record is not None:
                self._given += 1
                yield record
                continue
            with self._lock:
                assert self._lock.wait_for(lambda: self._seen == self._given, 10)
            until = time.monotonic() + TTL + 0.1
            while time.monotonic() < until:
                time.sleep(0.01)

    def saw(self, record: Any) -> Any:
        """To be called for each record, behind the states."""
        with self._lock:
            self._seen += 1
            self._lock.notify()
        return record


@pytest.mark.parametrize("parallelism", [1, 2])
def test_a_state_expires_when_no_record_of_its_key_has_come(parallelism: int) -> None:
    env = LocalEnvironment("expiring")
    paced = Paced("a", "b", "a", None, "a", "a")
    keyed = env.from_batch(paced).keyby(lambda word: word)
    numbered = keyed.map_with_state(
        0, lambda n, word: (n + 1, (word, n + 1)), parallelism=parallelism, expire_after=TTL
    )
    got = numbered.map(paced.saw).collect()
    run(env)
    assert sorted(got) == [("a", 1), ("a", 1), ("a", 2), ("a", 2), ("b", 1)]
    assert [pair for pair in got if pair[0] == "a"] == [("a", 1), ("a", 2), ("a", 1), ("a", 2)]


def test_flatmap_and_distinct_expire_as_well_and_an_initial_state_is_copied() -> None:
    env = LocalEnvironment("expiring")
    paced = Paced("a", "a", "b", None, "a", "b", "b")

    def seen(state: list[str], word: str) -> tuple[list[str], list[str]]:
        state.append(word)
        return state, ["".join(state)]

    keyed = env.from_batch(paced).keyby(lambda word: word)
    grown = keyed.flatmap_with_state([], seen, expire_after=TTL).map(paced.saw).collect()
    run(env)
    assert grown == ["a", "aa", "b", "a", "b", "bb"]
    env = LocalEnvironment("distinct")
    paced = Paced("a", "b", None, "a", "a")
    first = env.from_batch(paced).keyby(lambda word: word).distinct(expire_after=TTL).map(paced.saw).collect()
    run(env)
    assert first == ["a", "b", "a"]


class Kept:
    """A state that can be watched."""


def test_what_has_expired_is_freed_while_the_job_runs() -> None:
    env = LocalEnvironment("freed")
    freed = threading.Event()
    given = iter(["a"])
    deadline = time.monotonic() + 20

    def kept() -> Kept:
        state = Kept()
        weakref.finalize(state, freed.set)
        return state

    def source() -> Any:
        if (record := next(given, None)) is not None or not (freed.is_set() or time.monotonic() > deadline):
            return record
        return StopSignal()

    keyed = env.from_source(source).keyby(lambda word: word)
    got = keyed.map_with_state(kept, lambda kept, word: (kept, word), expire_after=0.01).collect()
    env.submit(autostop=True)
    assert got == ["a"] and time.monotonic() < deadline


def test_the_functions_of_expiring_states_raise_with_their_names_and_leave_nothing() -> None:
    states: list[weakref.ref[Kept]] = []

    def kept() -> Kept:
        state = Kept()
        states.append(weakref.ref(state))
        return state

    def fails(state: Kept, n: int) -> tuple[Kept, int]:
        if n == 7:
            raise LookupError("no sevens")
        return state, n

    def failing() -> None:
        env = LocalEnvironment("raises")
        env.from_batch(range(10)).keyby(lambda n: n).map_with_state(kept, fails, expire_after=60).collect()
        with pytest.raises(JobFailed, match="`fails`.*record 8.*LookupError: no sevens") as failed:
            run(env)
        assert isinstance(failed.value.__cause__, LookupError)

    failing()
    gc.collect()
    assert len(states) >= 8 and not any(state() for state in states)


@pytest.mark.parametrize("seconds", [0, -1, 0.0001, float("nan"), float("inf"), "1", True])
def test_times_that_states_cannot_expire_after(seconds: Any) -> None:
    keyed = LocalEnvironment("mistakes").from_batch([1]).keyby(lambda n: n)
    with pytest.raises(ValueError, match="`expire_after` is a time of at least 0.001 seconds, not"):
        keyed.distinct(expire_after=seconds)


class Balance(CoProcessFunction):
    """What was paid in and out: a state for both streams."""

    def __init__(self, start: int) -> None:
        self.start = start

    def on_record0(self, paid_in: tuple[str, int], key: KeyContext) -> None:
        self._add(paid_in[1], key)

    def on_record1(self, paid_out: tuple[int, str], key: KeyContext) -> None:
        self._add(-paid_out[0], key)

    def _add(self, amount: int, key: KeyContext) -> None:
        key.state = (key.state or self.start) + amount
        key.push((key.key, key.state))


@pytest.mark.parametrize("parallelism", [1, 3])
def test_connected_streams_share_the_state_of_a_key(parallelism: int) -> None:
    env = LocalEnvironment("balances")
    people = ["ada", "bob", "cyd"]
    paid_in = env.from_batch([(people[n % 3], n) for n in range(300)]).keyby(lambda paid: paid[0])
    out = [(n, people[n % 2]) for n in range(200)]
    paid_out = env.from_batch(out).map(lambda paid: paid).keyby(lambda paid: paid[1])
    got = paid_in.connect(paid_out).coprocess(Balance, 1000, parallelism=parallelism).collect()
    run(env)
    assert len(got) == 500
    last = dict(got)
    for index, person in enumerate(people):
        paid = sum(range(index, 300, 3)), sum(range(index, 200, 2)) if index < 2 else 0
        assert last[person] == 1000 + paid[0] - paid[1]


class Unanswered(CoProcessFunction):
    """Questions that have no answer ten seconds later. An answer may be seen before its question."""

    def on_record0(self, asked: tuple[int, str], key: KeyContext) -> None:
        key.state = key.state or "asked"
        key.set_timer(asked[0] + 10)

    def on_record1(self, _answered: tuple[int, str], key: KeyContext) -> None:
        key.state = "answered"

    def on_record2(self, closed: tuple[int, str], key: KeyContext) -> None:
        key.push(("closed", closed[1]))

    def on_timer(self, timer: Timer, key: KeyContext) -> None:
        assert not timer.clock and key.watermark is not None and key.watermark >= timer.at
        if key.state == "asked":
            key.push(("unanswered", key.key))
        key.forget()


def test_timers_go_by_the_times_of_all_connected_streams() -> None:
    env = LocalEnvironment("unanswered")

    def keyed(records: Any) -> Any:
        stream = env.from_batch(records).with_timestamps(lambda record: record[0], out_of_order=100)
        return stream.keyby(lambda record: record[1])

    asked = keyed([(1, "why"), (2, "who")])
    answered, closed = keyed([(3, "who")]), keyed([(90, "when")])
    got = asked.connect(answered).connect(closed).coprocess(Unanswered).collect()
    run(env)
    assert sorted(got) == [("closed", "when"), ("unanswered", "why")]


class Fired(CoProcessFunction):
    """Tells by its timer, while the job runs, that all streams have come so far."""

    def on_record0(self, record: int, key: KeyContext) -> None:
        if record == 5:
            key.set_timer(8)

    on_record1 = on_record0

    def on_timer(self, timer: Timer, key: KeyContext) -> None:
        key.push(timer.at)


def test_a_timer_fires_before_the_end_of_input() -> None:
    env = LocalEnvironment("fires")
    fired = threading.Event()
    exhausted: list[bool] = []

    def long() -> Any:
        for n in range(300_000):
            if fired.is_set():
                return
            yield n
        # At the end of input every timer is called, so it must not come to that.
        exhausted.append(True)

    def keyed() -> Any:
        return env.from_batch(long()).with_timestamps(lambda n: n).keyby(lambda n: "k")

    got: list[float] = []

    def tell(at: float) -> None:
        got.append(at)
        fired.set()

    keyed().connect(keyed()).coprocess(Fired).sink(tell)
    run(env)
    assert got[0] == 8.0 and not exhausted


class Failing(CoProcessFunction):
    """Raises for one record of the second stream."""

    closed = 0

    def on_record0(self, record: int, key: KeyContext) -> None:
        key.state = Kept()

    def on_record1(self, record: int, key: KeyContext) -> None:
        raise LookupError(f"no {record}")

    def close(self) -> None:
        type(self).closed += 1


def test_what_raises_in_a_connected_function_is_named_and_it_is_closed() -> None:
    env = LocalEnvironment("raises")
    streams = [env.from_batch([n]).keyby(lambda n: n) for n in (1, 2)]
    streams[0].connect(streams[1]).coprocess(Failing).collect()
    with pytest.raises(JobFailed, match="`Failing`.*LookupError: no 2") as failed:
        run(env)
    assert isinstance(failed.value.__cause__, LookupError) and Failing.closed == 1


def test_connected_functions_that_cannot_be() -> None:
    env = LocalEnvironment("mistakes")
    keyed, plain = env.from_batch([1]).keyby(lambda n: n), env.from_batch([1])
    with pytest.raises(TypeError, match="`coprocess` needs a CoProcessFunction class"):
        keyed.connect(keyed).coprocess(print)
    with pytest.raises(TypeError, match="`Balance` has no `on_record2`, for stream 2 of 3"):
        keyed.connect(keyed).connect(keyed).coprocess(Balance, 1)
    with pytest.raises(ValueError, match="need a key"):
        keyed.connect(plain).coprocess(Balance, 1)
