"""The rows that a reader judges us by, and their forms: a table on the terminal, JSON, and one in the documentation.

Every value is a cost (time, or memory), so lower is better and a ratio is ours over theirs, as in the engine's table.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

#: Above this, the slowest run is so far from the fastest that the median deserves doubt.
NOISY_SPREAD = 1.5

BEGIN, END = "<!-- python:begin -->", "<!-- python:end -->"


@dataclass(frozen=True)
class Figure:
    """The median of some runs, and how far the slowest is from the fastest."""

    median: float
    spread: float = 1.0

    @classmethod
    def of(cls, values: list[float]) -> Figure:
        return cls(median(values), max(values) / min(values) if min(values) > 0 else 1.0)


@dataclass
class Row:
    """One comparison. What was not measured is ``None``."""

    name: str
    ours: float | None
    unit: str
    versus: str
    other: float | None
    ratio: float | None
    goal: str = "reported"
    met: bool | None = None
    spread_ours: float = 1.0
    spread_other: float = 1.0

    @property
    def verdict(self) -> str:
        verdict = {True: "met", False: "MISSED", None: "–"}[self.met]
        noisy = " (noisy)" if max(self.spread_ours, self.spread_other) > NOISY_SPREAD else ""
        return verdict + noisy

    def cells(self) -> list[str]:
        numbers = ["–" if value is None else f"{value:g}" for value in (self.ours, self.other, self.ratio)]
        return [self.name, numbers[0], self.unit, self.versus, numbers[1], numbers[2], self.goal, self.verdict]


def compare(
    name: str, unit: str, ours: Figure, versus: str, other: Figure, at_most: float | None = None, meaning: str = ""
) -> Row:
    """Sets us beside another; the goal, if any, is on the ratio, and ``meaning`` says it as it was promised."""
    ratio = ours.median / other.median
    row = Row(name, _round(ours.median), unit, versus, _round(other.median), _round(ratio))
    row.spread_ours, row.spread_other = _round(ours.spread), _round(other.spread)
    if at_most is not None:
        row.goal, row.met = f"ratio ≤ {at_most:.3f} ({meaning})", ratio <= at_most
    return row


def limit(name: str, unit: str, ours: Figure, at_most: float) -> Row:
    """Sets us beside a fixed limit."""
    row = compare(name, unit, ours, "the limit", Figure(at_most))
    row.goal, row.met = f"≤ {at_most:g} {unit}", ours.median <= at_most
    return row


def missing(name: str, versus: str) -> Row:
    """Says what was not measured, and why."""
    return Row(name, None, "", versus, None, None)


def _round(value: float) -> float:
    """Four significant digits: more would claim a precision that no run has."""
    return float(f"{value:.4g}")


HEADINGS = ["workload", "ours", "unit", "versus", "other", "ratio", "goal", "verdict"]


def terminal(rows: list[Row]) -> str:
    """The table for a terminal."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    pad = [str.ljust, str.rjust, str.ljust, str.ljust, str.rjust, str.rjust, str.ljust, str.ljust]
    text = "\n".join("  ".join(p(cell, width) for p, cell, width in zip(pad, line, widths)).rstrip() for line in lines)
    return f"{text}\nratio = ours / other; every value is a cost, lower is better"


def markdown(rows: list[Row], caption: str) -> str:
    """The same table in Markdown, under a caption that tells the machine."""
    lines = [caption, "", f"| {' | '.join(HEADINGS)} |", "|---|--:|---|---|--:|--:|---|---|"]
    for row in rows:
        cells = row.cells()
        if row.met is False:
            cells[-1] = f"**{cells[-1]}**"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_json(rows: list[Row], path: Path) -> None:
    """Writes the rows as a JSON array."""
    _write([asdict(row) for row in rows], path)


def merge(rows: list[Row], path: Path) -> None:
    """Puts the rows among those of a file, in place of rows that have their names."""
    names = {row.name for row in rows}
    others = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    kept = [row for row in others if row["name"] not in names]
    _write(kept + [asdict(row) for row in rows], path)


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def rewrite(document: Path, table: str, markers: str = "python") -> None:
    """Puts the table between the markers of this name in a document."""
    first, last = (mark.replace("python", markers) for mark in (BEGIN, END))
    before, begin, rest = document.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{document} lacks {first} or {last}")
    document.write_text(f"{before}{first}\n{table}{last}{after}", encoding="utf-8")
