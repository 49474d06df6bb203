"""The kinds of steps. Each is one row of the table below, with all that this package and the engine know of it: how its
functions run in the loop of a chain, its state, its effect on keys and times, and its checks.

A new kind is a row here and a method of a stream. A kind that the engine runs is also a variant of ``Spec``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from . import _states
from ._functions import BaseFunction, FilterFunction, FlatMapFunction, KeyByFunction, MapFunction, SinkFunction
from ._made import Made, called, several
from ._sage import Role
from ._states import Kept, State


@dataclass(eq=False, repr=False)
class Part:
    """A step as its functions need to know it, without the steps before it."""

    kind: Kind
    name: str
    made: Made
    #: Of several connected streams, which one it is; and how many streams it takes.
    index: int
    inputs: int
    state: State
    #: Whether records come to it from behind a `keyby`, and whether its function asks for their keys.
    has_key: bool = False
    asks_key: bool = False


class Link(NamedTuple):
    """One function of a chain."""

    kind: Kind
    call: Callable[..., Any] | None
    name: str
    state: State = State()


def _plain(part: Part, function: Any) -> list[Link]:
    """The links of a step, with the function of a replica."""
    return [Link(part.kind, called(part.made, function), part.name, part.state)]


@dataclass(eq=False, repr=False)
class Kind:
    """A kind of step."""

    name: str
    #: What it does in a loop: see ``_chain`` for the names. What follows a line that begins a loop is inside of it.
    lines: tuple[str, ...] = ()
    #: The same for the first record of each run, where a result that nobody awaits is refused.
    checked: tuple[str, ...] = ()
    #: What it is in the loop, where that is more than one call, or the call of another kind.
    links: Callable[[Part, Any], list[Link]] = _plain
    #: What it keeps between records, and whether it gives that at the end of input and nothing before.
    keep: Callable[[Link], Kept] | None = None
    at_end: bool = False
    #: What it is where each record brings the state of its key along, as the engine forgets it in time.
    in_cells: Kind | None = None
    #: Whether it begins a stream, or ends one.
    begins: bool = False
    ends: bool = False
    #: Whether it needs a key, gives each record one, keeps the one that it has, and has records spread by it.
    needs_key: bool = False
    gives_key: bool = False
    keeps_key: bool = False
    spreads: bool = False
    #: Whether it gives each record a time, and keeps the one that it has.
    gives_time: bool = False
    keeps_time: bool = False
    #: Whether its results that are ``None`` are no records: they are counted, by ``{s}()``.
    drops_none: bool = False
    #: Whether it gives one record for each that it takes, but for such results; and goes on in the chain that gave the
    #: records their times.
    one_to_one: bool = False
    follows_times: bool = False
    #: How the engine runs it without the interpreter, given a function of `sage.ops`.
    native: Role | None = None
    #: The class that its functions may be of.
    base: type[BaseFunction] | None = None
    #: Why its function cannot be a generator.
    no_generator: str = ""
    #: What goes on of the result of an async function and of the record; or what of a record cannot be had so.
    result: Callable[[Any, Any], list[Any]] | None = None
    asks_for: str = ""
    #: How many outputs it has before that of its dead letters.
    outputs: int = 1

    @cached_property
    def is_function(self) -> bool:
        """Whether it can be a part of a chain."""
        return bool(self.lines) or self.links is not _plain

    @cached_property
    def loops(self) -> int:
        """How many loops its lines begin."""
        return sum(line.startswith("for ") for line in self.lines)

    def __post_init__(self) -> None:
        assert (self.name, self.drops_none) not in _TABLE, "another process finds a kind by its name"
        _TABLE[self.name, self.drops_none] = self

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return _named, (self.name, self.drops_none)


_TABLE: dict[tuple[str, bool], Kind] = {}


def _named(name: str, drops_none: bool) -> Kind:
    """The row of this name, which is the same object in each process."""
    return _TABLE[name, drops_none]


def has_key_behind(kind: Kind, has_key: bool) -> bool:
    """Whether records have a key in a loop behind a step, given whether they have one before it."""
    return kind.gives_key or (has_key and not kind.at_end)


def flattened(made: Made, function: Any) -> Callable[[Any], Iterable[Any]]:
    """What gives the records for each record."""
    if not isinstance(function, FlatMapFunction):
        return called(made, function)

    def call(record: Any) -> Iterable[Any]:
        try:
            returned = function.execute(record)
        except BaseException:
            function.__dict__.pop("_collected", None)  # they are not those of the next record
            raise
        collected = function.__dict__.pop("_collected", [])
        return [*collected, *several(returned)] if collected else returned

    return call


#: A record of one of several connected streams: its key if it has one, the number of its stream, the record.
Tagged = tuple[Any, int, Any]


def _flatmap(part: Part, function: Any) -> list[Link]:
    return [Link(FLATMAP, flattened(part.made, function), part.name)]


def _tag(part: Part, _function: Any) -> list[Link]:
    index = part.index
    return [Link(MAP, lambda record: (None, index, record), part.name)]


def _keytag(part: Part, function: Any) -> list[Link]:
    key_of, index = called(part.made, function), part.index

    def tag(record: Any) -> Tagged:
        return key_of(record), index, record

    return [Link(MAP, tag, part.name), Link(KEYBY, lambda tagged: tagged[0], part.name)]


def _comap(part: Part, function: Any) -> list[Link]:
    maps: list[Callable[[Any], Any]] = [getattr(function, f"map{index}") for index in range(part.inputs)]
    kind = MAP_SOME if part.kind.drops_none else MAP
    return [Link(kind, lambda tagged: maps[tagged[1]](tagged[2]), part.name)]


def _cojoin(part: Part, function: Any) -> list[Link]:
    execute = function.execute

    def join(tagged: Tagged) -> Any:
        key, tag, payload = tagged
        return execute(payload, key, tag)

    return [Link(FLATMAP, join, part.name)]


def _refused(value: str) -> str:
    return f"if type({value}) in unawaited: raise refuse({{n}}, {value})"


#: What a class of the program's own makes of `!=` need not be a truth, and is not asked for by a dict.
SAME_NAN = ("try:", " if k != k: k = same_nan(k)", "except Exception: pass")

# Functions of a program.
MAP = Kind(
    "map", ("x = {f}(x)",), ("x = {f}(x)", _refused("x")), base=MapFunction, native=Role.Map, keeps_key=True,
    one_to_one=True, keeps_time=True, follows_times=True, result=lambda result, _record: [result],
)
# A record that is left out has to have its time noted all the same, so this does not follow times.
MAP_SOME = Kind(
    "map", ("x = {f}(x)", "if x is None: {s}(); continue"),
    ("x = {f}(x)", _refused("x"), "if x is None: {s}(); continue"), base=MapFunction, keeps_key=True,
    drops_none=True, one_to_one=True, keeps_time=True, result=lambda result, _record: [result],
)
FILTER = Kind(
    "filter", ("if not {f}(x): continue",), ("y = {f}(x)", _refused("y"), "if not y: continue"),
    base=FilterFunction, no_generator="a generator is always true", native=Role.Filter, keeps_time=True, keeps_key=True,
    result=lambda result, record: [record] if result else [],
)
FLATMAP = Kind(
    "flatmap", ("for x in {e}({f}(x)):",), links=_flatmap, base=FlatMapFunction, native=Role.FlatMap, keeps_time=True,
    keeps_key=True, result=lambda result, _record: several(result),
)
SPLIT = Kind(
    "split", ("k = True if {f}(x) else False",), ("y = {f}(x)", _refused("y"), "k = True if y else False"),
    base=FilterFunction, no_generator="a generator is always true", asks_for="the side",
    gives_key=True, keeps_time=True, outputs=2,
)
SINK = Kind(
    # What a sink returns is nearly always `None`: to look at it costs nothing.
    "sink", ("if (y := {f}(x)) is not None and type(y) in unused: raise refuse({n}, y)",),
    base=SinkFunction, no_generator="a sink does not iterate over the generator, so its code would not run",
    ends=True, one_to_one=True, outputs=0, result=lambda _result, _record: [],
)
KEYBY = Kind(
    "keyby", ("k = {f}(x)", *SAME_NAN), ("k = {f}(x)", _refused("k"), *SAME_NAN), base=KeyByFunction, native=Role.Key,
    no_generator="each generator would be a key of its own", asks_for="the key",
    gives_key=True, spreads=True, keeps_time=True, one_to_one=True, follows_times=True,
)
TIMESTAMPS = Kind(
    "timestamps", ("t = millis({f}(x))",), ("y = {f}(x)", _refused("y"), "t = millis(y)"),
    gives_time=True, keeps_key=True, one_to_one=True,
)
#: Gives the key of each record to the context of the function behind it.
TOLD_KEY = Kind("told key", ("{f}(k)",), one_to_one=True)
#: The same where it comes in the record: see ``_tag``.
TOLD_TAGGED_KEY = Kind("told tagged key", ("{f}(x[0])",), one_to_one=True)

# States of keys.
WHOLE = Kind("whole", ("k = None",), gives_key=True, one_to_one=True)
COUNT = Kind("count", ("{s}[k] += 1",), keep=_states.counted, at_end=True, needs_key=True, native=Role.Count)
SUM = Kind(
    "sum", ("{s}[k] = {s}[k] + {f}(x) if k in {s} else summand({f}(x))",),
    ("y = {f}(x)", _refused("y"), "{s}[k] = {s}[k] + y if k in {s} else summand(y)"),
    keep=_states.summed, at_end=True, needs_key=True, native=Role.Sum,
)
_STEP = "{s}[k] = {f}({s}[k], x) if k in {s} else x"
REDUCE = Kind("reduce", (_STEP,), (_STEP, _refused("{s}[k]")), keep=_states.reduced, at_end=True, needs_key=True)
_STEP = "{s}[k] = {f}({s}[k] if k in {s} else {s}new(), x)"
FOLD = Kind("fold", (_STEP,), (_STEP, _refused("{s}[k]")), keep=_states.folded, at_end=True, needs_key=True)
_STEP = "{s}[k], x = {f}({s}[k] if k in {s} else {s}new(), x)"
_IN_CELLS = "c, x = x", "if not c: c.append({s}new())", "c[0], x = {f}(c[0], x)"
MAP_WITH_STATE = Kind(
    "map_with_state", (_STEP,), keep=_states.each, needs_key=True, keeps_key=True, one_to_one=True,
    in_cells=Kind("map_with_cell", _IN_CELLS, keep=_states.nothing, one_to_one=True),
)
FLATMAP_WITH_STATE = Kind(
    "flatmap_with_state", (_STEP, "for x in {e}(x):"), keep=_states.each, needs_key=True, keeps_key=True,
    in_cells=Kind("flatmap_with_cell", (*_IN_CELLS, "for x in {e}(x):"), keep=_states.nothing),
)
DISTINCT = Kind(
    "distinct", ("if k in {s}: continue", "{s}.add(k)"), keep=_states.seen, needs_key=True, keeps_key=True
)
TOP_K = Kind("top_k", ("{s}(k, x)",), keep=_states.ranked, at_end=True, needs_key=True)
_STEP = "if x is not {s}.last: {s}.so_far = {f}({s}.so_far, x); continue"
FOLDED = Kind(
    "window fold", ("x = {s}.begin(x)", "for x in {e}(x):", _STEP, "x = {s}.end()"),
    keep=_states.folding, keeps_time=True, one_to_one=True,
)

# Several streams.
TAG = Kind("tag", links=_tag, one_to_one=True, follows_times=True)
KEYTAG = Kind(
    "keytag", links=_keytag, gives_key=True, spreads=True, keeps_time=True, one_to_one=True, follows_times=True
)
COMAP = Kind("comap", links=_comap, one_to_one=True)
COMAP_SOME = Kind("comap", links=_comap, one_to_one=True, drops_none=True)
COJOIN = Kind("cojoin", links=_cojoin)

# What the engine does.
BATCH = Kind("batch", begins=True)
ITERABLE = Kind("iterable", begins=True)
SOURCE = Kind("source", begins=True)
KAFKA = Kind("kafka", begins=True)
FUTURE = Kind("future", begins=True, keeps_time=True)
WINDOW = Kind("window", keeps_time=True)
JOIN = Kind("join")
ZIP = Kind("zip")
PROCESS = Kind("process")
BATCHED = Kind("batched")
TAKE = Kind("take")
FILL = Kind("fill", ends=True)
TO_KAFKA = Kind("to_kafka", ends=True)
