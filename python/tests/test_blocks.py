"""Containers, which are read block by block: how far a block goes before its records go on, and what is counted."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from sage import LocalEnvironment

#: As many records a block has at most.
MOST = 4096


def test_the_first_record_goes_on_before_the_second_is_worked_on() -> None:
    arrived = threading.Event()
    in_time: list[bool] = []

    def slow(record: int) -> int:
        if record == 1:
            # Only the first record's arrival lets the second one go on.
            in_time.append(arrived.wait(30))
        return record

    env = LocalEnvironment("first")
    # Replicas are tasks of their own: the records come to them when the block is over.
    env.from_batch([0, 1]).map(slow).map(lambda record: arrived.set(), parallelism=2).collect()
    env.submit(autostop=True)
    assert in_time == [True]


class Blocks:
    """A function that notes how many records are worked on at a time, and which was the last of them."""

    def __init__(self, slow: set[int]) -> None:
        self.slow = slow
        self.lengths: list[int] = []
        self.last: list[int] = []

    def __call__(self, record: int) -> int:
        # The loop over a block, which has given nothing yet when it begins.
        if not sys._getframe(1).f_locals["out"]:
            self.lengths.append(0)
            self.last.append(record)
        self.lengths[-1] += 1
        self.last[-1] = record
        if record in self.slow:
            threading.Event().wait(0.25)  # what takes long: much longer than a block may take
        return record


def test_blocks_grow_while_records_come_fast_and_shrink_when_they_do_not() -> None:
    count = 40_000
    blocks = Blocks({20_000, 24_000, 26_000})
    env = LocalEnvironment("paced")
    worked = env.from_batch(range(count)).map(blocks)
    # Read by two, so that the loop over a block gives its records to others.
    got, _ = worked.collect(), worked.collect()
    env.submit(autostop=True)
    assert got == list(range(count)) and sum(blocks.lengths) == count
    assert blocks.lengths[0] == 1 and max(blocks.lengths) <= MOST
    pairs = list(zip(blocks.lengths, blocks.lengths[1:]))
    assert all(after <= 2 * max(blocks.lengths[: number + 1]) for number, (_, after) in enumerate(pairs))
    assert any(after == 2 * before for before, after in pairs)
    # One that takes long is the last of its block, and the next is smaller.
    assert blocks.slow <= set(blocks.last)
    behind_slow = [pair for pair, last in zip(pairs, blocks.last) if last in blocks.slow]
    assert len(behind_slow) == 3 and all(after <= max(before // 4, 1) for before, after in behind_slow)


CONTAINERS: list[Any] = [list, tuple, set, frozenset, dict.fromkeys, lambda numbers: numbers, lambda n: "x" * len(n)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4095, 4096, 4097, 30_001])
@pytest.mark.parametrize("made", CONTAINERS, ids=["list", "tuple", "set", "frozenset", "dict", "range", "str"])
def test_the_report_counts_the_records_of_a_container_exactly(made: Any, count: int) -> None:
    env = LocalEnvironment("counted")
    records = env.from_batch(made(range(count)), name="all")
    if count % 2:
        # For one that reads it, it is read in the same task; for two, in one of its own.
        records.filter(lambda record: False, name="none").map(str, name="text").collect()
    records.filter(lambda _: True, name="every").map(str, name="same").sink(len, name="kept")
    report = env.submit(autostop=True).report
    operators = report.data["operators"]
    counts = {operator["name"]: (operator["records_in"], operator["records_out"]) for operator in operators}
    assert counts["all"] == (count, count)
    assert counts["every → same → kept"] == (count, count)
    assert counts.get("none → text → collect", (count, count))[0] == count
