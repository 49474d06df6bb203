"""Python functions that follow each other, as loops that the interpreter runs.

The interpreter calls Python functions from Python code cheaper than anything else does. So the functions of a
task become loops, written as source code and compiled; each has lines of its own in it, and the line in a
traceback says which one raised. A function that gives its results at the end of input, such as a count, ends a
stage; those behind it are another one, which runs over the results. So does one that would be too much for one
loop: what it gives goes on to the next stage at once.

The engine may end a loop after any record: the iterators that loops run over are its own, also those of inner
loops, over what a function made of one record. The next loop goes on where it was; from within an inner loop, as
one over what is left of that, which has the lines behind it: see ``Stage.rest``.

Names in a loop: ``x`` the record, ``k`` its key, ``t`` its time in milliseconds, ``c`` the cell of its key, ``y`` what
a function returned; ``fN`` the function of link N, ``sN`` what it keeps or counts by, and ``eN`` what makes an
iterator of what it made. A function that is a method of a service is called by the loop itself, with a ``Crossing`` of
the engine as ``fN`` before and behind the call.

What has to be awaited is refused, so that no work is lost in silence. To look at each result would take a tenth of the
time of a quick function: the first record of each run goes through a loop of its own that does, which finds the
functions that return nothing else. All results are looked at where that costs nothing: those of a sink, and those that
leave the chain.
"""

from __future__ import annotations

import builtins
import linecache
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from keyword import iskeyword
from types import CodeType, FunctionType
from typing import Any, NamedTuple
from zlib import crc32

from ._arguments import millis
from ._awaiting import UNAWAITED, UNUSED, check_hook, refuse
from ._functions import Noting
from ._made import endings
from ._job_loop import JobLoop
from ._kinds import SAME_NAN, SINK, Kind, Link
from ._nones import Nones
from ._output_sink import OutputSink
from ._sage import Records, crossing, records
from ._states import Folding, summand

_REFUSING = {"unawaited": UNAWAITED, "unused": UNUSED, "refuse": refuse}


class Form(NamedTuple):
    """The values that come before each record into a chain or out of it: its key, its time."""

    keyed: bool = False
    timed: bool = False

    @property
    def parts(self) -> list[str]:
        """The names of the values that come with a record."""
        return [*(["k"] if self.keyed else []), *(["t"] if self.timed else [])]

    @property
    def target(self) -> str:
        """The names of the parts and of the record, as a loop takes or gives them."""
        return ", ".join([*self.parts, "x"])


_NAN = float("nan")


def same_nan(key: Any) -> Any:
    """The key that stands for one that is unequal to itself: all floats that are not a number are one key."""
    return _NAN if isinstance(key, float) else key


#: How many loops may be inside of one another, of the 20 that the interpreter can have; and how many links a
#: stage has, so that its source does not become too long.
_MOST_LOOPS = 15
_MOST_LINKS = 1000


#: Whose the lines of the loops of a chain are, by the identity of their code, which lives as long as the chain.
_Names = dict[int, dict[int, str]]


class Chain:
    """The functions of a task as stages, and the search for the function that raised an exception."""

    def __init__(
        self,
        links: list[Link],
        functions: list[Any],
        loop: JobLoop,
        takes: Form,
        gives: Form,
        nones: Nones,
    ) -> None:
        self._functions = functions
        self._files = [function for function in functions if isinstance(function, OutputSink)]
        self._noting = [function for function in functions if isinstance(function, Noting)]
        #: Where functions are closed whose ``close`` is async.
        self._loop = loop
        self._last = links[-1].name if links else ""
        self._names: _Names = {}
        self._is_several = len({link.name for link in links}) > 1
        #: The first takes the records, each other one what the one before it gives.
        self.stages: list[Stage] = []
        part: list[Link] = []
        loops = 0
        for link in links:
            if loops >= _MOST_LOOPS or len(part) >= _MOST_LINKS:
                # What comes with a record so far goes on with it.
                between = _form(part, takes)
                self.stages.append(Stage(part, takes, between, self._names, nones))
                part, takes, loops = [], between, 0
            part.append(link)
            loops += link.kind.loops
            if link.kind.at_end:
                self.stages.append(Stage(part, takes, None, self._names, nones))
                part, takes, loops = [], Form(), 0
        self.stages.append(Stage(part, takes, gives, self._names, nones))

    def unawaited(self, result: Any) -> Exception:
        """The error for a result of the last function that is not awaited."""
        return refuse(self._last, result)

    def blame(self, exception: BaseException) -> tuple[str, str] | None:
        """The operator that raised an exception, where this chain has several and it was one of them, and of which
        window, if of one."""
        if not self._is_several:
            return None
        traceback = exception.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            names = self._names.get(id(frame.f_code), {})
            if traceback.tb_lineno in names:
                folding = (value.at() for value in frame.f_locals.values() if type(value) is Folding)
                return names[traceback.tb_lineno], next(filter(None, folding), "")
            traceback = traceback.tb_next
        return None

    def publish(self) -> None:
        """Has sinks make final what they wrote."""
        for file in self._files:
            file._finish()

    def ended(self, ending: str) -> None:
        """How the job ended: by the ``end`` of its input, a ``signal``, or something ``else``."""
        for file in self._files:
            file._ended(ending)

    def notes(self) -> list[str]:
        """The notes of the functions for the report, when they are closed."""
        return [note for function in self._noting for note in function.notes]

    def close(self) -> None:
        """Closes the functions, the last one first."""
        close_all(self._functions, self._loop)


def _form(links: list[Link], takes: Form) -> Form:
    """What comes with a record behind these links."""
    keyed = takes.keyed or any(link.kind.gives_key for link in links)
    return Form(keyed, takes.timed or any(link.kind.gives_time for link in links))


class Stage:
    """One loop: ``run(records, out)`` takes records from an iterator and appends its results to a list."""

    def __init__(self, links: list[Link], takes: Form, gives: Form | None, names: _Names, nones: Nones) -> None:
        #: The iterators of its inner loops, the outermost first.
        self.levels: list[Records] = []
        #: What it gives at the end of input, where that is all it gives.
        self.kept: Callable[[], Iterable[Any]] | None = None
        self._names = names
        self._scope: dict[str, Any] = {"same_nan": same_nan, "millis": millis, "summand": summand, **_REFUSING}
        methods: list[str | None] = []
        for index, link in enumerate(links):
            self._scope[f"f{index}"], method = _through_crossing(link)
            methods.append(method)
            if link.kind.drops_none:
                self._scope[f"s{index}"] = nones.counter(link.name)
            if link.kind.keep is not None:
                self._scope[f"s{index}"], results = link.kind.keep(link)
                self._scope[f"s{index}new"] = link.state.new
                self.kept = results and partial(_checked, link.name, results)
            if link.kind.loops:
                level = records()
                self.levels.append(level)
                self._scope[f"e{index}"] = level.over
        named = tuple((link.kind, link.name, method) for link, method in zip(links, methods))
        self._shape = named, tuple(self._scope), takes, gives
        self._rests: dict[int, Callable[..., Any]] = {}
        self.run = self._compile(None)

    def rest(self, level: int) -> Callable[..., Any]:
        """What goes on from within an inner loop: ``run(records, out, *carried)``, with what a loop of this stage
        returned last."""
        if level not in self._rests:
            self._rests[level] = self._compile(level)
        return self._rests[level]

    def _compile(self, level: int | None) -> Callable[..., Any]:
        code, names = _loop(*self._shape, level)
        # A copy, as the interpreter notes in the code itself what it learns of the functions that it calls. What
        # they find as the globals of their caller is new as well.
        scope = {"__builtins__": builtins, "__name__": "sage.chain"}
        run = FunctionType(code.replace(), scope, "run", tuple(self._scope.values()))
        self._names[id(run.__code__)] = names
        return run


class _Method:
    """Has a method of a handle of a service, whatever it is asked for."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def __getattr__(self, _name: str) -> Any:
        return self._method


def _through_crossing(link: Link) -> tuple[Any, str | None]:
    """What a loop has as the function of a link; of a method of a service that it calls itself, that and the method's
    name."""
    calls = {line.count("{f}(x)") == line.count("{f}") for line in link.kind.lines if "{f}" in line}
    found = crossing(link.call, _Method(link.call)) if calls == {True} else None
    if found is None or not found[1].isidentifier() or iskeyword(found[1]):
        return link.call, None
    return found


#: How a loop calls a method of a service.
_CALL = "try: y = {f}[(+{f}).{method}(x)]", "except BaseException as error: {f}.failed(error); raise"


def _lines(kind: Kind, method: str | None, is_checked: bool) -> Iterable[str]:
    """What a function does in a loop."""
    for line in kind.checked if is_checked and kind.checked else kind.lines:
        if method is not None and "{f}" in line:
            yield from (part.replace("{method}", method) for part in _CALL)
            line = line.replace("{f}(x)", "y")
        yield line


def _checked(name: str, kept: Callable[[], Iterable[Any]]) -> Iterable[Any]:
    """The results to keep. Refuses results that are not awaited, as far as the first result shows: of one record, or of
    a run's first."""
    results = kept()
    for result in results:
        state = result[1] if type(result) is tuple and len(result) == 2 else result
        if type(state) in UNAWAITED:
            raise refuse(name, state)
        break
    return results


#: So many functions of a chain are named in tracebacks, as if that were its file. A number tells apart what has more.
_MOST_NAMED = 20


@lru_cache(maxsize=128)
def _loop(
    links: tuple[tuple[Kind, str, str | None], ...],
    parameters: tuple[str, ...],
    takes: Form,
    gives: Form | None,
    level: int | None,
) -> tuple[CodeType, dict[int, str]]:
    """The code of a loop over links of these kinds and names, or of one over what is left of an inner loop of it,
    and which of its lines are whose."""
    between = _form([Link(kind, None, name) for kind, name, _ in links], takes).parts
    has_levels = any(kind.loops for kind, _, _ in links)
    # What an inner loop needs that goes on later: nothing changes it after the record that the loop ended at.
    carried = between if has_levels else []
    given = parameters if level is None else (*carried, *parameters)
    lines = [f"def run({', '.join(['records', 'out', *given])}):", " append = out.append"]
    if level is None and carried:
        lines.append(f" {' = '.join(carried)} = None")
    names: dict[int, str] = {}
    for is_checked in (True, False) if level is None else (False,):
        lines.append(f" for {takes.target if level is None else 'x'} in records:")
        indent = "  "
        if takes.keyed and level is None:
            lines += [indent + line for line in SAME_NAN]
        begun = -1
        for index, (kind, name, method) in enumerate(links):
            for line in _lines(kind, method, is_checked):
                is_loop = line.startswith("for ")
                begun += is_loop
                # Of what goes on from within an inner loop, what comes before it is done.
                if level is None or begun > level or (begun == level and not is_loop):
                    lines.append(indent + line.format(f=f"f{index}", s=f"s{index}", e=f"e{index}", n=repr(name)))
                    names[len(lines)] = name
                    indent += " " * is_loop
        if gives is not None and not (links and links[-1][0] is SINK):
            target = gives.target
            lines.append(f"{indent}append({target if target == 'x' else f'({target})'})")
        if is_checked:
            lines.append("  break")
    if carried:
        lines.append(f" return ({', '.join(carried)},)")
    source = "\n".join(lines) + "\n"
    named = [f"{kind.name} {name}" for kind, name, _ in links[:_MOST_NAMED]]
    if len(links) > _MOST_NAMED or level is not None or any(method for _, _, method in links):
        named.append(f"… {crc32(source.encode()):08x}")
    file = f"<sage chain: {' → '.join(named)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    code = next(part for part in compile(source, file, "exec").co_consts if isinstance(part, CodeType))
    return code, names


def close_all(functions: list[Any], loop: JobLoop) -> None:
    """Calls ``teardown`` and ``close`` of each that has them, and awaits them on ``loop`` where they are async; raises
    the first exception when all have been called.

    Those are objects that were made for this task: what a program passed in ready-made is its own to close.
    """
    failed: BaseException | None = None
    for function in reversed(functions):
        for name, end in endings(function):
            try:
                check_hook(f"{type(function).__name__}.{name}", loop.awaited(end()))
            except BaseException as exception:  # whatever it is, the others are closed as well
                failed = failed or exception
    if failed is not None:
        raise failed
