"""Reads the docstrings of the package for the reference: an extension of griffe, see `mkdocs.yml`.

- An example is what doctest runs: lines from a `>>>` to the next empty line. It is shown as a block of code, where
  Markdown would make a quotation of it.
- An attribute is described by the comment above it that begins with `#:`.
- A default that is marked as one, `default(3)`, is shown as it is: `3`.
- What is written in Rust has its docstrings in the compiled module; griffe reads its stub, which has none.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))
from sage import _sage  # noqa: E402

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)


def fenced(docstring: str) -> str:
    """The docstring with each example in a block of code."""
    return EXAMPLE.sub(lambda found: f"{found[1]}```pycon\n{found[0]}\n{found[1]}```", docstring)


def compiled(path: str) -> str | None:
    """The docstring of a name of the compiled module."""
    found: Any = _sage
    for name in path.removeprefix("sage._sage.").split("."):
        found = getattr(found, name, None)
    return inspect.getdoc(found)


def commented(obj: griffe.Attribute) -> str:
    """The comment above an attribute."""
    lines = obj.lines_collection[obj.filepath][: (obj.lineno or 1) - 1]
    comment: list[str] = []
    while lines and lines[-1].strip().startswith("#:"):
        comment.insert(0, lines.pop().strip().removeprefix("#:"))
    return inspect.cleandoc("\n".join(comment))


def complete(obj: griffe.Object) -> None:
    """Completes the docstring of an object and of all in it."""
    text = None
    if obj.docstring is None and obj.path.startswith("sage._sage."):
        text = compiled(obj.path)
    elif obj.docstring is None and isinstance(obj, griffe.Attribute):
        text = commented(obj)
    if text:
        obj.docstring = griffe.Docstring(text, parent=obj)
    if obj.docstring is not None:
        obj.docstring.value = fenced(obj.docstring.value)
    for parameter in obj.parameters if isinstance(obj, griffe.Function) else ():
        parameter.default = re.sub(r"^default\((.*)\)$", r"\1", str(parameter.default)) if parameter.default else None
    for member in obj.members.values():
        if not isinstance(member, griffe.Alias):
            complete(member)


class Docstrings(griffe.Extension):
    """Completes the docstrings of a package."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called once the package and its stubs are read."""
        complete(pkg)
