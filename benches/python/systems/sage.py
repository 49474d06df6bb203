"""Ours, with default settings."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from sage import LocalEnvironment, MapFunction, ops
from workloads import IN_FLIGHT, INCREMENT, PROCESSES, REST, SHIFT, TRIPLE, Counter, Total, Waits
from workloads import enrich, keep, key, reverse, scale, shift, spin, split, step

#: The limit of a call in the variants that have one, in seconds. It is never reached.
TIMEOUT = 5.0


def p1(source: Any) -> Any:
    total = Total()
    env = LocalEnvironment("p1")
    env.from_batch(source).map(scale).filter(keep).map(shift).sink(total.take)
    env.submit(autostop=True)
    return total.answer()


def p1_builtins(source: Any) -> Any:
    """By functions that are not written in Python."""
    total = Total()
    env = LocalEnvironment("p1")
    env.from_batch(source).map(TRIPLE).map(INCREMENT).filter(REST).map(SHIFT).sink(total.take)
    env.submit(autostop=True)
    return total.answer()


def p2(source: Any) -> Any:
    env = LocalEnvironment("p2")
    counts = env.from_batch(source).flatmap(split).keyby(key).count().collect()
    env.submit(autostop=True)
    return dict(counts)


def p2_ops(source: Any) -> Any:
    env = LocalEnvironment("p2")
    counts = env.from_batch(source).flatmap(ops.split()).keyby(ops.identity()).count().collect()
    env.submit(autostop=True)
    return dict(counts)


def p2_fold(source: Any) -> Any:
    env = LocalEnvironment("p2")
    counts = env.from_batch(source).flatmap(split).keyby(key).fold(0, step).collect()
    env.submit(autostop=True)
    return dict(counts)


class Calls(MapFunction):
    def execute(self, n: int) -> Any:
        return self.call_service("counter", n, method="add")


class CallsInTime(MapFunction):
    def execute(self, n: int) -> Any:
        return self.call_service("counter", n, method="add", timeout=TIMEOUT)


class CallsHandle(MapFunction):
    def __init__(self, counter: Counter) -> None:
        self.counter = counter

    def execute(self, n: int) -> int:
        return self.counter.add(n)


def _by_name(source: Any, function: type[MapFunction]) -> Any:
    total = Total()
    env = LocalEnvironment("p3")
    env.register_service("counter", Counter)
    env.from_batch(source).map(function).sink(total.take)
    env.submit(autostop=True)
    return total.answer()


def p3(source: Any) -> Any:
    return _by_name(source, Calls)


def p3_timeout(source: Any) -> Any:
    return _by_name(source, CallsInTime)


def _by_handle(source: Any, timeout: float | None = None) -> Any:
    total = Total()
    env = LocalEnvironment("p3")
    counter = env.service("counter", Counter, timeout=timeout)
    env.from_batch(source).map(CallsHandle, counter).sink(total.take)
    env.submit(autostop=True)
    return total.answer()


def p3_handle(source: Any) -> Any:
    return _by_handle(source)


def p3_handle_timeout(source: Any) -> Any:
    return _by_handle(source, TIMEOUT)


def p3_bound(source: Any) -> Any:
    """The method of the handle is the function."""
    total = Total()
    env = LocalEnvironment("p3")
    env.from_batch(source).map(env.service("counter", Counter).add).sink(total.take)
    env.submit(autostop=True)
    return total.answer()


def p4(source: Any) -> Any:
    waits = Waits()
    env = LocalEnvironment("p4")
    results = env.from_batch(source).map(waits.fetch, in_flight=IN_FLIGHT, ordered=True).collect()
    env.submit(autostop=True)
    return results, waits.most


def _spread(function: Any, source: Any, processes: int = PROCESSES) -> Any:
    """Over processes, a replica each; in whatever order."""
    env = LocalEnvironment("spread", workers="processes")
    results = env.from_batch(source).map(function, parallelism=processes).collect()
    env.submit(autostop=True)
    return results


def p5(source: Any) -> Any:
    return _spread(spin, source)


def p1_processes(source: Any) -> Any:
    total = Total()
    env = LocalEnvironment("p1", workers="processes")
    env.from_batch(source).map(scale).filter(keep).map(shift).sink(total.take)
    env.submit(autostop=True)
    return total.answer()


def dicts(source: Any) -> Any:
    return _spread(enrich, source)


def large(source: Any) -> Any:
    return _spread(reverse, source)


def calls(source: Any) -> Any:
    total = Total()
    env = LocalEnvironment("calls", workers="processes")
    env.register_service("counter", Counter)
    env.from_batch(source).map(Calls).sink(total.take)
    env.submit(autostop=True)
    return total.answer()


def begin(source: Any) -> Any:
    """A job of one worker and hardly a record."""
    return _spread(scale, source, 1)


def last_to_return(source: Any) -> float:
    """The seconds from the sink's last record to the return of ``submit``, of a job with a service."""
    total = Total()
    last = 0.0

    def take(n: int) -> None:
        nonlocal last
        total.take(n)
        last = perf_counter()

    env = LocalEnvironment("return")
    env.register_service("counter", Counter)
    env.from_batch(source).map(Calls).sink(take)
    env.submit(autostop=True)
    return perf_counter() - last


CONTENDERS = {
    "p1": {"sage": p1, "sage_builtins": p1_builtins},
    "p2": {"sage": p2, "sage_ops": p2_ops, "sage_fold": p2_fold},
    "p3": {
        "sage": p3,
        "sage_handle": p3_handle,
        "sage_bound": p3_bound,
        "sage_timeout": p3_timeout,
        "sage_handle_timeout": p3_handle_timeout,
    },
    "p4": {"sage": p4},
    "p5": {"sage": p5},
    "ints": {"sage": p1, "sage_processes": p1_processes},
    "dicts": {"sage": dicts},
    "large": {"sage": large},
    "calls": {"sage": calls},
    "begin": {"sage": begin},
    "return": {"sage": last_to_return},
}
PARTS: dict[str, int] = {}
