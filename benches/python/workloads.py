"""The workloads: their inputs, and the user functions that every system calls.

Knows of no system. The functions are small on purpose: what is measured is what a system adds to them. Modules that
only one workload needs are imported where it does: the memory of P7 shall be a system's, not theirs.
"""

from __future__ import annotations

from functools import partial
from operator import add, and_, mul
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

#: Records of each workload, and of a quick run.
SIZES = {"p1": 1_000_000, "p2": 500_000, "p3": 200_000, "p4": 2_000}
SIZES |= {"p5": 20_000, "ints": 1_000_000, "dicts": 200_000, "large": 400, "calls": 50_000}
SIZES |= {"keyed": 500_000, "many": 1, "begin": 1, "policy": 50_000}
QUICK_SIZES = {"p1": 50_000, "p2": 5_000, "p3": 10_000, "p4": 400}
QUICK_SIZES |= {"p5": 1_000, "ints": 50_000, "dicts": 10_000, "large": 20, "calls": 2_000}
QUICK_SIZES |= {"keyed": 20_000, "many": 1, "begin": 1, "policy": 2_000}

#: How many processes work where several do.
PROCESSES = 2

#: How often the loop of P5 goes round: some 200 µs of Python.
SPINS = 4_000

#: What P4 has in flight at most, and how long each of its records waits, in seconds.
IN_FLIGHT = 200
AWAIT_SECONDS = 0.02

WORDS_PER_LINE = 10


def scale(n: int) -> int:
    return n * 3 + 1


def keep(n: int) -> bool:
    return n % 4 != 0


def shift(n: int) -> int:
    return n - 7


#: The same as ``scale``, ``keep`` and ``shift``, by functions that are not written in Python.
TRIPLE, INCREMENT, REST, SHIFT = partial(mul, 3), partial(add, 1), partial(and_, 3), partial(add, -7)


def spin(n: int) -> int:
    x = 0
    for i in range(SPINS):
        x += i ^ n
    return x


def bucket(n: int) -> int:
    return n % 1000


def enrich(doc: dict[str, Any]) -> dict[str, Any]:
    return {"id": doc["id"], "text": doc["text"].upper(), "length": len(doc["text"])}


def reverse(data: bytes) -> bytes:
    return data[::-1]


#: Where replicas give their results in whatever order, and what they are sorted by.
UNORDERED: dict[str, Callable[[Any], Any]] = {"p5": int, "dicts": lambda doc: doc["id"], "large": bytes}


class Total:
    """A sink: how many records came, and their sum."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0

    def take(self, n: int) -> None:
        self.count += 1
        self.sum += n

    def answer(self) -> tuple[int, int]:
        return self.count, self.sum


def split(line: str) -> list[str]:
    return line.split()


def key(word: str) -> str:
    return word


def step(count: int, word: str) -> int:
    return count + 1


class Counter:
    """A service with a state. The sum of its results tells whether all calls came to one object, in whatever order."""

    def __init__(self) -> None:
        self.calls = 0

    def add(self, n: int) -> int:
        self.calls += 1
        return n + self.calls


class Model:
    """A service that answers at once, so that what is measured is the way to it. Limits that it never comes near to are
    in ``ATTEMPTS``, ``RATE`` and ``AT_ONCE``."""

    async def answer(self, n: int) -> int:
        return n + 1


#: The policy of P8: attempts in all, calls a second, and calls under way.
ATTEMPTS = 3
RATE = 1_000_000
AT_ONCE = 64


class Waits:
    """Something to await that takes its time, and knows how many awaited it at once."""

    def __init__(self) -> None:
        import asyncio
        import threading

        self._sleep = asyncio.sleep
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    async def fetch(self, n: int) -> int:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        await self._sleep(AWAIT_SECONDS)
        with self._lock:
            self._inside -= 1
        return n


def source(workload: str, size: int, folder: Path) -> list[Any] | range:
    """The input of a workload: numbers, or for P2 lines, which are made once and kept in ``folder``."""
    if workload == "dicts":
        return [{"id": n, "text": f"the text of number {n}", "tags": ["a", "b"]} for n in range(size)]
    if workload == "large":
        return [bytes([n % 256]) * (1 << 20) for n in range(size)]
    if workload != "p2":
        return range(size)
    file = folder / f"python-lines-{size}.txt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Under its name only when it is complete: a run that was interrupted leaves no half of it.
        made = file.with_suffix(".tmp")
        made.write_text("\n".join(_lines(size)), encoding="ascii")
        made.rename(file)
    return file.read_text(encoding="ascii").split("\n")


def _lines(size: int) -> Iterable[str]:
    """Lines of words that follow Zipf's law, from a fixed seed."""
    import random
    from itertools import accumulate

    chance = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 10))) for _ in range(10_000)]
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    for _ in range(size):
        yield " ".join(chance.choices(words, cum_weights=weights, k=WORDS_PER_LINE))
