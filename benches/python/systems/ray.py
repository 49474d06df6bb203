"""Ray on this machine: Ray Data for streams, an actor for a service and for awaits."""

from __future__ import annotations

import logging
from typing import Any

import ray
import ray.data
from workloads import IN_FLIGHT, Counter, Total, Waits, keep, key, scale, shift, split


def started() -> None:
    """Starts Ray's processes, once: before the first timed run, except where a whole program is measured."""
    if not ray.is_initialized():
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False


def p1(source: Any) -> Any:
    started()
    total = Total()
    rows = ray.data.range(len(source)).map(lambda row: {"n": scale(row["id"])}).filter(lambda row: keep(row["n"]))
    for row in rows.map(lambda row: {"n": shift(row["n"])}).iter_rows():
        total.take(row["n"])
    return total.answer()


def p2(source: Any) -> Any:
    """In as many partitions as there are processors: with its default, 200, a job takes about twice as long."""
    started()
    lines = ray.data.from_items(source)
    words = lines.flat_map(lambda row: [{"word": key(word)} for word in split(row["item"])])
    return {row["word"]: row["count()"] for row in words.groupby("word", num_partitions=2).count().iter_rows()}


def p3(source: Any) -> Any:
    """Each result is waited for before the next call."""
    started()
    total = Total()
    counter = ray.remote(Counter).remote()
    for n in source:
        total.take(ray.get(counter.add.remote(n)))
    ray.kill(counter)
    return total.answer()


def p3_pipelined(source: Any) -> Any:
    started()
    total = Total()
    counter = ray.remote(Counter).remote()
    for result in ray.get([counter.add.remote(n) for n in source]):
        total.take(result)
    ray.kill(counter)
    return total.answer()


class _Waits(Waits):
    async def how_many(self) -> int:
        return self.most


def p4(source: Any) -> Any:
    started()
    waits = ray.remote(_Waits).options(max_concurrency=IN_FLIGHT).remote()
    results = ray.get([waits.fetch.remote(n) for n in source])
    most = ray.get(waits.how_many.remote())
    ray.kill(waits)
    return results, most


CONTENDERS = {
    "p1": {"ray": p1},
    "p2": {"ray": p2},
    "p3": {"ray": p3, "ray_pipelined": p3_pipelined},
    "p4": {"ray": p4},
}
PARTS = {"p1 ray": 10, "p2 ray": 50, "p3 ray": 50, "p3 ray_pipelined": 20}
