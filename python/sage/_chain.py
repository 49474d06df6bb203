"""One Python function for several that follow each other.

The interpreter calls Python functions from Python code cheaper than anything else does. So the functions of a task become
one loop, written as source code and compiled; each has a line of its own in it, and the line in a traceback says which one
raised.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from typing import Any

from ._keys import stable_hash

#: A kind (``map``, ``filter``, ``flatmap``, ``keyby`` or ``sink``), what is called, and the operator's name.
Link = tuple[str, Callable[..., Any], str]


class Chain:
    """What a task runs: ``run(iterator, out)``, and whom to blame for an exception."""

    def __init__(self, links: list[Link], functions: list[Any]) -> None:
        self._functions = functions
        self._file = f"<sage chain: {' → '.join(f'{kind} {name}' for kind, _, name in links)}>"
        self._names: dict[int, str] = {}
        self.run = self._compile(links)

    def _compile(self, links: list[Link]) -> Callable[[Any, list[Any]], None]:
        scope: dict[str, Any] = {f"f{index}": call for index, (_, call, _) in enumerate(links)}
        scope["stable_hash"] = stable_hash
        parameters = ", ".join(f"{name}={name}" for name in scope)
        lines = [f"def run(records, out, {parameters}):", " append = out.append", " for x in records:"]
        depth = 2
        for index, (kind, _, name) in enumerate(links):
            indent = " " * depth
            if kind == "map":
                lines.append(f"{indent}x = f{index}(x)")
            elif kind == "keyby":
                lines.append(f"{indent}x = (stable_hash(f{index}(x)), x)")
            elif kind == "filter":
                lines.append(f"{indent}if f{index}(x):")
                depth += 1
            elif kind == "flatmap":
                lines.append(f"{indent}for x in f{index}(x):")
                depth += 1
            else:
                lines.append(f"{indent}f{index}(x)")
            self._names[len(lines)] = name
        if links[-1][0] != "sink":
            lines.append(f"{' ' * depth}append(x)")
        source = "\n".join(lines) + "\n"
        linecache.cache[self._file] = (len(source), None, source.splitlines(keepends=True), self._file)
        exec(compile(source, self._file, "exec"), scope)
        run: Callable[[Any, list[Any]], None] = scope["run"]
        self._code = scope["run"].__code__
        return run

    def blame(self, exception: BaseException) -> str | None:
        """The operator that raised an exception, if one of this chain did."""
        traceback = exception.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code is self._code:
                return self._names.get(traceback.tb_lineno)
            traceback = traceback.tb_next
        return None

    def close(self) -> None:
        """Closes the functions, the last one first."""
        close_all(self._functions)


def close_all(functions: list[Any]) -> None:
    """Calls ``close`` of each that has one; raises the first exception when all have been called.

    Those are objects that were made for this task: what a program passed in ready-made is its own to close.
    """
    failed: BaseException | None = None
    for function in reversed(functions):
        close = getattr(function, "close", None)
        if callable(close):
            try:
                close()
            except BaseException as exception:  # whatever it is, the others are closed as well
                failed = failed or exception
    if failed is not None:
        raise failed
