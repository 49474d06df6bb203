"""The steps of a pipeline, as a program declares them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ._functions import BaseFunction, FutureFunction, KafkaSourceFunction, SimpleBatchFunction
from ._made import Made, asks_key
from ._kinds import FUTURE, ITERABLE, KAFKA, KEYBY, Kind, Part
from ._pace import Pace
from ._policies import FAIL, Policy
from ._sage import Spec, Strategy
from ._states import State
from .ops import Op

if TYPE_CHECKING:
    from ._context import JobContext

#: Of a step without a function.
NOTHING: Made = (None, (), {})


#: Of a step that does not say itself where it runs.
AS_ENVIRONMENT = ""


class Times(NamedTuple):
    """How a watermark follows the times of records, in seconds."""

    out_of_order: float
    idle_after: float | None


@dataclass(eq=False, repr=False)
class Transformation:
    """A step of a pipeline."""

    kind: Kind
    name: str
    made: Made = NOTHING
    #: The steps whose records it takes, and which output of theirs: 0, or those behind it for what was set apart.
    inputs: list[tuple[Transformation, int]] = field(default_factory=list)
    parallelism: int = 1
    #: How a ``keyby`` spreads its records over the replicas that follow.
    strategy: Strategy = Strategy.Hash
    #: Of several connected streams, which one it is.
    index: int = 0
    #: What the engine is asked for, where that is more than to run functions.
    spec: Spec | None = None
    #: Whether its function is awaited.
    is_awaited: bool = False
    #: Where its function runs: ``None`` in this process, ``"processes"`` in workers, or as the environment says.
    workers: str | None = AS_ENVIRONMENT
    #: What becomes of a worker that ends by itself, where the step says it.
    on_worker_loss: str | None = None
    #: What each of its workers takes of a Ray cluster, where the step says it.
    ray: dict[str, Any] = field(default_factory=dict)
    #: What its function keeps.
    state: State = State()
    #: What becomes of records on which its function raises.
    policy: Policy = FAIL
    #: Of what gives each record a time.
    times: Times | None = None
    #: Of a source, how fast it is read.
    pace: Pace = Pace()
    #: Whether a stream that comes from the future is filled.
    is_filled: bool = False
    #: The step of the program that this one of the package's is a part of, and what errors call it then. It is aside
    #: where the records of that step do not go through it, or one by one.
    owner: Transformation | None = None
    told: str = ""
    is_aside: bool = False
    #: Whether the program has closed the pipeline that it was in.
    is_closed: bool = False
    #: Of a ``keyby``, whether one that says as well which stream its records are of has taken its place.
    is_replaced: bool = False
    #: See ``Pipeline.pipeline``, which sets it.
    basename: str = ""
    #: Whether records come to it from behind a `keyby`: the plan finds out.
    has_key: bool = False
    _timed: bool | None = None

    def __repr__(self) -> str:
        # What its function was made with may be secret, and the steps before it show all that were before them.
        return f"Transformation({self.name!r})"

    @property
    def is_timed(self) -> bool:
        """Whether its records have a time."""
        # Not by recursion, nor asked twice of a step: there may be as many as memory holds.
        asked = [self]
        while asked:
            step = asked[-1]
            if step._timed is None:
                keeps = step.kind.keeps_time and bool(step.inputs)
                unknown = [before for before, _ in step.inputs if before._timed is None] if keeps else []
                if unknown:
                    asked += unknown
                    continue
                step._timed = step.kind.gives_time or (keeps and all(b._timed for b, _ in step.inputs))
            asked.pop()
        return bool(self._timed)

    @property
    def root(self) -> Transformation:
        """The step of the program that it is, or is a part of."""
        step = self
        while step.owner is not None:
            step = step.owner
        return step

    @cached_property
    def function_class(self) -> type:
        """The class of its functions; where they have none, one that is called as they are."""
        function = self.made[0]
        if isinstance(function, type):
            return function
        stands_for = {ITERABLE: SimpleBatchFunction, FUTURE: FutureFunction, KAFKA: KafkaSourceFunction}.get(self.kind)
        return stands_for or type(self.name, (self.kind.base or BaseFunction,), {})

    @property
    def upstreams(self) -> list[Transformation]:
        """As ``before``, by SAGE's name."""
        return self.before

    @property
    def before(self) -> list[Transformation]:
        """The steps of the program whose records it takes."""
        found: dict[Transformation, None] = {}
        for step, _ in self.inputs:
            found.update(dict.fromkeys(step.before if step.root is self else [step.root]))
        return list(found)

    @property
    def is_function(self) -> bool:
        """Whether it can be one of several that run together."""
        return self.kind.is_function and self.spec is None and self.policy == FAIL

    @property
    def is_flight(self) -> bool:
        """Whether several records are worked on at a time."""
        return isinstance(self.spec, Spec.Async)

    def elsewhere(self, job: JobContext) -> tuple[str, str, dict[str, Any]] | None:
        """Where its function runs, if not in this process, what becomes of a worker that ends by itself, and what a
        worker takes."""
        workers = job.workers if self.workers == AS_ENVIRONMENT else self.workers
        is_chain = self.spec is None and self.kind.is_function
        if workers is None or not (is_chain or self.is_flight) or self.kind.ends or self.is_native:
            return None
        return workers, self.on_worker_loss or job.on_worker_loss, self.ray if workers == "ray" else {}

    @property
    def is_native(self) -> bool:
        """Whether the engine itself runs its function, without the interpreter."""
        if self.kind.native is None or not self.is_function:
            return False
        op = self.made[0]
        if self.kind.at_end:
            before = self.inputs[0][0]
            return before.kind is KEYBY and before.is_native and (op is None or isinstance(op, Op))
        # What the records have inside may be an iterator without end, which loops go through bit by bit.
        return isinstance(op, Op) and (not self.kind.loops or op.name == "split")

    @property
    def asks_key(self) -> bool:
        """Whether its function asks for the keys of records, where they have some."""
        return self.has_key and asks_key(self.made[0])

    @property
    def part(self) -> Part:
        """It without the steps before it."""
        kind = self.kind
        if kind.in_cells is not None and isinstance(self.spec, Spec.Expiring):
            kind = kind.in_cells
        name, inputs = self.told or self.name, len(self.inputs)
        return Part(kind, name, self.made, self.index, inputs, self.state, self.has_key, self.asks_key)


def behind(steps: Iterable[Transformation]) -> set[Transformation]:
    """The steps of the program whose records come out of these, these included."""
    found = {step.root for step in steps}
    left = list(found)
    while left:
        more = set(left.pop().before) - found
        found |= more
        left += more
    return found
