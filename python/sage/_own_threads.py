"""What each thread of the engine has done in the interpreter before it runs code of a program, and after: what
``threading`` does for those that it starts.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

_threading: Any = threading

#: The numbers that the system has for the threads that are here, by those that the interpreter has.
system_numbers: dict[int, int] = {}


def begin() -> None:
    """Called once on each thread, in its own copy of the submitter's context variables, before a program's code."""
    system_numbers[threading.get_ident()] = threading.get_native_id()
    decimal = sys.modules.get("decimal")
    if decimal is not None:
        # The variable is copied with the others, but what it has is an object that threads would share.
        decimal.setcontext(decimal.getcontext().copy())
    trace, profile = threading.gettrace(), threading.getprofile()
    if trace is not None:
        sys.settrace(trace)
    if profile is not None:
        sys.setprofile(profile)


def end() -> None:
    """Called when the thread has nothing more to do."""
    sys.settrace(None)
    sys.setprofile(None)
    # `current_thread` lists a thread that it does not know, and nobody takes that back.
    number = threading.get_ident()
    system_numbers.pop(number, None)
    if number in _threading._active:
        with _threading._active_limbo_lock:
            if isinstance(_threading._active.get(number), _threading._DummyThread):
                del _threading._active[number]
