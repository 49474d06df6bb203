"""The steps of a pipeline, as a program declares them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._functions import Made

#: Kinds that keep the time of a record.
_KEEPING_TIME = {"map", "filter", "flatmap", "split", "keyby", "keytag", "async", "window", "folded", "future"}

#: Options by which each record may fail for itself.
_POLICY = {"skip", "attempts", "letters"}

#: Kinds behind which records are spread by their keys.
KEYING = {"keyby", "keytag"}


@dataclass(eq=False)
class Transformation:
    """A step of a pipeline."""

    kind: str
    name: str
    made: Made
    #: The steps whose records it takes, and which output of theirs: 0, or those behind it for what was set apart.
    inputs: list[tuple[Transformation, int]] = field(default_factory=list)
    parallelism: int = 1
    #: How a ``keyby`` spreads its records over the replicas that follow.
    strategy: str = "hash"
    #: Of several connected streams, which one it is.
    index: int = 0
    #: What else its kind needs.
    options: dict[str, Any] = field(default_factory=dict)
    _timed: bool | None = None

    @property
    def is_timed(self) -> bool:
        """Whether its records have a time."""
        # Not by recursion, nor asked twice of a step: there may be as many as memory holds.
        asked = [self]
        while asked:
            step = asked[-1]
            if step._timed is None:
                unknown = [before for before, _ in step.inputs if before._timed is None]
                if unknown and step.kind in _KEEPING_TIME:
                    asked += unknown
                    continue
                keeps = step.kind in _KEEPING_TIME and bool(step.inputs)
                step._timed = step.kind == "timestamps" or (keeps and all(b._timed for b, _ in step.inputs))
            asked.pop()
        return bool(self._timed)

    @property
    def has_policy(self) -> bool:
        """Whether each record may fail for itself."""
        return not _POLICY.isdisjoint(self.options)
