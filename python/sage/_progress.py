"""A line that tells how far a job is, on a terminal or in a notebook, while `submit` waits for it.

It is drawn by a thread of its own: the wait is the same with it and without, and so is what ends it. The line is on
standard error, drawn at most ten times a second, only where that does not have to wait, and erased when the job is
over.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from . import _sage
    from ._transformation import Transformation

#: In seconds: how long a job takes at least for a line to be drawn unasked, and how often it is drawn.
_PATIENCE, _INTERVAL = 0.5, 0.1


@contextmanager
def shown(job: _sage.Job, pipeline: Iterable[Transformation], name: str, wanted: bool | None) -> Iterator[None]:
    """Shows the progress of a job inside of the block, if it is wanted; ``None`` for where somebody sees it."""
    if wanted is False or (wanted is None and not _is_seen(pipeline)):
        yield
        return
    ends = {step.name for step in pipeline if step.kind == "sink" or step.options.get("as") == "sink"}
    over = threading.Event()
    arguments = (job, ends, name, 0.0 if wanted else _PATIENCE, over)
    thread = threading.Thread(target=_draw, args=arguments, name="sage-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_seen(pipeline: Iterable[Transformation]) -> bool:
    """Whether there is a place for the line where nothing else is printed by the job itself."""
    from ._io import PrintSink

    if _is_notebook():
        return True
    try:
        if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return False
    except (AttributeError, ValueError):
        return False  # there is none, it was closed, or it is an object of the program with a few methods
    functions = [step.made[0] for step in pipeline]
    return not any(f is print or (isinstance(f, type) and issubclass(f, PrintSink)) for f in functions)


def _is_notebook() -> bool:
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and type(get_shell()).__name__ == "ZMQInteractiveShell"


def _draw(job: _sage.Job, ends: set[str], name: str, patience: float, over: threading.Event) -> None:
    begin = time.monotonic()
    out = sys.stderr
    if over.wait(patience):
        return
    is_drawn = False
    try:
        while True:
            text = _line(job.taken(), ends, name, time.monotonic() - begin)
            # Back to the start at the end, so that what others print is not behind it.
            if _has_room(out):
                out.write(f"\r{text[: _columns() - 1]}\x1b[K\r")
                out.flush()
                is_drawn = True
            if over.wait(_INTERVAL):
                break
    except Exception:
        return  # nobody can see it: standard error was closed, or is an object of the program that cannot do this
    finally:
        if is_drawn and _has_room(out):
            _erase(out)


def _has_room(out: TextIO) -> bool:
    """Whether a line can be written without waiting, which the job would then do as well: a terminal may be halted."""
    try:
        poll = select.poll()
        poll.register(out.fileno(), select.POLLOUT)
        return bool(poll.poll(0))
    except (AttributeError, OSError, ValueError):
        return True  # there is no descriptor, as in a notebook


def _erase(out: TextIO) -> None:
    try:
        out.write("\r\x1b[K")
        out.flush()
    except Exception:
        pass  # as above


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):
        return 80


def _line(taken: list[tuple[str, int]], ends: set[str], name: str, seconds: float) -> str:
    """What is drawn: the time, and how many records each sink has taken."""
    counts = []
    for operator, records in taken:
        sink = operator.rpartition(" → ")[2]
        if sink in ends:
            counts.append(f"{sink} {records:,}")
    minutes, rest = divmod(int(seconds), 60)
    text = f"{name} {minutes}:{rest:02}  " + ", ".join(counts)
    return "".join(character if character.isprintable() else "?" for character in text)
