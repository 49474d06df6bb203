"""What a program may write: both checkers agree with every type in it. It is checked, and not run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from typing_extensions import assert_type

from sage import (
    BaseFunction,
    BatchFunction,
    Breaker,
    Concurrency,
    DataStream,
    DeadLetterQueue,
    FilterFunction,
    FlatMapFunction,
    KeyByFunction,
    KeyedStream,
    LocalEnvironment,
    MapFunction,
    Paired,
    Report,
    Rate,
    Retry,
    Service,
    Session,
    SinkFunction,
    Skip,
    SourceFunction,
    StopSignal,
    Tumbling,
    Windowed,
    batched,
    ops,
)


@dataclass
class Order:
    fruit: str
    count: int


class Numbers(BatchFunction):
    def __init__(self, most: int) -> None:
        self.left = list(range(most))

    def execute(self) -> int | None:
        return self.left.pop() if self.left else None


class Ticks(SourceFunction):
    def execute(self, data: Any = None) -> int | StopSignal:
        return StopSignal("none")


class Upper(MapFunction):
    def execute(self, line: str) -> str:
        return line.upper()


class Slow(MapFunction):
    async def execute(self, line: str) -> str:
        await asyncio.sleep(0)
        return line


class Long(FilterFunction):
    def __init__(self, least: int = 3) -> None:
        self.least = least

    def execute(self, text: str) -> bool:
        return len(text) >= self.least


class Words(FlatMapFunction):
    def execute(self, text: str) -> list[str]:
        return text.split()


class ByFruit(KeyByFunction):
    def execute(self, order: Order) -> str:
        return order.fruit


class Save(SinkFunction):
    def execute(self, order: Order) -> None:
        print(order)


class Own:
    def execute(self, text: str) -> int:
        return len(text)


class Mine(BaseFunction):
    def execute(self, one: int, two: int = 0) -> int:
        return one + two


def maybe(text: str) -> int | None:
    return int(text) if text.isdigit() else None


async def length(text: str) -> int:
    return len(text)


async def pages() -> AsyncIterator[str]:
    yield "page"


def lines() -> Iterator[str]:
    yield "line"


env = LocalEnvironment("types", workers="processes")
numbers = iter([1, 2])
texts = env.from_batch(["a", "b c"])
orders = env.from_batch([Order("apple", 1)])

assert_type(texts, DataStream[str])
assert_type(env.from_batch(lines()), DataStream[str])
assert_type(env.from_batch(pages()), DataStream[str])
assert_type(env.from_batch(range(3), name="numbers", delay=0.5), DataStream[int])
env.from_batch(Numbers, 3)
env.from_source(Ticks, delay=1)
assert_type(env.from_source(lambda: next(numbers, StopSignal("end"))), DataStream[int])
env.from_collection([1]).map(lambda n: n + 1).print("n")

# Functions of every kind.
assert_type(texts.map(len), DataStream[int])
assert_type(texts.map(lambda text: text + "!"), DataStream[str])
assert_type(texts.map(str.upper).map(len), DataStream[int])
assert_type(texts.map(maybe), DataStream[int])
assert_type(texts.map(maybe, keep_none=True), DataStream["int | None"])
assert_type(texts.map(length, in_flight=8, ordered=False, timeout=2.5), DataStream[int])
texts.map(Upper).map(Slow, in_flight=3).filter(Long, 2).filter(Long, least=4).flatmap(Words).map(Own)
texts.map(int, on_error="skip").map(abs, on_error=Skip(at_most=3), retry=2)
texts.map(int, on_error=DeadLetterQueue("letters.jsonl"), retry=Retry(3, on=(OSError,)), name="parse", parallelism=2)
texts.map(len, workers="processes", on_worker_loss="restart").map(abs, workers="ray", ray={"num_cpus": 0.5})
assert_type(texts.filter(lambda text: "a" in text), DataStream[str])
assert_type(texts.flatmap(lambda text: text.split()), DataStream[str])
assert_type(texts.flatmap(ops.split()), DataStream[Any])
assert_type(texts.split(str.isdigit), tuple[DataStream[str], DataStream[str]])
assert_type(texts.take(3).batch(2, within=0.5), DataStream[list[str]])
assert_type(texts.map_batches(lambda batch: [len(text) for text in batch], 32), DataStream[int])
assert_type(texts.zip(texts.map(len)), DataStream[tuple[str, int]])
assert_type(texts.map(len).collect(), list[int])
assert_type(texts.sink(print), DataStream[str])
texts.sink(Save).to_jsonl("out.jsonl", key=lambda record: record["id"])

# Keys, states, windows and joins.
by_fruit = orders.keyby(lambda order: order.fruit)
assert_type(by_fruit, KeyedStream[str, Order])
orders.keyby(ByFruit).count()
assert_type(by_fruit.count(), DataStream[tuple[str, int]])
assert_type(by_fruit.sum(lambda order: order.count), DataStream[tuple[str, int]])
assert_type(by_fruit.top_k(3, lambda order: order.count), DataStream[tuple[str, list[Order]]])
assert_type(by_fruit.fold(0, lambda so_far, order: so_far + order.count), DataStream[tuple[str, int]])
assert_type(texts.map(len).sum(), DataStream[int])
assert_type(texts.map(len).reduce(max), DataStream[int])
assert_type(texts.count(), DataStream[int])


def seen(count: int, order: Order) -> tuple[int, str]:
    return count + 1, order.fruit


assert_type(by_fruit.map_with_state(0, seen, expire_after=60), DataStream[str])
timed = orders.with_timestamps(lambda order: order.count, out_of_order=5).keyby(lambda order: order.fruit)
assert_type(timed.window(Tumbling(60), on_signal="emit").count(), DataStream[Windowed[str, int]])
assert_type(timed.window(Session(5)).sum(lambda order: order.count), DataStream[Windowed[str, int]])
counts = timed.window(Tumbling(60)).allowed_lateness(5).late_to(print).count().collect()
for key, start, end, value in counts:
    assert_type(key, str)
    assert_type(value, int)
assert_type([window.is_partial for window in counts], list[bool])
joined = by_fruit.join(texts.map(len).keyby(str)).left()
assert_type(joined, DataStream[Paired[str, Order, "int | None"]])

with LocalEnvironment("run", {"on_signal": "finish"}) as inner:
    inner.from_batch([1]).print()
    job = inner.submit(autostop=True)
    assert_type(job.report, Report)
    assert_type(job.report.outcome, str)


class Embedder(Service):
    @batched(64, within=0.02, cost=len, most_cost=8_000)
    def embed(self, texts: list[str]) -> list[float | Exception]:
        return [float(len(text)) for text in texts]

    @batched(64)
    async def embed_async(self, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]

    def chat(self, text: str) -> str:
        return text


with_policies = LocalEnvironment("policies")
small = with_policies.service("small", Embedder)
embedder = with_policies.service(
    "embedder",
    Embedder,
    timeout=20,
    deadline=60.0,
    retry=Retry(4),
    fallback=small,
    rate=[10, Rate(cost=8_000, per=60)],
    cost=lambda text: len(text),
    concurrency=Concurrency(32, adaptive=2),
    breaker=Breaker(share=0.8),
    retry_budget=0.2,
    pause_on_outage=600,
    judge=lambda error: "bad" if isinstance(error, ValueError) else None,
)
assert_type(with_policies.from_batch(["a"]).map(embedder.embed), DataStream[float])
assert_type(with_policies.from_batch(["a"]).map(embedder.embed_async), DataStream[float])
assert_type(embedder.with_policy(timeout=1).chat("a"), str)
