"""The messages on standard error when SIGINT or SIGTERM ends a job: at the signal, and when the job is over."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ._kinds import FUTURE, ITERABLE

if TYPE_CHECKING:
    from ._transformation import Transformation

#: What has its length at hand, without a line of a program's.
_SIZED = (list, tuple, range, set, frozenset, dict, str, bytes, bytearray)


class Sources:
    """The sources of a job, and how many records each has, if that is known."""

    def __init__(self, pipeline: Iterable[Transformation]) -> None:
        self._steps = [step for step in pipeline if not step.inputs and step.kind is not FUTURE]

    def read(self, report: Mapping[str, Any]) -> int:
        names = {step.name for step in self._steps}
        return sum(operator["records_in"] for operator in report.get("operators", []) if operator["name"] in names)

    def all(self) -> int | None:
        """How many records there are in all; ``None`` if that is unknown."""
        if not all(step.kind is ITERABLE and type(step.made[0]) in _SIZED for step in self._steps):
            return None
        return sum(len(step.made[0]) for step in self._steps)


def tell_stopping(unfinished: int) -> None:
    """Says that the records that were read are being finished."""
    _tell(f"stopping: finishing {_records(unfinished)}; Ctrl-C again to drop them")


def tell_interrupted(sources: Sources, report: Mapping[str, Any]) -> None:
    """Says how far the job came."""
    dropped, read, in_all = report.get("dropped", 0), sources.read(report), sources.all()
    # Of a job that made all of it final, nothing was cut off but its input.
    word = "stopped" if report.get("outcome") == "succeeded" else "interrupted"
    done = f"{read - dropped:,}" + ("" if in_all is None else f" of {in_all:,}")
    _tell(f"{word}: {done} done" + (f", {_records(dropped)} dropped" if dropped else ""))


def told_of(kept: list[str]) -> str | None:
    """Names on standard error the unfinished files of a job that a signal ended. Returns the message."""
    if not kept:
        return None
    files, kept[:] = sorted(kept), []
    few = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
    said = f"interrupted: what was written so far is in {few}"
    _tell(said)
    return said


def _records(number: int) -> str:
    return f"{number:,} record" + ("" if number == 1 else "s")


def _tell(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except Exception:
        pass  # nobody can see it
