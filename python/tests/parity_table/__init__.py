"""The names of SAGE's API that the package has: where they are imported from, what they take, and what they do.

`docs/parity.md` has two tables that this package writes: `make parity-page`. A row is a function here, which checks the
name's behaviour; its decorator says the rest. `test_parity.py` goes through the rows.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sage import LocalEnvironment

PAGE = Path(__file__).parents[3] / "docs" / "parity.md"

Check = Callable[[Any], None]


@dataclass(frozen=True)
class Row:
    """A name."""

    name: str
    #: The parameters, by SAGE's names and with our defaults, as in a `def`; `None` of what is not called.
    takes: str | None = None
    #: The modules that have it; or the class that it is of, by the name of its row.
    modules: list[str] = field(default_factory=list)
    of: str = ""
    #: Of one that is not there yet, the part of the engine that it needs.
    later: str = ""
    check: Check | None = None

    def __str__(self) -> str:
        return f"{self.of}.{self.name}" if self.of else self.name

    def objects(self) -> list[Any]:
        """It, as it is found at each of its modules. Raises `AttributeError` or `ModuleNotFoundError`."""
        if self.of:
            (owner,) = [row for row in ROWS if row.name == self.of and not row.of]
            return [getattr(owner.objects()[0], self.name)]
        return [getattr(importlib.import_module(module), self.name) for module in self.modules]


ROWS: list[Row] = []


def there(name: str, takes: str | None, modules: str) -> Callable[[Check], Check]:
    """Adds a row for a class or a function that is there, at modules with spaces between them."""

    def add(check: Check) -> Check:
        ROWS.append(Row(name, takes, modules.split(), check=check))
        return check

    return add


def of(owner: str, name: str, takes: str | None = None) -> Callable[[Check], Check]:
    """Adds a row for a method or an attribute; the check gets the class."""

    def add(check: Check) -> Check:
        ROWS.append(Row(name, takes, of=owner, check=check))
        return check

    return add


def later(name: str, modules: str, needs: str) -> None:
    """Adds a row for a name that is not there yet."""
    ROWS.append(Row(name, modules=modules.split(), later=needs))


def function_modules(name: str) -> str:
    """The modules that have a class of functions."""
    files = f"sage.core.api.function.{name}_function sage.common.core.functions.{name}_function"
    return f"{files} sage.core.api.function sage.common.core.functions sage.common.core sage.foundation {CORE}"


CORE = "sage.foundation.core"


def run(declare: Callable[[LocalEnvironment], Any], **services: Any) -> list[Any]:
    """The records of a stream that is declared in an environment with these services."""
    env = LocalEnvironment("parity")
    for name, service in services.items():
        env.register_service(name, service)
    records: list[Any] = declare(env).collect()
    env.submit(autostop=True)
    return records


def check_takes(takes: str, function: Any, is_method: bool) -> None:
    """Raises if a function does not take these parameters, by position and by name, or has other defaults."""
    wanted = list(inspect.signature(eval(f"lambda {takes}: None")).parameters.values())
    actual = inspect.signature(function)
    first = [None] if is_method else []
    kinds = {kind: [each for each in wanted if each.kind is kind] for kind in inspect._ParameterKind}
    by_name = [*kinds[inspect.Parameter.POSITIONAL_OR_KEYWORD], *kinds[inspect.Parameter.KEYWORD_ONLY]]
    names = {each.name: None for each in by_name}
    only = [None] * len(kinds[inspect.Parameter.POSITIONAL_ONLY])
    extra = {"other": None} if kinds[inspect.Parameter.VAR_KEYWORD] else {}
    more = [None, None] if kinds[inspect.Parameter.VAR_POSITIONAL] else []
    keywords = {each.name: None for each in kinds[inspect.Parameter.KEYWORD_ONLY]}
    placed = [None] * len(kinds[inspect.Parameter.POSITIONAL_OR_KEYWORD])
    actual.bind(*first, *only, **names, **extra)
    actual.bind(*first, *only, *placed, *more, **keywords, **extra)
    for each in by_name:
        if each.default is not each.empty:
            actual.bind(*first, *only, **{name: None for name in names if name != each.name})
            if each.name in actual.parameters:
                default = actual.parameters[each.name].default
                assert default == each.default, f"{each.name} is {default!r} by default, not {each.default!r}"


def tables() -> dict[str, list[str]]:
    """The tables of the page, by their names."""

    def code(texts: list[str]) -> str:
        return ", ".join(f"`{text}`" for text in texts)

    names = ["| name | takes | at | state |", "|---|---|---|---|"]
    methods = ["| of | name | takes |", "|---|---|---|"]
    for row in ROWS:
        # A bar would end the cell.
        takes = "" if row.takes is None else f"`({row.takes})`".replace("|", "\\|")
        if row.of:
            methods.append(f"| `{row.of}` | `{row.name}` | {takes} |")
        else:
            state = f"later: {row.later}" if row.later else "there"
            names.append(f"| `{row.name}` | {takes} | {code(row.modules)} | {state} |")
    return {"names": names, "methods": methods}


def page(text: str) -> str:
    """The page with its tables, each between two marks."""
    for name, lines in tables().items():
        mark = f"<!-- {name} -->"
        pattern = re.compile(f"{mark}\n.*?{mark}\n", re.DOTALL)
        assert len(pattern.findall(text)) == 1, f"{mark} is to be there twice"
        table = "\n".join(lines)
        text = pattern.sub(lambda _: f"{mark}\n\n{table}\n\n{mark}\n", text)
    return text


def write() -> None:
    """Writes the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


# They add their rows.
from . import environments, functions, io, jobs, memory, rag, services, streams, values  # noqa: E402, F401
