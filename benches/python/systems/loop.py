"""What one writes without any system: loops that call the same functions, and asyncio."""

from __future__ import annotations

from typing import Any

from workloads import IN_FLIGHT, INCREMENT, REST, SHIFT, TRIPLE, Counter, Total, Waits
from workloads import bucket, enrich, keep, key, reverse, scale, shift, spin, split, step


def p1(source: Any) -> Any:
    total = Total()
    take = total.take
    for n in source:
        n = scale(n)
        if keep(n):
            take(shift(n))
    return total.answer()


def p1_builtins(source: Any) -> Any:
    """The same by functions that are not written in Python."""
    total = Total()
    take = total.take
    for n in source:
        n = INCREMENT(TRIPLE(n))
        if REST(n):
            take(SHIFT(n))
    return total.answer()


def p2(source: Any) -> Any:
    counts: dict[str, int] = {}
    for line in source:
        for word in split(line):
            its = key(word)
            counts[its] = counts.get(its, 0) + 1
    return counts


def p2_fold(source: Any) -> Any:
    """A function counts as well."""
    counts: dict[str, int] = {}
    for line in source:
        for word in split(line):
            its = key(word)
            counts[its] = step(counts.get(its, 0), word)
    return counts


class Adds:
    """A function that calls a method of a service."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter

    def execute(self, n: int) -> int:
        return self.counter.add(n)


def p3(source: Any) -> Any:
    total = Total()
    take = total.take
    execute = Adds(Counter()).execute
    for n in source:
        take(execute(n))
    return total.answer()


def p3_bound(source: Any) -> Any:
    """The barest: the bound method is the function."""
    total = Total()
    take = total.take
    add = Counter().add
    for n in source:
        take(add(n))
    return total.answer()


def p4(source: Any) -> Any:
    import asyncio

    waits = Waits()

    async def all_of_them() -> list[int]:
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def one(n: int) -> int:
            async with slots:
                return await waits.fetch(n)

        return await asyncio.gather(*map(one, source))

    return asyncio.run(all_of_them()), waits.most


def p5(source: Any) -> Any:
    return [spin(n) for n in source]


def dicts(source: Any) -> Any:
    return [enrich(doc) for doc in source]


def large(source: Any) -> Any:
    return [reverse(data) for data in source]


def keyed(source: Any) -> Any:
    counts: dict[int, int] = {}
    for n in source:
        its = bucket(n)
        counts[its] = step(counts.get(its, 0), n)
    return counts


def policy(source: Any) -> Any:
    return [n + 1 for n in source]


CONTENDERS = {
    "p1": {"loop": p1, "loop_builtins": p1_builtins},
    "p2": {"loop": p2, "loop_fold": p2_fold},
    "p3": {"loop": p3, "loop_bound": p3_bound},
    "p4": {"loop": p4},
    "p5": {"loop": p5},
    "ints": {"loop": p1},
    "dicts": {"loop": dicts},
    "large": {"loop": large},
    "keyed": {"loop": keyed},
    "calls": {"loop": p3},
    "policy": {"loop": policy},
}
PARTS: dict[str, int] = {}
