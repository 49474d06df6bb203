"""Mistakes: both checkers complain of every line that says ``# wrong``, and of no other. It is checked, and not run."""

from __future__ import annotations

from sage import DeadLetterQueue, LocalEnvironment, Retry, Service, Skip, StopSignal, Tumbling, batched

env = LocalEnvironment("mistakes")
texts = env.from_batch(["a"])
numbers = env.from_batch([1, 2])


def add(one: int, two: int) -> int:
    return one + two


async def length(text: str) -> int:
    return len(text)


env.from_batch(3)  # wrong
env.from_batch([1], dealy=0.5)  # wrong
env.from_source([1, 2])  # wrong
texts.map(lambda text: text + 1)  # wrong
numbers.map(str.upper)  # wrong
numbers.map(add)  # wrong
numbers.map(3)  # wrong
numbers.map(abs, parallelsim=2)  # wrong
numbers.map(abs, on_error="ignore")  # wrong
numbers.map(abs, retry="3")  # wrong
numbers.map(abs, workers="threads")  # wrong
numbers.map(abs, parallelism="2")  # wrong
texts.map(length, in_flight="8")  # wrong
numbers.filter(lambda n: n.startswith("a"))  # wrong
numbers.flatmap(abs)  # wrong
numbers.sink(abs, workers="processes")  # wrong
texts.window(Tumbling(60))  # wrong
texts.keyby(len, strategy="random")  # wrong
texts.keyby(len).window(60)  # wrong
texts.keyby(len).window(Tumbling(60), on_signal="keep")  # wrong
texts.keyby(len).reduce(lambda one, two: len(one) + len(two))  # wrong
texts.keyby(len).join(texts)  # wrong
numbers.batch(2).map(abs)  # wrong
numbers.map_batches(abs, 2)  # wrong
collected: list[str] = numbers.collect()  # wrong
numbers.fold(0, lambda so_far, n: str(n))  # wrong
numbers.with_timestamps(str)  # wrong
job = env.submit(autostop=True)
job.report.outcom  # wrong


class Embedder(Service):
    @batched(64)
    def embed(self, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]


embedder = env.service("embedder", Embedder, retry=3)
numbers.map(embedder.embed)  # wrong
embedder.embed(["a", "b"])  # wrong
embedder.with_policy(timout=1)  # wrong
env.service("late", Embedder, timeout="1")  # wrong
env.service("limited", Embedder, rate="1/s")  # wrong
env.service("judged", Embedder, judge=lambda error: 3)  # wrong
batched("64")  # wrong
