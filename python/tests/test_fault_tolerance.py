"""Functions that are made anew when they raise: `config["fault_tolerance"]`."""

from __future__ import annotations

from typing import Any

import pytest

from flaky import Counted, Flaky, Map, Once, row, tolerant
from sage import BaseService, DeadLetterQueue, JobFailed, Letter, LocalEnvironment, MapFunction, Retry
from sage._chain import Chain
from sage._faults import Checkpoints, Faults, read

@pytest.mark.parametrize(
    ("given", "faults"),
    [
        ({}, Faults(1.0, 2.0, 60.0, 5)),
        ({"restart_strategy": "fixed"}, Faults(5.0, 1.0, 5.0, 3)),
        ({"strategy": "restart", "restart_strategy": "failure_rate"}, Faults(5.0, 1.0, 5.0, 5, 60.0)),
        ({"initial_delay": 3, "max_delay": 4, "multiplier": 5, "max_attempts": 6}, Faults(3.0, 5.0, 4.0, 6)),
        ({"strategy": "checkpoint"}, Faults(0, 1, 0, 3, checkpoints=Checkpoints(60.0, ".sage/checkpoints"))),
    ],
)
def test_the_keys_and_defaults_are_those_of_sage(given: dict[str, Any], faults: Faults) -> None:
    assert read(given) == faults


def test_delays_grow_up_to_the_longest_and_end_after_so_many_failures() -> None:
    growing = Faults(1.0, 2.0, 6.0, 5)
    assert [growing.delay([0.0] * failures) for failures in range(1, 7)] == [1.0, 2.0, 4.0, 6.0, 6.0, None]
    assert Faults(1.0, 10.0, 7.0, 1 << 40).delay([0.0] * 400) == 7.0
    rate, failures = Faults(5.0, 1.0, 5.0, 2, within=10.0), list[float]()
    delays = []
    for moment in (0.0, 1.0, 10.5, 10.9, 11.1):
        failures.append(moment)
        delays.append(rate.delay(failures))
    assert delays == [5.0, 5.0, 5.0, None, None]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"strategy": "restarts"}, "did you mean `restart`"),
        ({"restart_strategy": "linear"}, "'fixed' or 'exponential' or 'failure_rate'"),
        ({"restart_strategy": "fixed", "max_atempts": 3}, "did you mean `max_attempts`"),
        ({"restart_strategy": "exponential", "delay": 3}, "no `delay` with the strategy `exponential`"),
        ({"strategy": "checkpoint", "max_attempts": 3}, "no `max_attempts` with the strategy `checkpoint`"),
        ({"restart_strategy": "fixed", "delay": -1}, "`delay` of `fault_tolerance` is a time"),
        ({"restart_strategy": "fixed", "max_attempts": 0}, "whole number of at least 1"),
        ({"multiplier": 0.5}, "`multiplier` of `fault_tolerance` is a number of at least 1"),
        ({"restart_strategy": "failure_rate", "interval_seconds": 0}, "more than 0 seconds"),
        ({"strategy": "checkpoint", "checkpoint_dir": ""}, "the path of a folder"),
    ],
)
def test_what_cannot_be_is_an_error_in_the_constructor_and_at_submit(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LocalEnvironment("wrong", {"fault_tolerance": given})
    env = LocalEnvironment("wrong")
    env.from_batch([1]).collect()
    env.config["fault_tolerance"] = given
    with pytest.raises(ValueError, match=said):
        env.submit(autostop=True)


def test_other_mistakes_of_the_configuration() -> None:
    with pytest.raises(TypeError, match="`fault_tolerance` of `config` is a mapping"):
        LocalEnvironment("wrong", {"fault_tolerance": "restart"})
    with pytest.raises(ValueError, match="did you mean `fault_tolerance`"):
        LocalEnvironment("wrong", {"fault-tolerance": {}})
    assert LocalEnvironment("none", {"fault_tolerance": None})._context().faults is None


STRATEGIES: dict[str, dict[str, Any]] = {
    "fixed": {"restart_strategy": "fixed", "delay": 0.0},
    "exponential": {"initial_delay": 0.0, "max_attempts": 3},
    "failure_rate": {"restart_strategy": "failure_rate", "delay": 0.0, "max_failures_per_interval": 3},
    "checkpoint": {"strategy": "checkpoint"},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_new_instance_takes_over_and_gets_the_failing_record(strategy: str) -> None:
    env, seen = LocalEnvironment("over", {"fault_tolerance": STRATEGIES[strategy]}), Counted()
    out = env.from_batch([1, 2, 3]).map(Flaky, seen, 3).collect()
    job = env.submit(autostop=True)
    assert out == [10, 20, 30]
    ends = [f"{event} {n}" for n in (1, 2, 3, 4) for event in ("setup", "teardown", "close")]
    assert seen.events == ends
    assert row(job, "Flaky → collect")["restarts"] == 3
    assert "restarted 3 times" in str(job.report)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_attempts_that_are_exhausted_fail_the_job_with_the_programs_exception(strategy: str) -> None:
    env, seen = LocalEnvironment("exhausted", {"fault_tolerance": STRATEGIES[strategy]}), Counted()
    env.from_batch([1, 2, 3]).map(Flaky, seen, 9).collect()
    with pytest.raises(JobFailed, match="gave up after 4 attempts.*not by 4") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, ValueError) and str(failed.value.__cause__) == "not by 4"
    assert seen.events[-3:] == ["setup 4", "teardown 4", "close 4"] and seen.made == 4
    assert "record 2" in str(failed.value) and failed.value.report.data["cleanliness"] == "clean"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("how", ["map", "in_flight", "async", "source"])
@pytest.mark.parametrize("not_made", [(2, 3), (2, 3, 4)])
def test_an_instance_that_could_not_be_made_is_an_attempt_as_well(
    strategy: str, how: str, not_made: tuple[int, ...]
) -> None:
    tries: list[str] = []

    class Fails(MapFunction):
        def __init__(self) -> None:
            if len(tries) + 1 in not_made:
                tries.append("constructor")
                raise OSError("not made")

        def execute(self, n: int = 0) -> int:
            tries.append("call")
            raise ValueError("bad")

    class Later(Fails):
        async def execute(self, n: int = 0) -> int:  # type: ignore[override]
            return super().execute(n)

    env = LocalEnvironment("not made", {"fault_tolerance": STRATEGIES[strategy]})
    if how == "source":
        env.from_source(Fails).collect()
    else:
        options = {"in_flight": 2} if how == "in_flight" else {}
        env.from_batch([1]).map(Later if how == "async" else Fails, **options).collect()
    with pytest.raises(JobFailed, match="gave up after 4 attempts"):
        env.submit(autostop=True)
    last = ["call"] if len(not_made) == 2 else ["constructor"]
    assert tries == ["call", "constructor", "constructor", *last]


def test_failures_count_over_the_whole_run_of_a_replica() -> None:
    env, calls = tolerant("count", max_attempts=2), list[int]()

    def odd(n: int) -> int:
        calls.append(n)
        if calls.count(n) == 1:
            raise ValueError(f"first {n}")
        return n

    env.from_batch([1, 2, 3]).map(odd).collect()
    with pytest.raises(JobFailed, match="first 3"):
        env.submit(autostop=True)
    assert calls == [1, 1, 2, 2, 3]


def test_of_functions_that_run_together_only_the_one_that_raised_is_made_anew() -> None:
    env, seen, once = tolerant("chain"), Counted(), Once(30)
    calls: list[int] = []

    def first(n: int) -> int:
        calls.append(n)
        return n

    stream = env.from_batch([1, 2, 3]).map(first).map(Flaky, seen, 0).flatmap(lambda n: [n, n + 1])
    out = stream.map(Map, once).collect()
    job = env.submit(autostop=True)
    assert out == [10, 11, 20, 21, 30, 31]
    # What those before it gave is not made again, and they keep their objects.
    assert calls == [1, 2, 3] and seen.made == 1 and once.calls == [10, 11, 20, 21, 30, 30, 31]
    (chain,) = [row for row in job.report.data["operators"] if "Flaky" in row["name"]]
    assert chain["restarts"] == 1


def test_the_state_of_keys_stays_with_the_engine() -> None:
    env, once = tolerant("keyed"), Once(2)

    def add(total: int, n: int) -> tuple[int, int]:
        once.check(n)
        return total + n, total + n

    out = env.from_batch([1, 2, 3]).keyby(lambda n: 0).map_with_state(0, add).collect()
    env.submit(autostop=True)
    assert out == [1, 3, 6]


def test_each_replica_has_failures_of_its_own() -> None:
    env, once = tolerant("replicas", max_attempts=1), Once(1, 2)
    out = env.from_batch([1, 2, 3, 4]).map(Map, once, parallelism=2).collect()
    job = env.submit(autostop=True)
    assert sorted(out) == [1, 2, 3, 4] and row(job, "Map")["restarts"] == 2


def test_a_new_instance_calls_services() -> None:
    class Store(BaseService):
        def process(self, n: int) -> int:
            return n * 2

    class Calling(MapFunction):
        made = 0

        def __init__(self) -> None:
            type(self).made += 1
            self.base = self.call_service("store", 50)

        def execute(self, n: int) -> int:
            if type(self).made == 1:
                raise OSError("gone")
            found: int = self.call_service("store", n)
            return found + self.base

    env = tolerant("services")
    env.register_service("store", Store)
    out = env.from_batch([1]).map(Calling).collect()
    env.submit(autostop=True)
    assert out == [102]


# How it goes together with what a step says.


@pytest.mark.parametrize("is_async", [False, True])
def test_a_retry_comes_first_then_a_new_instance_and_on_error_last(is_async: bool) -> None:
    letters: list[Letter] = []
    calls: list[int] = []

    class Failing(MapFunction):
        made = 0

        def __init__(self) -> None:
            type(self).made += 1
            self.number = type(self).made

        def execute(self, n: int) -> int:
            calls.append(self.number)
            if n == 2:
                raise OSError(f"by {self.number}")
            return n

    class Later(Failing):
        async def execute(self, n: int) -> int:  # type: ignore[override]
            return super().execute(n)

    env = tolerant("precedence", max_attempts=2)
    policy = {"retry": Retry(2, first=0.0, longest=0.0), "on_error": DeadLetterQueue(letters.append)}
    out = env.from_batch([1, 2, 3]).map(Later if is_async else Failing, **policy, name="failing").collect()
    job = env.submit(autostop=True)
    assert sorted(out) == [1, 3]
    # Two attempts of each object with the record 2; the record 3 may be in flight with any of them.
    assert [calls.count(number) for number in (1, 2, 3)] in ([3, 2, 3], [3, 3, 2], [4, 2, 2])
    (letter,) = letters
    assert (letter.record, letter.attempts) == (2, 6) and letter.errors == ["gave up after 6 attempts", "OSError: by 3"]
    failing = row(job, "failing")
    assert (failing["restarts"], failing["retries"], failing["failed"]) == (2, 3, 1)


def test_a_retry_that_is_not_on_an_exception_leaves_it_to_a_new_instance() -> None:
    env, seen = tolerant("not on"), Counted()
    out = env.from_batch([1, 2]).map(Flaky, seen, 1, retry=Retry(9, first=3600.0, longest=3600.0, on=OSError)).collect()
    env.submit(autostop=True)
    assert out == [10, 20] and seen.made == 2


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_programs_is_not_tried_again(kind: type[BaseException]) -> None:
    calls = 0

    def ends(n: int) -> int:
        nonlocal calls
        calls += 1
        raise kind("ends")

    env = tolerant("ends")
    env.from_batch([1]).map(ends).collect()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert type(failed.value.__cause__) is kind and calls == 1


# What fails on the way.


def test_a_new_instance_that_cannot_be_made_is_a_failure_too() -> None:
    class Remade(MapFunction):
        made = 0
        closed: list[int] = []

        def __init__(self) -> None:
            type(self).made += 1
            self.number = type(self).made
            if self.number == 2:
                raise OSError("not yet")

        def setup(self, context: Any) -> None:
            if self.number == 3:
                raise OSError("nor now")

        def execute(self, n: int) -> int:
            if self.number == 1:
                raise ValueError("bad")
            return n

        def close(self) -> None:
            self.closed.append(self.number)

    env = tolerant("remade")
    out = env.from_batch([1]).map(Remade).collect()
    job = env.submit(autostop=True)
    # One whose constructor raised was never there, and one whose `setup` raised is closed.
    assert out == [1] and Remade.closed == [1, 3, 4]
    assert row(job, "Remade → collect")["restarts"] == 1
    Remade.made, env = 0, tolerant("not remade", max_attempts=1)
    env.from_batch([1]).map(Remade).collect()
    with pytest.raises(JobFailed, match="not yet") as failed:
        env.submit(autostop=True)
    cause = failed.value.__cause__
    assert isinstance(cause, OSError) and isinstance(cause.__context__, ValueError)


@pytest.mark.parametrize("options", [{}, {"in_flight": 2}])
def test_what_the_end_of_a_replaced_instance_raises_is_told(options: dict[str, Any]) -> None:
    class Ends(Flaky):
        def close(self) -> None:
            if self.number < 3:
                raise OSError(f"close {self.number}")

    env, seen = tolerant("ends"), Counted()
    env.from_batch([1, 2]).map(Ends, seen, 2, **options).collect()
    # Of two that end at the same time, either may be the first.
    with pytest.raises(JobFailed, match="close [12]; OSError: close [12]"):
        env.submit(autostop=True)
    assert seen.made == 3


# Without it.


def test_without_it_the_loops_call_the_functions_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    chains: list[Chain] = []
    publish = Chain.publish
    monkeypatch.setattr(Chain, "publish", lambda chain: (chains.append(chain), publish(chain))[1])

    def double(n: int) -> int:
        return n * 2

    for env in (LocalEnvironment("without"), tolerant("with")):
        out = env.from_batch([1]).map(double, keep_none=True).collect()
        env.submit(autostop=True)
        assert out == [2]
    without, with_it = (chain.stages[0] for chain in chains)
    assert without._scope["f0"] is double and with_it._scope["f0"] is not double
    # And it is the same loop.
    assert without.run.__code__ == with_it.run.__code__
