"""The page docs/parity.md tells the truth about the package."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import sage

PAGE = (Path(__file__).parents[2] / "docs" / "parity.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w.]+)` \| ((?:`\w+`(?:, )?)+) \| (there|open|later) \|$", PAGE, re.MULTILINE)


def owner(name: str) -> Any:
    """The module or class of a row; ``None`` if there is none."""
    if "." not in name:
        return getattr(sage, name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


@pytest.mark.parametrize(("of", "names", "state"), ROWS, ids=[f"{of}-{state}" for of, _, state in ROWS])
def test_a_row_is_true(of: str, names: str, state: str) -> None:
    for name in re.findall(r"`(\w+)`", names):
        assert hasattr(owner(of), name) == (state == "there"), f"{of}: {name}"


def test_the_page_is_read_whole() -> None:
    assert len(ROWS) == len(re.findall(r"\| (?:there|open|later) \|$", PAGE, re.MULTILINE)) > 40


def test_names_are_the_same_objects_at_every_path() -> None:
    for of, names, state in ROWS:
        for name in re.findall(r"`(\w+)`", names) if state == "there" and "." in of else []:
            public = getattr(sage, name, None)
            assert public is None or getattr(owner(of), name) is public, f"{of}: {name}"
