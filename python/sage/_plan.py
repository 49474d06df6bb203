"""From the steps that a program declared to those the engine runs: functions that follow each other become one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import GeneratorType
from typing import Any, Protocol

from . import _sage
from ._chain import STATEFUL, Chain, Form, Link, close_all
from ._context import Context
from ._functions import Executed, executed, instance, is_function_class
from ._job_loop import JobLoop
from ._links import links
from ._process import CoRunner, Runner
from ._transformation import KEYING, Transformation
from .ops import Op


class MakesContexts(Protocol):
    """Gives the functions of a step what they know of their job."""

    def __call__(self, step: Transformation, replica: int, parallelism: int) -> Context: ...


@dataclass
class Step:
    """A step of the plan that the engine runs. What the fields mean is written where it reads them."""

    kind: str
    name: str
    inputs: list[tuple[int, int]]
    make: Any
    parallelism: int
    outputs: list[int]
    strategy: str = "round_robin"
    takes: Form = Form()
    gives: Form = Form()
    options: dict[str, Any] = field(default_factory=dict)
    #: The names and kinds of its functions, for the report.
    parts: list[tuple[str, str]] = field(default_factory=list)


#: What has all its records, so that several can be taken at a time.
_CONTAINERS = {list, tuple, range, str, bytes, dict, set, frozenset}

#: Kinds that are operators of the engine, and no functions of a chain.
_ENGINE = {"window", "join", "zip", "async", "process", "expiring", "take", "fill", "to_kafka"}

#: Kinds that the engine runs itself, given a function of `sage.ops`, or behind one that gives the key.
_NATIVE = {"map", "filter", "flatmap", "keyby"}
_NATIVE_ENDS = {"count", "sum"}

#: Kinds that begin a stream.
_SOURCES = {"batch", "iterable", "source", "future", "kafka"}

#: Kinds that end one.
_ENDS = {"sink", "fill", "to_kafka"}

#: So many functions that run together are named in the name of their operator.
_MOST_NAMED = 20

#: Kinds behind times that go on in the same chain: those that give each record they take.
_ONE_TO_ONE = {"map", "keyby", "tag", "keytag"}


def plan(
    pipeline: list[Transformation], name: str, context: MakesContexts, loop: JobLoop, timeouts: Mapping[str, float]
) -> list[Step]:
    """The plan of a pipeline. Raises ``SubmitError`` for one that cannot run."""
    if not pipeline:
        raise _sage.SubmitError(f"`{name}` has no pipeline; begin one with `from_batch`")
    readers: dict[tuple[Transformation, int], list[Transformation]] = {}
    for step in pipeline:
        for before in step.inputs:
            readers.setdefault(before, []).append(step)
    steps: list[Step] = []
    position: dict[Transformation, int] = {}
    for first in pipeline:
        if first in position:
            continue
        run = _run(first, readers)
        for step in run:
            position[step] = len(steps)
        _check(run, readers)
        inputs = [(position[before], output) for before, output in first.inputs]
        steps.append(_planned(run, inputs, readers, context, loop, timeouts))
    return steps


def _run(
    first: Transformation, readers: dict[tuple[Transformation, int], list[Transformation]]
) -> list[Transformation]:
    """The steps that run together, from this one on."""
    run = [first]
    is_timed = first.kind == "timestamps"
    while _is_function(run[-1]) and run[-1].kind != "split" and len(after := readers.get((run[-1], 0), [])) == 1:
        step = after[0]
        if (
            not _is_function(step)
            or is_native(step) != is_native(first)
            or step.parallelism != first.parallelism
            or len(step.inputs) != 1
        ):
            break
        if run[-1].kind in KEYING and step.parallelism != 1:
            break
        if is_timed and step.kind not in _ONE_TO_ONE:
            break
        is_timed = is_timed or step.kind == "timestamps"
        run.append(step)
    return run


def is_native(step: Transformation) -> bool:
    """Whether the engine runs it itself."""
    if step.has_policy:
        return False
    if step.kind in _NATIVE:
        op = step.made[0]
        # What the records have inside may be an iterator without end, which loops go through bit by bit.
        return isinstance(op, Op) and (step.kind != "flatmap" or op.name == "split")
    return step.kind in _NATIVE_ENDS and step.options.get("native", False) is True


def _is_function(step: Transformation) -> bool:
    """Whether it can be one of several in a chain."""
    return step.kind not in _ENGINE and step.kind not in _SOURCES and not step.has_policy


def _check(run: list[Transformation], readers: dict[tuple[Transformation, int], list[Transformation]]) -> None:
    last = run[-1]
    ends = last.kind in _ENDS or last.options.get("as") == "sink"
    if not ends and not readers.get((last, 0)):
        of = "of" if last.kind in _SOURCES else "behind"
        raise _sage.SubmitError(f"the stream {of} `{last.name}` has no sink; end it with `sink` or `collect`")
    if last.kind == "split" and not readers.get((last, 1)):
        which = f"the second stream of the split `{last.name}`"
        raise _sage.SubmitError(f"{which} has no sink; end it with `sink` or `collect`")
    if last.kind == "future" and not last.options.get("filled"):
        raise _sage.SubmitError(f"the future stream `{last.name}` is not filled; end a stream with `fill_future`")


def _planned(
    run: list[Transformation],
    inputs: list[tuple[int, int]],
    readers: dict[tuple[Transformation, int], list[Transformation]],
    context: MakesContexts,
    loop: JobLoop,
    timeouts: Mapping[str, float],
) -> Step:
    first, last = run[0], run[-1]
    kind, make = last.kind, None
    if first.kind in ("batch", "iterable", "source"):
        is_container = first.kind == "iterable" and type(first.made[0]) in _CONTAINERS
        kind, make = "container" if is_container else "source", _source_maker(first, context, loop)
    elif first.kind == "async":
        make = _runner_maker(first, context, loop, timeouts)
    elif first.kind == "expiring":
        make = _chain_maker(run, context, loop)
    elif first.kind == "process":
        make = _process_maker(first, context, loop)
    elif is_native(first):
        kind = "native"
    elif _is_function(first) or first.has_policy:
        kind = "sink" if last.kind == "sink" and not last.has_policy else "chain"
        make = _chain_maker(run, context, loop)
    outputs = [len(readers.get((last, output), [])) for output in (0, 1, 2)]
    step = Step(kind, _name(run), inputs, make, first.parallelism, outputs)
    step.parts = [(part.name, part.kind) for part in run]
    for part in run:
        own = ("initial", "filled", "link", "folding")
        step.options.update({name: value for name, value in part.options.items() if name not in own})
    if (last.kind == "sink" and last.has_policy) or last.options.get("as") == "sink":
        step.options["ends"] = True
    if kind == "native":
        step.options["parts"] = [(part.kind, part.made[0]) for part in run]
    step.takes, step.gives = _forms(run)
    before = first.inputs[0][0] if first.inputs else None
    if before is not None and any(step.kind in KEYING for step, _ in first.inputs) and _is_function(first):
        # In one place, records are together whatever their keys.
        step.strategy = before.strategy if first.parallelism > 1 else "round_robin"
    return step


def _name(run: list[Transformation]) -> str:
    """What functions that run together are called as one operator: their names, or those of the first ones."""
    if len(run) <= _MOST_NAMED:
        return " → ".join(step.name for step in run)
    named = " → ".join(step.name for step in run[: _MOST_NAMED - 1])
    return f"{named} → {len(run) - _MOST_NAMED:,} more → {run[-1].name}"


def _forms(run: list[Transformation]) -> tuple[Form, Form]:
    first, last = run[0], run[-1]
    sets_times = any(step.kind == "timestamps" for step in run)
    comes_timed = bool(first.inputs) and all(before.is_timed for before, _ in first.inputs)
    takes = Form(first.kind in STATEFUL, comes_timed and last.is_timed and not sets_times)
    return takes, Form(last.kind in KEYING or last.kind in ("whole", "split"), last.is_timed)


class _Records:
    """A source: an iterable that is closed."""

    def __init__(self, records: Iterable[Any], made: list[Any], loop: JobLoop) -> None:
        self.records = records
        self._made = made
        self._loop = loop
        self._iterator: Any = None

    def __iter__(self) -> Iterator[Any]:
        iterator = self._iterator = iter(self.records)
        return iterator if isinstance(iterator, (GeneratorType, Executed)) else _given(iterator)

    def close(self) -> None:
        """Closes the iterator as well, which was begun for this job or handed over to it. One that is made for
        ``with``, such as a file, is for its program to close."""
        is_lent = self._iterator is self.records and hasattr(type(self._iterator), "__exit__")
        close_all(self._made if is_lent else [*self._made, self._iterator], self._loop)


def _given(iterator: Iterator[Any]) -> Iterator[Any]:
    """What an iterator gives. Functions such as ``eval`` that one like ``map`` calls look for the globals of their
    caller, and the engine has none."""
    for record in iterator:  # noqa: UP028 (`yield from` would close the iterator)
        yield record


def _source_maker(step: Transformation, context: MakesContexts, loop: JobLoop) -> Any:
    def make(replica: int, parallelism: int) -> _Records:
        if step.kind == "iterable":
            return _Records(step.made[0], [], loop)
        function = instance(step.made, context(step, replica, parallelism))
        made = [function] if isinstance(step.made[0], type) else []
        if step.has_policy:
            return _Records(Executed(step.made, function, step.name), made, loop)
        return _Records(executed(step.made, function, step.kind == "batch", step.name), made, loop)

    return make


def _chain_maker(run: list[Transformation], context: MakesContexts, loop: JobLoop) -> Any:
    takes, gives = _forms(run)

    def make(replica: int, parallelism: int) -> Chain:
        all_links: list[Link] = []
        made: list[Any] = []
        for step in run:
            function = step.made[0]
            if is_function_class(function):
                try:
                    function = instance(step.made, context(step, replica, parallelism))
                except BaseException:
                    close_all(made, loop)
                    raise
                made.append(function)
            all_links += links(step, function)
        return Chain(all_links, made, loop, takes, gives)

    return make


def _runner_maker(
    step: Transformation, context: MakesContexts, loop: JobLoop, timeouts: Mapping[str, float]
) -> Any:
    # Here, as few programs need asyncio, which takes long to import.
    from ._async import Flight, runner

    options = step.options
    flight = Flight(
        options["as"],
        step.name,
        options["in_flight"],
        options["timeout"] is not None,
        timeouts.get("cancel", 10.0),
        timeouts.get("drain", 30.0),
    )

    def make(replica: int, parallelism: int) -> Any:
        function = step.made[0]

        def made() -> Any:
            if is_function_class(function):
                return instance(step.made, context(step, replica, parallelism))
            return function

        return runner(flight, made, options["async"], loop)

    return make


def _process_maker(step: Transformation, context: MakesContexts, loop: JobLoop) -> Any:
    def make(replica: int, parallelism: int) -> Runner:
        function = instance(step.made, context(step, replica, parallelism))
        streams = len(step.inputs)
        return CoRunner(function, streams, loop) if step.options.get("connected") else Runner(function, loop)

    return make
