"""The messages on standard error when SIGINT or SIGTERM ends a job: at the signal, and when the job is over."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._arguments import numbered
from ._kinds import FUTURE, ITERABLE

if TYPE_CHECKING:
    from ._transformation import Transformation

#: What has its length at hand, without a line of a program's: it may change meanwhile.
_SIZED = (list, tuple, range, set, frozenset, dict, str, bytes, bytearray)


class Sources:
    """The sources of a job, and how many records each has, if that is known."""

    def __init__(self, pipeline: Iterable[Transformation]) -> None:
        self._steps = [step for step in pipeline if not step.inputs and step.kind is not FUTURE]
        #: The names of the sources.
        self.names = frozenset(step.name for step in self._steps)
        #: The lengths that code of the program's has told, each asked once.
        self._told: dict[Transformation, int | None] = {}
        self._total: int | None = None

    def read(self, report: Mapping[str, Any]) -> int:
        """How many records were read."""
        rows = report.get("operators", [])
        return sum(operator["records_in"] for operator in rows if operator["name"] in self.names)

    def all(self, asks: bool = True) -> int | None:
        """How many records there are in all; ``None`` if that is unknown. Unless it is told not to, it asks the objects
        that the program gave for their length."""
        if self._steps:
            lengths = [self._length(step, asks) for step in self._steps]
            self._total = None if None in lengths else sum(length or 0 for length in lengths)
        return self._total

    def _length(self, step: Transformation, asks: bool) -> int | None:
        if step.pace.total_count:
            return step.pace.total_count
        records = step.made[0]
        if step.kind is not ITERABLE or not hasattr(type(records), "__len__"):
            return None
        if type(records) in _SIZED:
            return len(records)
        if asks and step not in self._told:
            self._told[step] = _length_of(records)
        return self._told.get(step)

    def over(self) -> None:
        """The job is over: keeps the numbers, and lets go of the program's objects."""
        self.all(asks=False)
        self._steps, self._told = [], {}


def _length_of(records: Any) -> int | None:
    try:
        return len(records)
    except Exception:  # the program's own, which would only have told the length
        return None


def tell_stopping(unfinished: int) -> None:
    """Says that the records that were read are being finished."""
    _tell(f"stopping: finishing {numbered(unfinished, 'record')}; Ctrl-C again to drop them")


def tell_interrupted(sources: Sources, report: Mapping[str, Any]) -> None:
    """Says how far the job came."""
    dropped, read, in_all = report.get("dropped", 0), sources.read(report), sources.all()
    # Of a job that made all of it final, nothing was cut off but its input.
    word = "stopped" if report.get("outcome") == "succeeded" else "interrupted"
    done = f"{read - dropped:,}" + ("" if in_all is None else f" of {in_all:,}")
    _tell(f"{word}: {done} done" + (f", {numbered(dropped, 'record')} dropped" if dropped else ""))


def told_of(kept: list[str]) -> str | None:
    """Names on standard error the unfinished files of a job that a signal ended. Returns the message."""
    if not kept:
        return None
    files, kept[:] = sorted(kept), []
    few = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
    said = f"interrupted: what was written so far is in {few}"
    _tell(said)
    return said


def is_by_signal(exception: object) -> bool:
    """Whether it is what SIGINT or SIGTERM raises, in the program or in a wait for a job."""
    return type(exception) is KeyboardInterrupt or hasattr(exception, "_ends_program")


def leave_out_ours(traceback: TracebackType | None) -> None:
    """Ends a traceback where the program called this package."""
    last = None
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] != __name__.partition(".")[0]:
            last = traceback
        traceback = traceback.tb_next
    if last is not None:
        last.tb_next = None


def _tell(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except Exception:
        pass  # nobody can see it
