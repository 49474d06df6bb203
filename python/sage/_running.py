"""The jobs of this process, from their start until they are known to be over.

Invariants:
 1. A job that is not over is held here: it goes on though its environment and its id are gone, and the end of the
    interpreter cancels it and waits for its cleanup. Who waits for a job lets go of it; those that nobody waited for go
    with the next start.
 2. A forked process has none of the threads of the jobs that were running: it forgets them, and they refuse to be
    touched there.
 3. While jobs run, SIGTERM ends the program as Ctrl-C does, by an exception in the main thread, if it would end it
    otherwise. The program's own handler is left alone. Without one, and for jobs that were submitted by other threads
    only, the engine sees to it that the signal takes its effect when everything is cleaned.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from . import _sage
from ._context import ServiceCalls
from ._counts import Parts
from ._files import told_of

#: May be taken by a signal handler of the program that stops a job. Tells when no job is being started any more.
_lock = threading.Condition(threading.RLock())
_running: set[Run] = set()
_starting = 0
#: In a forked process: the jobs of the other one.
_not_ours: set[Run] = set()


class Run:
    """A job, and what is let go when it is over."""

    def __init__(self, job: _sage.Job, calls: ServiceCalls) -> None:
        self.job = job
        self._calls = calls
        #: Files that sinks left unfinished, as a signal ended the job.
        self.kept = calls.kept
        #: What was told of them.
        self.said: str | None = None
        #: Which functions ran together, for the report.
        self.parts: Parts = {}
        #: Whether somebody was told how it ended.
        self.is_told = False

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the job is over, or for ``timeout`` seconds; says whether it is."""
        try:
            is_over = self.job.wait(timeout)
        finally:
            if self.job.state == "ended":
                self.said = told_of(self.kept) or self.said
        if not is_over:
            return False
        with _lock:
            _running.discard(self)
            _leave_signals()
        self._calls.close()
        return True


def start(begin: Callable[[bool], _sage.Job], calls: ServiceCalls) -> Run:
    """Starts a job. ``begin`` is told whether this is the main thread."""
    global _starting
    for run in [run for run in list(_running) if run.job.state == "ended"]:
        run.wait(0)
    is_on_main = threading.current_thread() is threading.main_thread()
    with _lock:
        _starting += 1
    try:
        if is_on_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _end_program)
        run = Run(begin(is_on_main), calls)
        _running.add(run)
    finally:
        with _lock:
            _starting -= 1
            _lock.notify_all()
            _leave_signals()
    return run


def _leave_signals() -> None:
    """Puts SIGTERM back as it was when no job is left."""
    if _running or _starting or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is _end_program:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_program(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@atexit.register
def _end_all() -> None:
    """Cancels what still runs: no thread of the engine may be in the interpreter when that ends."""
    while not _have_ended():
        for run in list(_running):
            # Otherwise a signal has begun to drain it.
            if run.job.state not in ("draining", "stopping"):
                run.job.cancel()
        for run in list(_running):
            try:
                run.wait()
            except (KeyboardInterrupt, SystemExit):
                pass  # further signals, which the engine acts on


def _have_ended() -> bool:
    """Whether no job is left, and none can come; waits for those that are being started by other threads."""
    try:
        with _lock:
            _lock.wait_for(lambda: not _starting)
            if _running:
                return False
            if not _not_ours:
                _sage.end_attaching()
            return True
    except (KeyboardInterrupt, SystemExit):
        return False


def _forget() -> None:
    global _lock, _starting
    _lock = threading.Condition(threading.RLock())
    _starting = 0
    _not_ours.update(_running)
    _running.clear()
    _leave_signals()


os.register_at_fork(after_in_child=_forget)
