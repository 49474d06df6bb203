"""bytewax, with the batches of one record that its sources have by default, and with batches tuned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import TestingSource, run_main
from workloads import IN_FLIGHT, Counter, Total, Waits, keep, key, scale, shift, split

#: Of 1, 10, 100, 1,000 and 10,000 records, the batches with which P1 and P2 are fastest, and P3 is close to it.
BATCH = 10_000


class _Calls(StatelessSinkPartition[Any]):
    def __init__(self, take: Callable[[Any], None]) -> None:
        self.take = take

    def write_batch(self, items: list[Any]) -> None:
        for item in items:
            self.take(item)


class _Sink(DynamicSink[Any]):
    def __init__(self, take: Callable[[Any], None]) -> None:
        self.take = take

    def build(self, *_: Any) -> _Calls:
        return _Calls(self.take)


def _run(source: Any, batch: int, build: Callable[[Stream[Any]], Stream[Any]], take: Callable[[Any], None]) -> None:
    flow = Dataflow("flow")
    records = op.input("source", flow, TestingSource(source, batch))
    op.output("sink", build(records), _Sink(take))
    run_main(flow)


def p1(source: Any, batch: int = 1) -> Any:
    total = Total()

    def build(records: Stream[Any]) -> Stream[Any]:
        return op.map("shift", op.filter("keep", op.map("scale", records, scale), keep), shift)

    _run(source, batch, build, total.take)
    return total.answer()


def p2(source: Any, batch: int = 1) -> Any:
    counts: list[tuple[str, int]] = []
    _run(source, batch, lambda lines: op.count_final("count", op.flat_map("split", lines, split), key), counts.append)
    return dict(counts)


def _add(counter: Counter | None, n: int) -> tuple[Counter, int]:
    counter = counter or Counter()
    return counter, counter.add(n)


def p3(source: Any, batch: int = 1) -> Any:
    total = Total()

    def build(records: Stream[Any]) -> Stream[Any]:
        keyed = op.key_on("key", records, lambda n: "the one")
        return op.map("value", op.stateful_map("add", keyed, _add), lambda pair: pair[1])

    _run(source, batch, build, total.take)
    return total.answer()


def p4(source: Any) -> Any:
    """There are no async operators: batches of as many records as may be in flight, each awaited as a whole."""
    waits = Waits()
    results: list[int] = []
    loop = asyncio.new_event_loop()

    async def gather(batch: list[int]) -> list[int]:
        return await asyncio.gather(*map(waits.fetch, batch))

    def build(records: Stream[Any]) -> Stream[Any]:
        return op.flat_map_batch("fetch", records, lambda batch: loop.run_until_complete(gather(batch)))

    _run(source, IN_FLIGHT, build, results.append)
    loop.close()
    return results, waits.most


CONTENDERS = {
    "p1": {"bytewax": p1, "bytewax_batch": lambda source: p1(source, BATCH)},
    "p2": {"bytewax": p2, "bytewax_batch": lambda source: p2(source, BATCH)},
    "p3": {"bytewax": p3, "bytewax_batch": lambda source: p3(source, BATCH)},
    "p4": {"bytewax": p4},
}
PARTS = {"p1 bytewax": 5, "p2 bytewax": 10}
