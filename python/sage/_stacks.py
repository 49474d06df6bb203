"""Finds where a thread is stuck, as a Python stack."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import dropwhile
from typing import TYPE_CHECKING

from ._arguments import shown
from ._own_threads import system_numbers

if TYPE_CHECKING:
    from traceback import FrameSummary

_PACKAGE = os.path.dirname(__file__) + os.sep

#: How many calls are told, the innermost ones.
MOST_CALLS = 20

#: Of threads that wait for something elsewhere, what tells where that is.
_elsewhere: dict[int, Callable[[], str | None]] = {}


@contextmanager
def stuck_in(where: Callable[[], str | None]) -> Iterator[None]:
    """The calling thread waits for what ``where`` tells of."""
    thread = threading.get_ident()
    before = _elsewhere.get(thread)
    _elsewhere[thread] = where
    try:
        yield
    finally:
        if before is None:
            del _elsewhere[thread]
        else:
            _elsewhere[thread] = before


def where_stuck(thread: int, besides: tuple[str, ...] = ()) -> str | None:
    """The stack of a thread, without the calls of this package around those of the program; ``None`` if it runs
    no Python code. With ``besides``, calls of these files and folders are no program's either, and without any of a
    program's there is none."""
    elsewhere = None if besides else _elsewhere.get(thread)
    told = None if elsewhere is None else elsewhere()
    if told:
        return told
    frame = sys._current_frames().get(thread)
    if frame is None:
        return None
    import traceback  # only when something is stuck

    stack = list(dropwhile(lambda call: call.filename == threading.__file__, traceback.extract_stack(frame)))
    if besides and all(call.filename.startswith((_PACKAGE, *besides)) for call in stack):
        return None
    return programs_part(stack)


def running(most: int) -> list[tuple[int, str]]:
    """The threads that run Python code, ``most`` at most, but for the one that asks: the number that the system has for
    each, and its stack."""
    numbers = {thread.ident: thread.native_id for thread in threading.enumerate()} | system_numbers
    asks, found = threading.get_ident(), list[tuple[int, str]]()
    for thread in sys._current_frames():
        number, stack = numbers.get(thread), None if thread == asks else where_stuck(thread)
        if number and stack and len(found) < most:
            found.append((number, stack))
    return found


def programs_part(stack: list[FrameSummary]) -> str:
    """A stack in words, without the calls of this package, unless it has no others."""
    import traceback

    programs = [call for call in stack if not call.filename.startswith((_PACKAGE, "<sage chain"))]
    return shown("".join(traceback.format_list((programs or stack)[-MOST_CALLS:])).rstrip())
