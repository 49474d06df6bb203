"""How far a job is, shown while `submit` waits for it: by a line on a terminal or in a notebook, by the packages rich
or tqdm, or by a function of the program.

It is shown by a thread of its own: the wait is the same with it and without, and so is what ends it. On a terminal,
the line is on standard error, drawn at most ten times a second, only where that does not have to wait. It is erased
before the program writes to the terminal by ``sys.stdout`` or ``sys.stderr``, and drawn again below when what it wrote
has ended its line. What writes past these two, such as a handler of ``logging`` that was made before, writes over it.
When the job is over, a last line says what has become of it, and stays; but not where a signal has ended the job, as
that is said by another line. In a notebook, all is one output, which is replaced each time.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from ._arguments import said, warn
from ._sage import await_end

if TYPE_CHECKING:
    from ._metrics import JobMetrics
    from ._running import Run
    from ._transformation import Transformation

    #: What a program may say: whether a line is shown, a package, or a function.
    Wanted = bool | str | Callable[[JobMetrics], object] | None

#: The same, in words.
WORDS = 'True, False, "rich", "tqdm" or a function'

#: In seconds: how long a job takes at least for something to be shown unasked, and how often it is shown on a terminal,
#: and where lines are kept, as in a file.
_PATIENCE, INTERVAL, _KEPT = 0.5, 0.1, 10.0

#: How long a function of the program may take, in seconds, before the end of the job does not wait for it any more.
_LONGEST = 10.0


class Shows(Protocol):
    """What shows how far a job is."""

    #: How many seconds pass until it shows that again.
    interval: float

    def show(self, metrics: JobMetrics) -> None:
        """Shows it."""

    def end(self, metrics: JobMetrics, is_told: bool) -> None:
        """The job is over; ``is_told`` says that another line tells of its end. Only after ``show``."""


def chosen(wanted: Wanted, pipeline: Iterable[Transformation]) -> Callable[[], Shows] | None:
    """What makes what shows how far a job is; ``None`` where nothing is to be shown. Raises where that cannot be."""
    if isinstance(wanted, str):
        from . import _bars  # few programs ask for one

        return _bars.of(wanted)
    if wanted is False or (wanted is None and not _is_seen(pipeline)):
        return None
    if wanted is None or wanted is True:
        if is_notebook():
            from ._bars import Output

            return Output
        return lambda: _Line(sys.stderr) if _is_terminal(sys.stderr) else _Kept(sys.stderr)
    if not callable(wanted):
        raise TypeError(f"`progress` is {WORDS}, not {said(wanted)}")
    from ._bars import Told

    return partial(Told, wanted)


@contextmanager
def shown(run: Run, wanted: Wanted, make: Callable[[], Shows] | None) -> Iterator[None]:
    """Shows the progress of a job inside of the block."""
    if make is None:
        yield
        return
    # Here, and not by a thread that the program knows nothing of.
    run.input.all()
    over = threading.Event()
    arguments = (run, make, _PATIENCE if wanted is None else 0.0, over)
    thread = threading.Thread(target=_show, args=arguments, name="sage-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LONGEST)
        if thread.is_alive():
            warn(f"{said(wanted)} has not returned since the job is over, and is not waited for any more")
        elif thread.native_id is not None:
            await_end(thread.native_id)


def _show(run: Run, make: Callable[[], Shows], patience: float, over: threading.Event) -> None:
    if over.wait(patience):
        return
    from ._metrics import of_run  # here, as short jobs need none

    try:
        place = make()
        with getattr(place, "shared", _alone)():
            while True:
                place.show(of_run(run))
                if over.wait(place.interval):
                    break
        place.end(of_run(run), run.is_signalled)
    except Exception:
        return  # nobody can see it: standard error was closed, or is an object of the program that cannot do this


@contextmanager
def _alone() -> Iterator[None]:
    yield


def _is_seen(pipeline: Iterable[Transformation]) -> bool:
    """Whether there is a place for the line where nothing else is printed by the job itself."""
    if is_notebook():
        return True
    if not _is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        return False
    from ._io import PrintSink

    functions = [step.made[0] for step in pipeline]
    return not any(f is print or (isinstance(f, type) and issubclass(f, PrintSink)) for f in functions)


def is_notebook() -> bool:
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and type(get_shell()).__name__ == "ZMQInteractiveShell"


# ---- what is said


def line(metrics: JobMetrics) -> str:
    """How far a job is: ``enrich 636/2,000 32 % 19.9/s ETA 1:08 failed 2 retried 14``."""
    parts = [metrics.environment, _counts(metrics)]
    if metrics.total is None:
        parts.append(minutes(metrics.elapsed))
    elif metrics.total:
        parts.append(f"{min(metrics.done * 100 // metrics.total, 100)} %")
    parts += _rate(metrics)
    if metrics.eta is not None:
        parts.append(f"ETA {minutes(metrics.eta)}")
    if metrics.state not in ("running", "starting", "created"):
        parts.append(metrics.state)
    return _printable(parts + troubles(metrics))


def summary(metrics: JobMetrics) -> str:
    """What has become of a job: ``enrich 2,000/2,000 in 1:41 19.8/s failed 2 retried 14``."""
    parts = [metrics.environment, _counts(metrics), f"in {minutes(metrics.elapsed)}", *_rate(metrics)]
    if metrics.outcome != "succeeded":
        parts.insert(1, f"{(metrics.outcome or 'left').replace('_', ' ')} at")
    return _printable(parts + troubles(metrics))


def _counts(metrics: JobMetrics) -> str:
    return f"{metrics.done:,}" if metrics.total is None else f"{metrics.done:,}/{metrics.total:,}"


def _rate(metrics: JobMetrics) -> list[str]:
    if not metrics.done:
        return []
    places = 0 if metrics.rate >= 100 else 1 if metrics.rate >= 1 else 2
    return [f"{metrics.rate:,.{places}f}/s"]


def troubles(metrics: JobMetrics) -> list[str]:
    told = ("failed", metrics.failed), ("retried", metrics.retried)
    return [f"{word} {number:,}" for word, number in told if number]


def minutes(seconds: float) -> str:
    """A length of time, as ``1:08``."""
    whole, rest = divmod(int(seconds), 60)
    hours, whole = divmod(whole, 60)
    return f"{hours}:{whole:02}:{rest:02}" if hours else f"{whole}:{rest:02}"


def _printable(parts: list[str]) -> str:
    return "".join(character if character.isprintable() else "?" for character in " ".join(parts))


# ---- where it is said


class _Line:
    """A line on a terminal, and what the program writes to the same one meanwhile. Who draws never waits for who
    writes."""

    interval = INTERVAL

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
            # A job that fails to be asked is no reason to leave the line there.
            with self._when_free():
                self._erase()

    def show(self, metrics: JobMetrics) -> None:
        """Draws the line, if that can be done now."""
        with self._when_free() as is_free:
            # Back to the start at the end, so that what others print is not behind it.
            if is_free and self._is_free and _has_room(self._out):
                self._out.write(f"\r{line(metrics)[: _columns() - 1]}\x1b[K\r")
                self._out.flush()
                self._is_drawn = True

    def end(self, metrics: JobMetrics, is_told: bool) -> None:
        """Writes the last line, if that can be done now."""
        with self._when_free() as is_free:
            if is_free and not is_told and _has_room(self._out):
                self._out.write(("" if self._is_free else "\n") + f"{summary(metrics)}\n")
                self._out.flush()

    @contextmanager
    def _when_free(self) -> Iterator[bool]:
        """Nobody else writes inside of the block, if it is told so."""
        is_free = self._lock.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._lock.release()

    def write(self, stream: TextIO, text: str) -> int:
        """Writes for the program, where the line was."""
        with self._lock:
            self._erase()
            written = stream.write(text)
            if text:
                self._is_free = text.endswith("\n")
            return written

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

    def __init__(self, stream: TextIO, place: _Line) -> None:
        self._stream = stream
        self._place = place

    def write(self, text: str) -> int:
        return self._place.write(self._stream, text)

    def writelines(self, lines: Iterable[str]) -> None:
        for text in lines:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Kept:
    """Lines where all that is written stays, as in a file: few of them."""

    interval = _KEPT

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_first = True

    def show(self, metrics: JobMetrics) -> None:
        """Writes a line, but none at the begin."""
        if not self._is_first:
            self._write(line(metrics))
        self._is_first = False

    def end(self, metrics: JobMetrics, is_told: bool) -> None:
        """Writes the last line."""
        if not is_told:
            self._write(summary(metrics))

    def _write(self, text: str) -> None:
        self._out.write(f"{text}\n")
        self._out.flush()


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
        return True  # there is no descriptor


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):
        return 80
