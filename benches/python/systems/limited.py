"""Calls with retry, rate and concurrency: ours, and what asyncio programs are written with."""

from __future__ import annotations

import asyncio
from typing import Any

from aiolimiter import AsyncLimiter
from tenacity import retry, stop_after_attempt, wait_random_exponential
from workloads import AT_ONCE, ATTEMPTS, RATE, Model

from sage import Concurrency, LocalEnvironment, Rate


def ours(source: Any) -> Any:
    env = LocalEnvironment("policy")
    rate, concurrency = Rate(calls=RATE, burst=RATE), Concurrency(AT_ONCE)
    model = env.service("model", Model, retry=ATTEMPTS, rate=rate, concurrency=concurrency)
    answers = env.from_batch(source).map(model.answer, in_flight=AT_ONCE, ordered=True).collect()
    env.submit(autostop=True)
    return list(answers)


def by_asyncio(source: Any) -> Any:
    model = Model()

    async def all_of_them() -> list[int]:
        limiter, slots = AsyncLimiter(RATE, 1), asyncio.Semaphore(AT_ONCE)
        waits = wait_random_exponential(multiplier=0.1, max=10)

        @retry(stop=stop_after_attempt(ATTEMPTS), wait=waits, reraise=True)
        async def one(n: int) -> int:
            async with limiter, slots:
                return await model.answer(n)

        # As many at once as there may be: a task for each record would measure the tasks.
        numbers, answers = iter(enumerate(source)), [0] * len(source)

        async def worker() -> None:
            for place, n in numbers:
                answers[place] = await one(n)

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        return answers

    return asyncio.run(all_of_them())


CONTENDERS = {"policy": {"sage": ours, "asyncio": by_asyncio}}
PARTS: dict[str, int] = {}
