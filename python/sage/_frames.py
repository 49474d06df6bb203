"""Data frames of reports, by pandas or polars."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

_LIBRARIES = ("pandas", "polars")

#: What a report has rows of.
_ROWS = ("operators", "services", "workers")


def frame(report: Mapping[str, Any], rows: str, library: str | None) -> Any:
    """A data frame with these rows of a report."""
    if rows not in _ROWS:
        raise ValueError(f"a report has rows of {', '.join(_ROWS)}, not {rows!r}")
    if library not in (None, *_LIBRARIES):
        raise ValueError(f"`library` is \"pandas\" or \"polars\", not {library!r}")
    made = _imported(library)
    # The rows of functions that ran together are not of this shape: see `Report.functions`.
    plain = [{name: value for name, value in row.items() if name != "functions"} for row in report.get(rows, [])]
    return made.DataFrame(plain)


def _imported(library: str | None) -> Any:
    """The library that is asked for, or one that is there: first of those that the program uses already."""
    asked = [library] if library else sorted(_LIBRARIES, key=lambda name: name not in sys.modules)
    for name in asked:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    needed = " or ".join(asked)
    raise ImportError(f"`to_frame` needs {needed}: pip install {asked[0]}", name=asked[0])
