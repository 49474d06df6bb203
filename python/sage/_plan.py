"""Plans the steps that the engine runs from the steps that a program declared: functions that follow each other become
one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ._chain import Form
from ._context import JobContext
from ._kinds import COJOIN, COMAP, COMAP_SOME, FUTURE, ITERABLE, MAP, MAP_SOME, SINK, SPLIT, has_key_behind
from ._makers import ChainMaker, FlightMaker, Maker, ProcessMaker, SourceMaker
from ._policies import Policy
from ._sage import Spec, Strategy, SubmitError
from ._transformation import Times, Transformation

#: Which steps read each output of each step.
_Readers = dict[tuple[Transformation, int], list[Transformation]]


class Told(NamedTuple):
    """How a job is told of a step."""

    #: What errors call it.
    name: str
    #: The position of the step in whose row of the report it is.
    row: int = 0
    #: Whether the records of the row do not go through it, or one by one.
    is_aside: bool = False
    #: The program's functions in it, each with whether it gives one record for each; of the package's, no names.
    functions: list[tuple[str | None, bool]] = []  # noqa: RUF012
    #: The sink that it ends in.
    sink: str | None = None


@dataclass(eq=False, repr=False)
class Step:
    """A step of the plan that the engine runs."""

    name: str
    #: What the engine is asked for.
    spec: Spec
    #: Where its records come from: positions of steps before it, and which of their outputs.
    inputs: list[tuple[int, int]]
    #: How many steps read each of its outputs.
    outputs: list[int]
    #: What makes the functions of a replica; or what a window folds by, or the functions of `sage.ops` and what is
    #: done with the result of each.
    make: Any
    parallelism: int
    #: How records are spread over the replicas.
    strategy: Strategy
    #: What comes with each record into it and out of it.
    takes: Form
    gives: Form
    policy: Policy
    times: Times | None
    #: The steps of the program that it is made of.
    of: tuple[Transformation, ...]
    #: From the end of ``plan`` on.
    told: Told = Told("")


#: What has all its records, so that several can be taken at a time.
_CONTAINERS = {list, tuple, range, str, bytes, dict, set, frozenset}

#: What a pipeline may end in though it is no sink.
_MAPS = frozenset((MAP, MAP_SOME, COMAP, COMAP_SOME))

#: What takes records with the number of their stream, and with their key.
_JOINT = frozenset((COMAP, COMAP_SOME, COJOIN))

#: So many functions that run together are named in the name of their operator.
_MOST_NAMED = 20


def without_sink(pipeline: list[Transformation]) -> list[Transformation]:
    """The maps of a program that nothing follows: their records are counted and dropped."""
    read = {before for step in pipeline for before in step.inputs}
    return [step for step in pipeline if step.kind in _MAPS and step.owner is None and (step, 0) not in read]


def _dropped(_record: Any) -> None:
    """Stands for the sink of what has none."""


def _end(of: Transformation) -> Transformation:
    end = Transformation(SINK, f"end of {of.name}", (_dropped, (), {}), [(of, 0)], of.parallelism)
    end.owner, end.told, end.is_aside = of, of.name, True
    return end


def plan(
    pipeline: list[Transformation], job: JobContext, open_ends: list[Transformation] | None = None
) -> list[Step]:
    """The plan of a pipeline, whose maps ``without_sink`` may be known. Raises ``SubmitError`` for one that cannot
    run."""
    if not pipeline:
        raise SubmitError(f"`{job.environment}` has no pipeline; begin one with `from_batch`")
    open_ends = without_sink(pipeline) if open_ends is None else open_ends
    pipeline = [*pipeline, *map(_end, open_ends)]
    for step in pipeline:
        step.has_key = False
        for source, _ in step.inputs:
            if source.kind.spreads or (source.kind.keeps_key and source.has_key):
                step.has_key = True
    with_keys = _with_keys(pipeline)
    readers: _Readers = {}
    for step in pipeline:
        for before in step.inputs:
            readers.setdefault(before, []).append(step)
    steps: list[Step] = []
    runs: list[list[Transformation]] = []
    position: dict[Transformation, int] = {}
    for first in pipeline:
        if first in position:
            continue
        run = _run(first, readers, job)
        for step in run:
            position[step] = len(steps)
        runs.append(run)
        _check(run[-1], readers)
        places = [(position[before], output) for before, output in first.inputs]
        outputs = [len(readers.get((run[-1], output), [])) for output in (0, 1, 2)]
        are_keys_read = not with_keys.isdisjoint(readers.get((run[-1], 0), []))
        steps.append(_planned(run, places, outputs, job, _forms(run, first in with_keys, are_keys_read)))
    for number, (planned, run) in enumerate(zip(steps, runs)):
        planned.told = _told(planned.name, number, run, position)
    return steps


def _told(name: str, number: int, run: list[Transformation], position: dict[Transformation, int]) -> Told:
    last = run[-1]
    if all(step.owner for step in run):
        return Told(last.told, position[last.root], all(step.is_aside for step in run))
    functions = [(None if step.owner else step.name, step.kind.one_to_one) for step in run]
    return Told(name, number, False, functions, last.name if last.kind is SINK else None)


def _run(first: Transformation, readers: _Readers, job: JobContext) -> list[Transformation]:
    """The steps that run together, from this one on."""
    run = [first]
    is_timed, is_native, elsewhere = first.kind.gives_time, first.is_native, first.elsewhere(job)
    while run[-1].is_function and run[-1].kind is not SPLIT and len(after := readers.get((run[-1], 0), [])) == 1:
        step = after[0]
        if (
            not step.is_function
            or step.is_native != is_native
            or step.parallelism != first.parallelism
            or len(step.inputs) != 1
            or step.elsewhere(job) != elsewhere
        ):
            break
        if run[-1].kind.spreads and step.parallelism != 1:
            break
        if is_timed and not step.kind.follows_times:
            break
        is_timed = is_timed or step.kind.gives_time
        run.append(step)
    return run


def _with_keys(pipeline: list[Transformation]) -> set[Transformation]:
    """The steps to which records bring their keys along, as a function there or behind asks for them."""
    found: set[Transformation] = set()
    asked = [step for step in pipeline if step.asks_key and step.kind not in _JOINT]
    while asked:
        step = asked.pop()
        if step not in found:
            found.add(step)
            asked += [before for before, _ in step.inputs if before.kind.keeps_key and before.has_key]
    return found


def _check(last: Transformation, readers: _Readers) -> None:
    if not last.kind.ends and not readers.get((last, 0)):
        of = "of" if last.kind.begins else "behind"
        raise SubmitError(f"the stream {of} `{last.told or last.name}` has no sink; end it with `sink` or `collect`")
    if last.kind is SPLIT and not readers.get((last, 1)):
        which = f"the second stream of the split `{last.name}`"
        raise SubmitError(f"{which} has no sink; end it with `sink` or `collect`")
    if last.kind is FUTURE and not last.is_filled:
        raise SubmitError(f"the future stream `{last.name}` is not filled; end a stream with `fill_future`")


def _planned(
    run: list[Transformation],
    inputs: list[tuple[int, int]],
    outputs: list[int],
    job: JobContext,
    forms: tuple[Form, Form],
) -> Step:
    first, last = run[0], run[-1]
    takes, gives = forms
    times = next((step.times for step in run if step.times is not None), None)
    spec, make = _asked(run, takes, gives, job)
    strategy = Strategy.RoundRobin
    is_called = first.kind.is_function and (first.spec is None or isinstance(first.spec, Spec.Async))
    if is_called and first.parallelism > 1 and any(before.kind.spreads for before, _ in first.inputs):
        # Of one replica, records are together whatever their keys.
        strategy = first.inputs[0][0].strategy
    name, policy = _name(run), last.policy
    if policy.retry is not None and isinstance(make, Maker) and make.is_restarted(last.part):
        # It comes before a new instance, which the package makes.
        make, policy = replace(make, retry=policy.retry), policy._replace(retry=None)
    where = first.elsewhere(job)
    if isinstance(make, (ChainMaker, FlightMaker)) and where is not None:
        from ._remote import elsewhere

        make = elsewhere(make, *where, bool(policy))
    of = tuple(step for step in run if step.owner is None)
    return Step(name, spec, inputs, outputs, make, first.parallelism, strategy, takes, gives, policy, times, of)


def _asked(run: list[Transformation], takes: Form, gives: Form, job: JobContext) -> tuple[Spec, Any]:
    """What the engine is asked for, and what makes what it runs."""
    first, last = run[0], run[-1]
    parts = tuple(step.part for step in run)
    match first.spec:
        case None if first.is_native:
            return Spec.Native(), [(step.kind.native, step.made[0]) for step in run]
        case None:
            is_elsewhere = first.elsewhere(job) is not None
            spec = Spec.Chain(ends=last.kind.ends, splits=last.kind is SPLIT, elsewhere=is_elsewhere)
            return spec, ChainMaker(parts, job, takes, gives)
        case Spec.Source():
            is_container = first.kind is ITERABLE and type(first.made[0]) in _CONTAINERS and not first.pace
            is_serving = getattr(first.made[0], "_serves", False)
            spec_of_source = Spec.Source(all_there=is_container, serves=is_serving)
            return spec_of_source, SourceMaker(parts, job, bool(first.policy), first.pace)
        case Spec.Async(in_flight=most, timeout=timeout):
            return first.spec, FlightMaker(parts, job, most, timeout is not None, first.is_awaited)
        case Spec.Process():
            return first.spec, ProcessMaker(parts, job)
        case Spec.Expiring():
            return first.spec, ChainMaker(parts, job, takes, gives)
        case _:
            return first.spec, first.made[0]


def _name(run: list[Transformation]) -> str:
    """What functions that run together are called as one operator: their names, or those of the first ones."""
    names = [step.name for step in run if step.owner is None] or [run[-1].name]
    if len(names) > _MOST_NAMED:
        names[_MOST_NAMED - 1 : -1] = [f"{len(names) - _MOST_NAMED:,} more"]
    return " → ".join(names)


def _forms(run: list[Transformation], are_keys_asked: bool, are_keys_read: bool) -> tuple[Form, Form]:
    """What comes with each record into a run and out of it. Keys do where they are needed: where a function in it or
    before a key of its own asks for them, or one behind it."""
    first, last = run[0], run[-1]
    comes_timed = bool(first.inputs) and all(before.is_timed for before, _ in first.inputs)
    takes_key = first.spec is None and (first.kind.needs_key or are_keys_asked)
    has_key, sets_times = takes_key, False
    for step in run:
        has_key = has_key_behind(step.kind, has_key)
        sets_times = sets_times or step.kind.gives_time
    gives_key = last.kind.gives_key or (are_keys_read and has_key and last.kind.keeps_key)
    return Form(takes_key, comes_timed and last.is_timed and not sets_times), Form(gives_key, last.is_timed)
