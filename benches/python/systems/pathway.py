"""Pathway: its tables have no order, and its functions of rows are called in batches of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pathway as pw
from workloads import IN_FLIGHT, Counter, Total, Waits, keep, key, scale, shift, split

logging.getLogger("pathway").setLevel(logging.ERROR)


class _Number(pw.Schema):
    n: int


class _Line(pw.Schema):
    line: str


def _table(schema: type[pw.Schema], source: Any) -> pw.Table:
    """A stream of the records, each a row."""
    (column,) = schema.column_names()

    class Subject(pw.io.python.ConnectorSubject):
        def run(self) -> None:
            for record in source:
                self.next(**{column: record})

    return pw.io.python.read(Subject(), schema=schema, autocommit_duration_ms=100)


def _run(table: pw.Table, take: Callable[[dict[str, Any]], None]) -> None:
    def changed(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        if is_addition:
            take(row)

    pw.io.subscribe(table, changed)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    # What was declared stays, and would run again with the next job.
    pw.internals.parse_graph.G.clear()


def p1(source: Any) -> Any:
    total = Total()
    numbers = _table(_Number, source)
    scaled = numbers.select(n=pw.apply_with_type(scale, int, pw.this.n))
    kept = scaled.filter(pw.apply_with_type(keep, bool, pw.this.n))
    _run(kept.select(n=pw.apply_with_type(shift, int, pw.this.n)), lambda row: total.take(row["n"]))
    return total.answer()


def p2(source: Any) -> Any:
    counts: dict[str, int] = {}
    words = _table(_Line, source).select(word=pw.apply_with_type(split, list[str], pw.this.line)).flatten(pw.this.word)
    keyed = words.select(word=pw.apply_with_type(key, str, pw.this.word))
    counted = keyed.groupby(pw.this.word).reduce(pw.this.word, count=pw.reducers.count())
    _run(counted, lambda row: counts.update({row["word"]: row["count"]}))
    return counts


def p3(source: Any) -> Any:
    """There are no services: the method of an object that the program made."""
    total = Total()
    counter = Counter()
    added = _table(_Number, source).select(n=pw.apply_with_type(counter.add, int, pw.this.n))
    _run(added, lambda row: total.take(row["n"]))
    return total.answer()


def p4(source: Any) -> Any:
    waits = Waits()
    results: list[int] = []
    fetch = pw.udf(executor=pw.udfs.async_executor(capacity=IN_FLIGHT))(waits.fetch)
    _run(_table(_Number, source).select(n=fetch(pw.this.n)), lambda row: results.append(row["n"]))
    return results, waits.most


CONTENDERS = {"p1": {"pathway": p1}, "p2": {"pathway": p2}, "p3": {"pathway": p3}, "p4": {"pathway": p4}}
PARTS: dict[str, int] = {}
