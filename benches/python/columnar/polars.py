"""Polars, with both of its engines: the one that holds all columns, and the one that takes them in parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import workloads
from columnar.answers import Program, digest


def programs(workload: str, inputs: dict[str, Any]) -> dict[str, Program]:
    make = {"r2_parallel": _words_of_a_file, "r3": _sums, "r4": _join, "p2": _words_of_lines}[workload]
    query, told = make(inputs)
    return {engine: Program(partial(query, engine), told) for engine in ("in-memory", "streaming")}


Made = tuple[Callable[[Any], Any], Callable[[Any], str]]


def _pairs(frame: pl.DataFrame) -> str:
    return digest(frame.iter_rows())


def _counted(lines: pl.LazyFrame) -> pl.LazyFrame:
    """The words of all lines, counted. Words are what single spaces divide, which is faster than any white space."""
    words = lines.select(pl.col("line").str.split(" ").explode().alias("word"))
    return words.group_by("word").agg(pl.len().alias("count"))


def _words_of_a_file(inputs: dict[str, Any]) -> Made:
    return lambda engine: _counted(pl.scan_lines(inputs["text"], name="line")).collect(engine=engine), _pairs


def _words_of_lines(inputs: dict[str, Any]) -> Made:
    """From a list of Python strings to a dict of Python's, as ours."""
    lines = workloads.source("p2", inputs["lines"], Path(inputs["folder"]))

    def query(engine: Any) -> dict[str, int]:
        counts = _counted(pl.LazyFrame({"line": lines})).collect(engine=engine)
        return dict(zip(counts["word"].to_list(), counts["count"].to_list()))

    return query, lambda counts: digest(counts.items())


def _frame(inputs: dict[str, Any], names: dict[str, str]) -> pl.DataFrame:
    return pl.DataFrame({name: np.fromfile(inputs[file], dtype="<u8") for name, file in names.items()})


def _sums(inputs: dict[str, Any]) -> Made:
    records = _frame(inputs, {"key": "key", "value": "value"})
    sums = records.lazy().group_by("key").agg(pl.col("value").sum())
    return lambda engine: sums.collect(engine=engine), _pairs


def _join(inputs: dict[str, Any]) -> Made:
    left = _frame(inputs, {"key": "left_key", "left": "left_value"})
    right = _frame(inputs, {"key": "right_key", "right": "right_value"})
    pairs = left.lazy().join(right.lazy(), on="key")
    # Sums of numbers of 64 bits wrap in Polars, as ours do.
    total = pairs.select((pl.col("key") ^ pl.col("left") ^ pl.col("right")).sum())
    return lambda engine: total.collect(engine=engine), lambda frame: str(frame.item())
