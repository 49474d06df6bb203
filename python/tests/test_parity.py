"""The page docs/parity.md tells the truth about the package: see `parity_table`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
from parity_table import PAGE, ROWS, Row, check_takes, page

import sage

THERE = [row for row in ROWS if not row.later]


@pytest.mark.parametrize("row", THERE, ids=str)
def test_a_name_is_there_takes_what_the_page_says_and_does_it(row: Row) -> None:
    found = row.objects()
    assert found and all(other is found[0] for other in found), "the same object at every path"
    assert getattr(sage, row.name, found[0]) is found[0] or row.of
    if row.takes is not None and not isinstance(found[0], property):
        is_method = bool(row.of) and not hasattr(found[0], "__self__")
        check_takes(row.takes, found[0], is_method)
    if row.check is not None:
        row.check(owner(row).objects()[0])


def owner(row: Row) -> Row:
    """The row that the check is about: that of the class of a method."""
    return next(other for other in ROWS if other.name == row.of) if row.of else row


@pytest.mark.parametrize("row", [row for row in ROWS if row.later], ids=str)
def test_a_name_that_comes_later_is_not_there(row: Row) -> None:
    for module in row.modules:
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        assert not hasattr(found, row.name), f"{module} has it"


def test_every_row_has_a_check_and_every_method_an_owner() -> None:
    assert len(THERE) > 100 and all(row.check for row in THERE)
    names = [str(row) for row in ROWS]
    assert len(set(names)) == len(names)
    assert all(owner(row).modules for row in ROWS)


def test_the_page_is_what_the_table_makes_of_it() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run `make parity-page`"


def takes(function: Callable[..., Any]) -> Callable[[str], None]:
    return lambda wanted: check_takes(wanted, function, False)


def test_what_a_function_takes_is_checked_by_position_by_name_and_by_default() -> None:
    def function(a: int, b: int = 2, *more: int, c: str = "c") -> None: ...

    for fine in ("a, b=2", "a, b=2, *args, c='c'", "a", "a, *, c='c'"):
        takes(function)(fine)
    for wrong in ("", "a, b=3", "a, d=2", "a, b=2, **kwargs", "b"):
        with pytest.raises((TypeError, AssertionError)):
            takes(function)(wrong)
