"""Ours with functions in actors of a Ray cluster on this machine; in processes beside it, and Ray's own ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from workloads import PROCESSES, Counter, Total, bucket, keep, scale, shift, spin, step

from sage import LocalEnvironment

from . import ray as peer
from .sage import Calls

#: A worker takes no processor: what is measured is not where Ray places it.
TAKES = {"ray": {"num_cpus": 0}}

#: How many workers the rows of the beginning and the end have.
MANY = 20


def _env(workers: str) -> LocalEnvironment:
    peer.started()
    return LocalEnvironment("on-ray", TAKES, workers=workers)


def p1(workers: str, source: Any) -> Any:
    total = Total()
    env = _env(workers)
    env.from_batch(source).map(scale).filter(keep).map(shift).sink(total.take)
    env.submit(autostop=True)
    return total.answer()


def p5(workers: str, source: Any) -> Any:
    env = _env(workers)
    results = env.from_batch(source).map(spin, parallelism=PROCESSES).collect()
    env.submit(autostop=True)
    return results


def keyed(workers: str, source: Any) -> Any:
    env = _env(workers)
    counts = env.from_batch(source).keyby(bucket).fold(0, step, parallelism=PROCESSES).collect()
    env.submit(autostop=True)
    return dict(counts)


def calls(workers: str, source: Any) -> Any:
    total = Total()
    env = _env(workers)
    env.register_service("counter", Counter)
    env.from_batch(source).map(Calls).sink(total.take)
    env.submit(autostop=True)
    return total.answer()


def many(source: Any) -> None:
    """A job of many workers and no more records than these."""
    env = _env("ray")
    env.from_batch(range(MANY)).map(scale, parallelism=MANY).collect()
    env.submit(autostop=True)


def many_actors(source: Any) -> None:
    """As many empty actors, from the start of the first until all have answered and are told to end."""
    peer.started()
    empty = ray.remote(Counter)
    actors = [empty.options(num_cpus=0).remote() for _ in range(MANY)]
    ray.get([actor.add.remote(0) for actor in actors])
    for actor in actors:
        ray.kill(actor)


def _both(run: Callable[[str, Any], Any]) -> dict[str, Any]:
    return {"ray": partial(run, "ray"), "processes": partial(run, "processes")}


def begin(workers: str, source: Any) -> None:
    """A job of as many workers as the others have, and one record."""
    p5(workers, range(1))


CONTENDERS = {
    "begin": _both(begin),
    "ints": {**_both(p1), "data": peer.p1},
    "p5": _both(p5),
    "keyed": _both(keyed),
    "calls": _both(calls),
    "many": {"ray": many, "actors": many_actors},
}
#: Ray Data takes some tens of microseconds a record.
PARTS = {"ints data": 20}
