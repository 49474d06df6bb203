"""Daft, with functions of rows and with functions of batches; its results come as batches in both."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import daft
from daft import DataType, Series, col
from workloads import IN_FLIGHT, Counter, Total, Waits, keep, key, scale, shift, split

_INT = DataType.int64()
_TEXT = DataType.string()
_TEXTS = DataType.list(DataType.string())


def _rows(function: Callable[[Any], Any], dtype: DataType) -> Any:
    return daft.func(function, return_dtype=dtype)


def _batches(function: Callable[[Any], Any], dtype: DataType) -> Any:
    def call(series: Series) -> Series:
        return Series.from_pylist([function(item) for item in series.to_pylist()], dtype=dtype)

    return daft.func.batch(return_dtype=dtype)(call)


def _values(frame: daft.DataFrame, column: str) -> Iterator[Any]:
    for batch in frame.to_arrow_iter():
        yield from batch.column(column).to_pylist()


def p1(source: Any, udf: Any = _rows) -> Any:
    total = Total()
    take = total.take
    frame = daft.range(len(source)).select(udf(scale, _INT)(col("id")).alias("n"))
    frame = frame.where(udf(keep, DataType.bool())(col("n"))).select(udf(shift, _INT)(col("n")).alias("n"))
    for n in _values(frame, "n"):
        take(n)
    return total.answer()


def p2(source: Any, udf: Any = _rows) -> Any:
    words = daft.from_pydict({"line": source}).select(udf(split, _TEXTS)(col("line")).alias("word")).explode("word")
    keyed = words.select(udf(key, _TEXT)(col("word")).alias("word"))
    counts = keyed.groupby("word").agg(col("word").count().alias("count")).to_pydict()
    return dict(zip(counts["word"], counts["count"]))


# The limit moves it to a process of its own; without it, there are several objects, each with a state.
@daft.cls(max_concurrency=1)
class _Adds:
    def __init__(self) -> None:
        self.counter = Counter()

    @daft.method(return_dtype=_INT)
    def add(self, n: int) -> int:
        return self.counter.add(n)

    @daft.method.batch(return_dtype=_INT)
    def add_batch(self, numbers: Series) -> Series:
        return Series.from_pylist([self.counter.add(n) for n in numbers.to_pylist()])


def _p3(source: Any, method: str) -> Any:
    total = Total()
    frame = daft.range(len(source)).select(getattr(_Adds(), method)(col("id")).alias("n"))
    for n in _values(frame, "n"):
        total.take(n)
    return total.answer()


#: Where P4's functions find `_waits`: Daft pickles what they hold themselves, and a lock cannot be pickled.
_here = sys.modules[__name__]
_waits = Waits()


@daft.cls(max_concurrency=IN_FLIGHT, use_process=False)
class _Fetches:
    @daft.method(return_dtype=_INT)
    async def fetch(self, n: int) -> int:
        return await _here._waits.fetch(n)


def p4(source: Any) -> Any:
    global _waits
    _waits = waits = Waits()
    frame = daft.range(len(source)).select(_Fetches().fetch(col("id")).alias("n"))
    return list(_values(frame, "n")), waits.most


CONTENDERS = {
    "p1": {"daft": p1, "daft_batch": lambda source: p1(source, _batches)},
    "p2": {"daft": p2, "daft_batch": lambda source: p2(source, _batches)},
    "p3": {"daft": lambda source: _p3(source, "add"), "daft_batch": lambda source: _p3(source, "add_batch")},
    "p4": {"daft": p4},
}
PARTS = {"p1 daft": 5, "p2 daft": 5}
