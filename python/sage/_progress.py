"""A line that tells how far a job is, on a terminal or in a notebook, while `submit` waits for it.

It is drawn by a thread of its own: the wait is the same with it and without, and so is what ends it. The line
is on standard error, drawn at most ten times a second, only where that does not have to wait, and erased when
the job is over. It is erased as well before the program writes to the terminal by ``sys.stdout`` or
``sys.stderr``, and drawn again below when what it wrote has ended its line. What writes past these two, such as
a handler of ``logging`` that was made before, writes over it.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from ._sage import await_end

if TYPE_CHECKING:
    from . import _sage
    from ._transformation import Transformation

#: In seconds: how long a job takes at least for a line to be drawn unasked, and how often it is drawn.
_PATIENCE, _INTERVAL = 0.5, 0.1


@contextmanager
def shown(job: _sage.Job, pipeline: Iterable[Transformation], name: str, wanted: bool | None) -> Iterator[None]:
    """Shows the progress of a job inside of the block, if it is wanted. ``None`` means: if a user sees it."""
    if wanted is False or (wanted is None and not _is_seen(pipeline)):
        yield
        return
    over = threading.Event()
    arguments = (job, name, 0.0 if wanted else _PATIENCE, over)
    thread = threading.Thread(target=_draw, args=arguments, name="sage-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if thread.native_id is not None:
            await_end(thread.native_id)


def _is_seen(pipeline: Iterable[Transformation]) -> bool:
    """Whether there is a place for the line where nothing else is printed by the job itself."""
    if _is_notebook():
        return True
    if not _is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        return False
    from ._io import PrintSink

    functions = [step.made[0] for step in pipeline]
    return not any(f is print or (isinstance(f, type) and issubclass(f, PrintSink)) for f in functions)


def _is_notebook() -> bool:
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and type(get_shell()).__name__ == "ZMQInteractiveShell"


def _draw(job: _sage.Job, name: str, patience: float, over: threading.Event) -> None:
    begin = time.monotonic()
    if over.wait(patience):
        return
    place = _Place(sys.stderr)
    try:
        with place.shared():
            while True:
                place.draw(_line(job.taken(), name, time.monotonic() - begin))
                if over.wait(_INTERVAL):
                    break
    except Exception:
        return  # nobody can see it: standard error was closed, or is an object of the program that cannot do this
    finally:
        place.leave()


class _Place:
    """Where the line is, and what the program writes to the same terminal meanwhile. Who draws never waits for
    who writes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        #: Held while something is written. A signal's handler may write while its thread does.
        self._lock = threading.RLock()
        self._is_drawn = False
        #: Whether the program has ended the line it wrote last.
        self._is_free = True

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Inside of the block, sends the program's output to a terminal through ``write``."""
        before = {name: getattr(sys, name) for name in ("stdout", "stderr") if _is_terminal(getattr(sys, name))}
        after = {name: cast(TextIO, _Through(stream, self)) for name, stream in before.items()}
        for name, stream in after.items():
            setattr(sys, name, stream)
        try:
            yield
        finally:
            for name, stream in after.items():
                if getattr(sys, name) is stream:  # else the program has put another in its place
                    setattr(sys, name, before[name])

    def draw(self, text: str) -> None:
        """Draws the line, if that can be done now."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            # Back to the start at the end, so that what others print is not behind it.
            if self._is_free and _has_room(self._out):
                self._out.write(f"\r{text[: _columns() - 1]}\x1b[K\r")
                self._out.flush()
                self._is_drawn = True
        finally:
            self._lock.release()

    def write(self, stream: TextIO, text: str) -> int:
        """Writes for the program, where the line was."""
        with self._lock:
            self._erase()
            written = stream.write(text)
            if text:
                self._is_free = text.endswith("\n")
            return written

    def leave(self) -> None:
        """Erases the line, if that can be done now."""
        if self._lock.acquire(blocking=False):
            try:
                self._erase()
            finally:
                self._lock.release()

    def _erase(self) -> None:
        if not self._is_drawn or not _has_room(self._out):
            return
        self._is_drawn = False
        try:
            self._out.write("\r\x1b[K")
            self._out.flush()
        except Exception:
            pass  # nobody can see it


class _Through:
    """A stream of the program whose texts are written where the line is not. All else is the stream's."""

    def __init__(self, stream: TextIO, place: _Place) -> None:
        self._stream = stream
        self._place = place

    def write(self, text: str) -> int:
        return self._place.write(self._stream, text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False  # there is none, it was closed, or it is an object of the program with a few methods


def _has_room(out: TextIO) -> bool:
    """Whether a line can be written without waiting, which the job would then do as well: a terminal may be halted."""
    try:
        poll = select.poll()
        poll.register(out.fileno(), select.POLLOUT)
        return bool(poll.poll(0))
    except (AttributeError, OSError, ValueError):
        return True  # there is no descriptor, as in a notebook


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):
        return 80


def _line(taken: list[tuple[str, int]], name: str, seconds: float) -> str:
    """What is drawn: the time, and how many records each sink has taken."""
    counts = ", ".join(f"{sink} {records:,}" for sink, records in taken)
    minutes, rest = divmod(int(seconds), 60)
    text = f"{name} {minutes}:{rest:02}  {counts}"
    return "".join(character if character.isprintable() else "?" for character in text)
