"""One Python function for several that follow each other.

The interpreter calls Python functions from Python code cheaper than anything else does. So the functions of a
task become a loop, written as source code and compiled; each has lines of its own in it, and the line in a
traceback says which one raised. A function that gives its results at the end of input, such as a count, ends a
loop; those behind it are another one, which runs over the results.

Names in a loop: ``x`` the record, ``k`` its key, ``t`` its time in milliseconds, ``c`` the cell of its key, ``y`` what
a function returned; ``fN`` the function of link N and ``sN`` what it keeps.

What has to be awaited is refused, so that no work is lost in silence. To look at each result would take a tenth of the
time of a quick function: the first record of each run goes through a loop of its own that does, which finds the
functions that return nothing else. All results are looked at where that costs nothing: those of a sink, and those that
leave the chain.
"""

from __future__ import annotations

import copy
import heapq
import linecache
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

from ._arguments import millis
from ._awaiting import UNAWAITED, UNUSED, check_hook, refuse
from ._io import FileSink
from ._job_loop import JobLoop

_REFUSING = {"unawaited": UNAWAITED, "unused": UNUSED, "refuse": refuse}


@dataclass(frozen=True)
class Form:
    """What comes with each record into a chain or out of it, before the record: its key, its time."""

    keyed: bool = False
    timed: bool = False

    @property
    def target(self) -> str:
        """The names of the parts, as a loop takes or gives them."""
        return ", ".join([*(["k"] if self.keyed else []), *(["t"] if self.timed else []), "x"])


@dataclass(frozen=True)
class Link:
    """One function of a chain. What its kinds do is in ``_KINDS``."""

    kind: str
    call: Callable[..., Any] | None
    name: str
    #: What a state starts as: a value, copied for each key, or a function that makes one.
    initial: Any = None
    #: How many records are kept.
    most: int = 0
    #: Whether there is one result for all records, without a key.
    whole: bool = False


_NAN = float("nan")


def same_nan(key: Any) -> Any:
    """The key that stands for one that is unequal to itself: all floats that are not a number are one key."""
    return _NAN if isinstance(key, float) else key


#: What a class of the program's own makes of `!=` need not be a truth, and is not asked for by a dict.
_SAME_NAN = ["try:", " if k != k: k = same_nan(k)", "except Exception: pass"]

#: The lines of each kind of link, ``{f}`` its function and ``{s}`` its state; what follows a line that ends in
#: a colon is inside of it.
_KINDS = {
    "map": ["x = {f}(x)"],
    "filter": ["if {f}(x):"],
    "flatmap": ["for x in {f}(x):"],
    "split": ["k = True if {f}(x) else False"],
    # What a sink returns is nearly always `None`: to look at it costs nothing.
    "sink": ["if (y := {f}(x)) is not None:", "if type(y) in unused: raise refuse({n}, y)"],
    "keyby": ["k = {f}(x)", *_SAME_NAN],
    "whole": ["k = None"],
    "timestamps": ["t = millis({f}(x))"],
    "count": ["{s}[k] += 1"],
    "sum": ["{s}[k] = {s}[k] + {f}(x) if k in {s} else summand({f}(x))"],
    "reduce": ["{s}[k] = {f}({s}[k], x) if k in {s} else x"],
    "fold": ["{s}[k] = {f}({s}[k] if k in {s} else {s}new(), x)"],
    "map_with_state": ["{s}[k], x = {f}({s}[k] if k in {s} else {s}new(), x)"],
    "flat_map_with_state": ["{s}[k], x = {f}({s}[k] if k in {s} else {s}new(), x)", "for x in x:"],
    "map_with_cell": ["c, x = x", "if not c: c.append({s}new())", "c[0], x = {f}(c[0], x)"],
    "flat_map_with_cell": ["c, x = x", "if not c: c.append({s}new())", "c[0], x = {f}(c[0], x)", "for x in x:"],
    "distinct": ["if k not in {s}:", "{s}.add(k)"],
    "top_k": ["{s}(k, x)"],
}

_REFUSE = "if type({y}) in unawaited: raise refuse({{n}}, {y})"

#: The same, for the first record of each run: what nobody awaits is refused.
_CHECKED = _KINDS | {
    "map": ["x = {f}(x)", _REFUSE.format(y="x")],
    "filter": ["y = {f}(x)", _REFUSE.format(y="y"), "if y:"],
    "split": ["y = {f}(x)", _REFUSE.format(y="y"), "k = True if y else False"],
    "keyby": ["k = {f}(x)", _REFUSE.format(y="k"), *_SAME_NAN],
    "timestamps": ["y = {f}(x)", _REFUSE.format(y="y"), "t = millis(y)"],
    "sum": ["y = {f}(x)", _REFUSE.format(y="y"), "{s}[k] = {s}[k] + y if k in {s} else summand(y)"],
    "reduce": [*_KINDS["reduce"], _REFUSE.format(y="{s}[k]")],
    "fold": [*_KINDS["fold"], _REFUSE.format(y="{s}[k]")],
}

#: Kinds that need a key.
STATEFUL = {"count", "sum", "reduce", "fold", "map_with_state", "flat_map_with_state", "distinct", "top_k"}

#: Kinds whose records come with a cell for the state of their key, which the engine forgets in time.
_CELLS = {"map_with_cell", "flat_map_with_cell"}

#: Kinds that give what they have at the end of input.
_AT_THE_END = {"count", "sum", "reduce", "fold", "top_k"}


def summand(value: Any) -> Any:
    """The first value of a sum, as ``sum`` of Python has it; what is not added up but joined is refused."""
    if value is None or isinstance(value, (str, bytes, bytearray, list, tuple)):
        kind = "None" if value is None else f"a {type(value).__name__}"
        raise TypeError(
            f"`sum` adds numbers, and this is {kind}: give it a function that returns what to add, such as "
            "`sum(lambda record: record[1])`; to join records use `fold`"
        )
    return int(value) if isinstance(value, bool) else value


class Chain:
    """What a task runs: ``run(iterator, out)``, ``finish(out)``, and whom to blame for an exception."""

    def __init__(
        self,
        links: list[Link],
        functions: list[Any],
        loop: JobLoop,
        takes: Form = Form(),  # noqa: B008
        gives: Form = Form(),  # noqa: B008
    ) -> None:
        self._functions = functions
        #: Where functions are closed whose ``close`` is async.
        self._loop = loop
        self._names: dict[tuple[Any, int], str] = {}
        #: What is given at the end of input, and by which operator.
        self._kept: list[tuple[str, Callable[[], Iterable[Any]]]] = []
        self._loops: list[Callable[[Any, list[Any]], None]] = []
        self._last = links[-1].name if links else ""
        part: list[Link] = []
        for link in links:
            part.append(link)
            if link.kind in _AT_THE_END:
                self._loops.append(self._compile(part, takes, None))
                part, takes = [], Form()
        if part or gives.keyed or gives.timed:
            self._loops.append(self._compile(part, takes, gives))
        self.run = self._loops[0]

    def finish(self, out: list[Any]) -> None:
        """Gives what was kept until the end of input."""
        loops = iter(self._loops[1:])
        for name, kept in self._kept:
            self._check(name, kept)
            loop = next(loops, None)
            if loop is None:
                out.extend(kept())
            else:
                loop(iter(kept()), out)

    @staticmethod
    def _check(name: str, kept: Callable[[], Iterable[Any]]) -> None:
        """Refuses results that nobody awaits, as far as the first tells: of one record, or of a run's first."""
        for result in kept():
            state = result[1] if type(result) is tuple and len(result) == 2 else result
            if type(state) in UNAWAITED:
                raise refuse(name, state)
            return

    def _compile(self, links: list[Link], takes: Form, gives: Form | None) -> Callable[[Any, list[Any]], None]:
        scope: dict[str, Any] = {"same_nan": same_nan, "millis": millis, "summand": summand, **_REFUSING}
        for index, link in enumerate(links):
            scope[f"f{index}"] = link.call
            if link.kind in STATEFUL or link.kind in _CELLS:
                self._state(link, scope, f"s{index}")
        shape = tuple((link.kind, link.name) for link in links)
        code, names = _loop(shape, tuple(scope), takes, gives)
        # A copy, as the interpreter notes in the code itself what it learns of the functions that it calls.
        run = FunctionType(code.replace(), {}, "run", tuple(scope.values()))
        self._names.update({(run.__code__, line): name for line, name in names.items()})
        return run

    def _state(self, link: Link, scope: dict[str, Any], s: str) -> None:
        """Makes what a link keeps, and says what it gives at the end."""
        initial = link.initial
        new: Callable[[], Any] = initial if callable(initial) else lambda: copy.deepcopy(initial)
        scope[f"{s}new"] = new
        if link.kind in _CELLS:
            return
        if link.kind == "distinct":
            scope[s] = set()
            return
        if link.kind == "top_k":
            top = _Top(link.most, link.call)
            scope[s] = top.add
            self._kept.append((link.name, top.results))
            return
        kept: dict[Any, Any] = defaultdict(int) if link.kind == "count" else {}
        scope[s] = kept
        if link.kind not in _AT_THE_END:
            return
        if not link.whole:
            self._kept.append((link.name, kept.items))
        elif link.kind == "reduce":
            self._kept.append((link.name, kept.values))
        else:
            nothing = (lambda: 0) if link.kind in ("count", "sum") else new
            self._kept.append((link.name, lambda: [kept[None] if None in kept else nothing()]))

    def unawaited(self, result: Any) -> Exception:
        """The error for a result of the last function that nobody awaits."""
        return refuse(self._last, result)

    def blame(self, exception: BaseException) -> str | None:
        """The operator that raised an exception, where this chain has several and it was one of them."""
        if len({*self._names.values()}) == 1:
            return None
        traceback = exception.__traceback__
        while traceback is not None:
            name = self._names.get((traceback.tb_frame.f_code, traceback.tb_lineno))
            if name is not None:
                return name
            traceback = traceback.tb_next
        return None

    def publish(self) -> None:
        """Has sinks make final what they wrote."""
        for function in self._functions:
            if isinstance(function, FileSink):
                function._finish()

    def ended(self, ending: str) -> None:
        """How the job ended: by the ``end`` of its input, a ``signal``, or something ``else``."""
        for function in self._functions:
            if isinstance(function, FileSink):
                function._ended(ending)

    def notes(self) -> list[str]:
        """What the report is to tell, when they are closed."""
        return [note for function in self._functions if isinstance(function, FileSink) for note in function.notes]

    def close(self) -> None:
        """Closes the functions, the last one first."""
        close_all(self._functions, self._loop)


@lru_cache(maxsize=128)
def _loop(
    links: tuple[tuple[str, str], ...], parameters: tuple[str, ...], takes: Form, gives: Form | None
) -> tuple[CodeType, dict[int, str]]:
    """The code of a loop over links of these kinds and names, and which of its lines are whose."""
    head = f"def run(records, out, {', '.join(parameters)}):"
    lines = [head, " append = out.append"]
    names: dict[int, str] = {}
    for kinds in (_CHECKED, _KINDS):
        lines.append(f" for {takes.target} in records:")
        indent = "  "
        if takes.keyed:
            lines += [indent + line for line in _SAME_NAN]
        for index, (kind, name) in enumerate(links):
            for line in kinds[kind]:
                lines.append(indent + line.format(f=f"f{index}", s=f"s{index}", n=repr(name)))
                names[len(lines)] = name
                if line.endswith(":") and line != "try:":
                    indent += " "
        if gives is not None and not (links and links[-1][0] == "sink"):
            target = gives.target
            lines.append(f"{indent}append({target if target == 'x' else f'({target})'})")
        if kinds is _CHECKED:
            lines.append("  break")
    source = "\n".join(lines) + "\n"
    file = f"<sage chain: {' → '.join(f'{kind} {name}' for kind, name in links)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    code = next(part for part in compile(source, file, "exec").co_consts if isinstance(part, CodeType))
    return code, names


class _Top:
    """The records of each key that rank highest; of equal ones the earlier."""

    def __init__(self, most: int, rank: Callable[[Any], Any] | None) -> None:
        self._most = most
        self._rank = rank or (lambda record: record)
        self._heaps: dict[Any, list[tuple[Any, int, Any]]] = {}
        self._number = 0

    def add(self, key: Any, record: Any) -> None:
        """Takes a record."""
        # The number decides between equal ranks, so that records themselves are never compared.
        self._number -= 1
        entry = self._rank(record), self._number, record
        heap = self._heaps.setdefault(key, [])
        if len(heap) < self._most:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)

    def results(self) -> list[Any]:
        """Each key with its records, the highest first."""
        return [(key, [entry[2] for entry in sorted(heap, reverse=True)]) for key, heap in self._heaps.items()]


def close_all(functions: list[Any], loop: JobLoop) -> None:
    """Calls ``close`` of each that has one, and awaits it on ``loop`` where it is async; raises the first exception
    when all have been called.

    Those are objects that were made for this task: what a program passed in ready-made is its own to close.
    """
    failed: BaseException | None = None
    for function in reversed(functions):
        close = getattr(function, "close", None)
        if callable(close):
            try:
                check_hook(f"{type(function).__name__}.close", loop.awaited(close()))
            except BaseException as exception:  # whatever it is, the others are closed as well
                failed = failed or exception
    if failed is not None:
        raise failed
