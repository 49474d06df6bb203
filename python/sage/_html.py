"""How a notebook shows pipelines and reports: the declared graph as SVG, and the report as tables.

Steps stand in columns, each behind all steps whose records it takes. Within a column they are in the order of the steps
they follow. Names of the program are escaped, and never become markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from ._kinds import FUTURE
from ._sage import Spec

if TYPE_CHECKING:
    from ._job import JobId
    from ._transformation import Transformation

_CHARACTER = 7  # width in pixels at the size of the font below
_LONGEST = 28  # characters of a name
_HEIGHT, _ROW, _GAP, _MARGIN = 38, 54, 40, 8

#: Colours that can be read on light and dark pages alike.
_STYLE = "font-family:monospace;font-size:11px;color:inherit;max-width:100%"


def columns(pipeline: list[Transformation]) -> list[list[Transformation]]:
    """The steps by how many are before them at most, those of a column in the order of what they follow."""
    depth: dict[Transformation, int] = {}
    for step in pipeline:  # a step is declared behind its inputs
        depth[step] = 1 + max((depth[before] for before in step.before), default=-1)
    placed: list[list[Transformation]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for step in pipeline:
        placed[depth[step]].append(step)
    row: dict[Transformation, float] = {}
    for column in placed:
        follows = {step: [row[before] for before in step.before] for step in column}
        column.sort(key=lambda step: sum(follows[step]) / max(len(follows[step]), 1))
        row.update((step, float(number)) for number, step in enumerate(column))
    return placed


def described(step: Transformation) -> str:
    """A step's kind, in a word or two."""
    kind = step.kind.name
    return kind if step.parallelism == 1 else f"{kind} ×{step.parallelism}"


def graph(pipeline: list[Transformation], services: Iterable[str], chosen: Transformation | None = None) -> str:
    """The graph of a pipeline as SVG, its services below it; the border of the ``chosen`` step is thick."""
    pipeline = [step for step in pipeline if step.owner is None]
    if not pipeline and not services:
        return "<p>nothing is declared yet</p>"
    shapes: list[str] = []
    at: dict[Transformation, tuple[int, int, int]] = {}
    x, bottom = _MARGIN, _MARGIN
    for column in columns(pipeline):
        width = max(_width(text) for step in column for text in (step.name, described(step)))
        for number, step in enumerate(column):
            y = _MARGIN + number * _ROW
            at[step] = x, y, width
            border = 2.5 if chosen is not None and step is chosen.root else 1
            shapes.append(_box(x, y, width, step.name, described(step), border))
            bottom = max(bottom, y + _ROW)
        x += width + _GAP
    right = x - _GAP + _MARGIN
    lines = [_line(at[before], at[step]) for step in pipeline for before in step.before]
    futures = {step.name: step for step in pipeline if step.kind is FUTURE}
    for step in pipeline:
        if isinstance(step.spec, Spec.Fill):
            lines.append(_line(at[step], at[futures[step.spec.future]], dashes=' stroke-dasharray="4 3"'))
    x = _MARGIN
    for name in services:
        width = _width(name)
        shapes.append(_box(x, bottom, width, name, "service", 1, corner=_HEIGHT // 2))
        x += width + _MARGIN
        right = max(right, x)
    if x > _MARGIN:
        bottom += _ROW
    size = f'width="{right}" height="{bottom}" viewBox="0 0 {right} {bottom}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="{_STYLE}">'
    return "\n".join([head, *lines, *shapes, "</svg>"])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _width(text: str) -> int:
    return max(len(_short(text)), 6) * _CHARACTER + 16


def _box(x: int, y: int, width: int, name: str, kind: str, border: float, corner: int = 4) -> str:
    middle = x + width // 2
    return (
        f"<g><title>{escape(name)}: {escape(kind)}</title>"
        f'<rect x="{x}" y="{y}" width="{width}" height="{_HEIGHT}" rx="{corner}" fill="#8882" stroke="currentColor" '
        f'stroke-width="{border}"/>'
        f'<text x="{middle}" y="{y + 16}" text-anchor="middle" fill="currentColor">{escape(_short(name))}</text>'
        f'<text x="{middle}" y="{y + 30}" text-anchor="middle" fill="currentColor" opacity="0.6">'
        f"{escape(_short(kind))}</text></g>"
    )


def _line(begin: tuple[int, int, int], end: tuple[int, int, int], dashes: str = "") -> str:
    x1, y1 = begin[0] + begin[2], begin[1] + _HEIGHT // 2
    x2, y2 = end[0], end[1] + _HEIGHT // 2
    bend = _GAP // 2
    path = f"M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    tip = f"M{x2 - 6} {y2 - 4} L{x2} {y2} L{x2 - 6} {y2 + 4}"
    return f'<path d="{path} {tip}" fill="none" stroke="currentColor" opacity="0.7"{dashes}/>'


def report(data: dict[str, Any]) -> str:
    """The report of a job: its outcome, its operators, the functions that ran together in them, and its services."""
    if not data:
        return "<p>no report: the job was not started</p>"
    cause = data.get("first_cause") or {}
    parts = [
        f"<p>job <b>{escape(str(data['environment']))}</b>: {escape(_words(data['outcome']))}, "
        f"{escape(_words(data['cleanliness']))}, after {_seconds(data['elapsed'])}</p>"
    ]
    if cause:
        parts.append(f"<pre>{escape(str(cause.get('message', '')))}</pre>")
    operators: list[tuple[Any, ...]] = []
    for o in data.get("operators", []):
        counts = (o["records_in"], o["records_out"], o["failed"], o["retries"])
        operators.append((o["name"], o["parallelism"], *counts, _seconds(o["busy"])))
        for function in o["functions"]:
            name, *counts = function.values()
            known = ("?" if count is None else count for count in counts)
            operators.append((f"\u2003{name}", "", *known, "", "", ""))
    parts.append(_table(("operator", "replicas", "in", "out", "failed", "retries", "busy"), operators))
    services = [(s["name"], _words(s["state"]), s["calls"], s["errors"]) for s in data.get("services", [])]
    if services:
        parts.append(_table(("service", "state", "calls", "errors"), services))
    return "\n".join(parts)


def job(job: JobId) -> str:
    """A job: its report if it is over, else how far it is."""
    from ._pickling import Elsewhere
    from ._progress import line

    state = job.state
    if state == "ended":
        return job.report._repr_html_()
    # Of a job of another process it is known how far it was when its id came here.
    far = state if isinstance(job._run, Elsewhere) else f"{state}, {line(job.metrics())}"
    return f"<p>job <b>{escape(job)}</b>: {escape(far)}</p>"


def _words(value: Any) -> str:
    """A value of the report that is a name, or a name with what belongs to it."""
    name = next(iter(value), "") if isinstance(value, dict) else value
    return str(name).replace("_", " ")


def _seconds(duration: dict[str, int]) -> str:
    return f"{duration['secs'] + duration['nanos'] / 1e9:.3g} s"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["<table>", "<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    for row in rows:
        cells = (f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in row)
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "\n".join([*lines, "</table>"])
