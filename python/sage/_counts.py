"""How many records each of several functions has taken and given that ran together as one operator.

The engine counts what goes into such an operator and what comes out; nothing is counted between its functions,
as that would cost something for each record. What one function gives for each record it takes follows from
these two numbers; between functions that leave records out or add some, the number is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._kinds import SINK, Kind
from ._sage import Spec

if TYPE_CHECKING:
    from ._plan import Step

#: The names and kinds of the functions of each operator that has several, by its name.
Parts = dict[str, list[tuple[str, Kind]]]

#: What one of several functions has taken and given; ``None`` is not known.
Counted = tuple[str, int | None, int | None]

#: How much of a name the table of the report shows: ``TABLE_CHARS`` of the engine's.
_TABLE_CHARACTERS = 60


def parts_of(steps: list[Step]) -> Parts:
    """The functions of each operator of a plan that has several; none where a ``take`` or ``zip`` may cut off
    what they do."""
    if any(isinstance(step.spec, (Spec.Take, Spec.Zip)) for step in steps):
        return {}
    return {step.name: [(part.name, part.kind) for part in step.run] for step in steps if len(step.run) > 1}


def counted(operator: dict[str, Any], parts: list[tuple[str, Kind]]) -> list[Counted]:
    """What each function has taken and given, of an operator that was not broken off."""
    between: list[int | None] = [operator["records_in"]]
    for _, kind in parts:
        between.append(between[-1] if kind.one_to_one else None)
    if parts[-1][1] is not SINK:
        known: int | None = operator["records_out"]
        for index in range(len(parts), 0, -1):
            if between[index] is None:
                between[index] = known
            if parts[index - 1][1].one_to_one is False:
                break
    return [(name, between[index], between[index + 1]) for index, (name, _) in enumerate(parts)]


def told(text: str, operators: list[dict[str, Any]], functions: dict[str, list[Counted]]) -> str:
    """The report in words, with a line for each function below that of its operator."""
    width = max((len(_short(operator["name"])) for operator in operators), default=0)
    lines = []
    waiting: dict[str, list[list[Counted]]] = {}
    for operator, counts in functions.items():
        waiting.setdefault(_short(operator), []).append(counts)
    is_table = False
    for line in text.splitlines():
        lines.append(line)
        is_table = is_table or line.startswith("  operator ")
        name = line[2 : 2 + width].rstrip()
        for function, taken, given in waiting[name].pop(0) if is_table and waiting.get(name) else []:
            function = _short(function)
            lines.append(f"  {'  ' + function:{width}}  {shown(taken):>12} {shown(given):>12}")
    return "\n".join(lines) + ("\n" if text.endswith("\n") else "")


def _short(name: str) -> str:
    """A name as the table of the report shows it."""
    return name if len(name) <= _TABLE_CHARACTERS else name[: _TABLE_CHARACTERS - 1] + "…"


def shown(count: int | None) -> str:
    """A number, or what stands for one that is not known."""
    return "?" if count is None else str(count)
