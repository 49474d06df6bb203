"""Where a thread is stuck, as a Python stack."""

from __future__ import annotations

import os
import sys

_PACKAGE = os.path.dirname(__file__) + os.sep

#: How many calls are told, the innermost ones.
MOST_CALLS = 20


def where_stuck(thread: int) -> str | None:
    """The stack of a thread, without the calls of this package around those of the program; ``None`` if it runs
    no Python code."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return None
    import traceback  # only when something is stuck

    stack = traceback.extract_stack(frame)
    programs = [call for call in stack if not call.filename.startswith((_PACKAGE, "<sage chain"))]
    return "".join(traceback.format_list((programs or list(stack))[-MOST_CALLS:])).rstrip()
