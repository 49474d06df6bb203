"""States of keys that are forgotten in time, and those that connected streams share."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any

import pytest

from sage import JobFailed, LocalEnvironment, StopSignal

#: After how many seconds states expire here.
TTL = 0.4


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
