"""The jobs of this process, from their start until they are known to be over.

Invariants:
 1. A job that is not over is held here: it goes on though its environment and its id are gone, and the end of the
    interpreter cancels it and waits for its cleanup. Who waits for a job lets go of it; those that nobody waited for go
    with the next start.
 2. A forked process has none of the threads of the jobs that were running: it forgets them, and they refuse to be
    touched there.
 3. While jobs run, SIGTERM ends the program as Ctrl-C does, by an exception in the main thread, if it would end it
    otherwise. The program's own handler is left alone. Without one, and for jobs that were submitted by other threads
    only, the engine sees to it that the signal takes its effect when everything is cleaned. The handler is taken out
    with the last job: by the main thread, which alone can do it, before that runs another line of the program.
 4. While the main thread waits for a job, the program's handlers of signals run. What one raises is raised when the
    job is over; the job is let go of before. ``Heeding`` in ``_job`` sees to the time before such a wait has begun.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from logging import INFO, getLogger
from signal import SIGTERM
from types import FrameType
from typing import TYPE_CHECKING, Any

from . import _sage
from ._arguments import warn
from ._context import ServiceCalls
from ._interrupted import Sources, tell_interrupted, tell_stopping, told_of
from ._job import attach
from ._rates import Rates

if TYPE_CHECKING:
    from ._jobmanager import JobInfo

#: What `signal` wraps: it makes enumerations of all it gives, which for a small job is a twentieth of its time.
_signals: Any = importlib.import_module("_signal")

#: May be taken by a signal handler of the program that stops a job. By itself, as an exception of a handler that comes
#: while a ``Condition`` is entered or left would leave it locked.
_lock = threading.RLock()
#: Tells of jobs that have begun, and when none is being started any more.
_changed = threading.Condition(_lock)
_running: set[Run] = set()
_starting: set[Run] = set()
#: In a forked process: the jobs of the other one.
_not_ours: set[Run] = set()
#: The latest that had ended when another was started, before the program was told how.
_untold: deque[Run] = deque(maxlen=100)


class Run:
    """A job, and the objects to let go of when it is over."""

    #: From the start on.
    job: _sage.Job

    def __init__(self, calls: ServiceCalls, name: str, submitted: float, sources: Sources) -> None:
        #: That of its environment.
        self.name = name
        #: When it was submitted, in seconds since 1970; and as the job manager knows it.
        self.submitted = submitted
        self.info: JobInfo | None = None
        #: What else is called when it is over.
        self.at_end: list[Callable[[], None]] = []
        self._calls = calls
        calls.run = self
        #: Files that sinks left unfinished, as a signal ended the job.
        self.kept = calls.kept
        #: Results of its functions that are no records.
        self.nones = calls.nones
        self.restarts = calls.restarts
        #: What its worker processes have told at their end.
        self.workers = calls.workers
        #: What else the report is to note.
        self.notes = calls.notes
        self._has_said = False
        #: The message about them.
        self.said: str | None = None
        #: Whether the program was told how the job ended.
        self.is_told = False
        #: What it reads.
        self.input = sources
        #: What its metrics were told from.
        self.rates = Rates()
        #: For what is said on standard error when a signal ends it; ``None`` where that is to be silent, or was said.
        self.sources: Sources | None = None
        self._is_stopping = False

    def wait(self, timeout: float | None = None, before: BaseException | None = None) -> bool:
        """Waits until the job is over, or for ``timeout`` seconds; says whether it is. On the main thread, raises what
        handlers of signals raised meanwhile, or ``before``, when the job is over."""
        told = self.stopping if threading.current_thread() is threading.main_thread() else None
        try:
            return self.job.wait(timeout, told, before)
        except BaseException as error:
            if self.job.is_over:
                self.is_told = True
                attach(error, self.job)
            raise
        finally:
            if self.job.is_over:
                with _lock:
                    _running.discard(self)
                    _starting.discard(self)  # an exception of a handler may have kept ``start`` from it
                    leave_signals()
                self._calls.close()
                with _lock:
                    has_said, self._has_said = self._has_said, True
                if not has_said:
                    self._log_end()
                self.ends()
                if self.restarts is not None:
                    self.restarts.over(self.job.error is None)
                self._tell_end()
                if not has_said:
                    self.nones.say(self.name)
                self.input.over()
                self.said = told_of(self.kept) or self.said

    @property
    def begun(self) -> _sage.Job:
        """The job, also for tasks of it that ask before ``start`` has returned."""
        if not hasattr(self, "job"):
            with _lock:
                _changed.wait_for(lambda: hasattr(self, "job"))
        return self.job

    @property
    def goes_on(self) -> bool:
        """Whether the job was started by this process, is not over, and no exception of a signal has ended the wait for
        it."""
        return hasattr(self, "job") and not self.job.is_over and not self.job.is_left and self not in _not_ours

    @property
    def state(self) -> str:
        state = self.job.state
        if state == "ended":
            leave_signals()
        return state

    @property
    def is_signalled(self) -> bool:
        """Whether SIGINT or SIGTERM has come while it ran."""
        return self._is_stopping or self.job.signal is not None

    def stopping(self) -> None:
        """SIGINT or SIGTERM has come while the main thread waits for the job."""
        if self.sources is not None and not self._is_stopping:
            self._is_stopping = True
            tell_stopping(self.job.unfinished())

    def _log_end(self) -> None:
        logger = getLogger(f"sage.{self.name}")
        if logger.isEnabledFor(INFO):
            from ._metrics import of_run  # here, as few programs look at metrics
            from ._progress import summary

            logger.info("job %s has ended: %s", self.job.id, summary(of_run(self)))

    def ends(self) -> None:
        """It is over, or was not started."""
        if self.info is not None:
            self.info.ends(self)
        with _lock:
            calls, self.at_end = self.at_end, []
        for call in calls:
            try:
                call()
            except Exception as error:  # such as a full disk: the job has ended as it has
                warn(f"at the end of `{self.name}`: {type(error).__name__}: {error}")

    @property
    def is_whole(self) -> bool:
        """Whether every record that its sources gave went through all of it, and no file was left unfinished."""
        import json  # few jobs are asked

        report = json.loads(self.job.report_json or "{}")
        if not report or report["left"] or self.kept:
            return False
        # A signal drains a job, unless another one or a deadline has cut that short.
        is_cut = report["attached"] or report["dropped"] or any(row["dropped_windows"] for row in report["operators"])
        is_drained = self.job.signal is not None and not is_cut
        return is_drained or report["outcome"] == "succeeded"

    @property
    def log_dir(self) -> str | None:
        """The folder for what its functions write, if it has log files."""
        return self._calls.log_dir

    def _tell_end(self) -> None:
        sources, self.sources = self.sources, None
        if sources is not None and self.is_signalled:
            import json  # only for a job that a signal ended

            tell_interrupted(sources, json.loads(self.job.report_json or "{}"))


def start(run: Run, begin: Callable[[bool], None]) -> None:
    """Starts a job: ``begin`` gives it to the run. It is told whether this is the main thread."""
    for ended in [run for run in list(_running) if run.job.state == "ended"]:
        ended.wait(0)
        if not ended.is_told:
            _untold.append(ended)
    is_on_main = threading.current_thread() is threading.main_thread()
    try:
        with _lock:
            _starting.add(run)
        if is_on_main and _signals.getsignal(SIGTERM) is _signals.SIG_DFL:
            _signals.signal(SIGTERM, _end_program)
        begin(is_on_main)
        _running.add(run)
    finally:
        with _lock:
            _starting.discard(run)
            _changed.notify_all()
            leave_signals()


def leave_signals() -> None:
    """Restores the handler of SIGTERM when all jobs are over. The engine calls it whenever a job is over."""
    if _starting or threading.current_thread() is not threading.main_thread():
        return
    if _signals.getsignal(SIGTERM) is not _end_program:
        return
    if all(run.job.state == "ended" for run in list(_running)):
        _signals.signal(SIGTERM, _signals.SIG_DFL)


def _end_program(number: int, _frame: FrameType | None) -> None:
    ends = SystemExit(128 + number)
    # A job that the main thread waits for is ended by the signal itself.
    ends._ends_program = True  # type: ignore[attr-defined]
    raise ends


@atexit.register
def _end_all() -> None:
    """Cancels what still runs: no thread of the engine may be in the interpreter when that ends."""
    raised = None
    _warn_of_running()
    runs = [*_untold, *_running]
    while not _have_ended():
        for run in list(_running):
            # Otherwise a signal has begun to drain it.
            if run.job.state not in ("draining", "stopping"):
                run.job.cancel()
            elif run.job.state == "draining":
                run.stopping()
        for run in list(_running):
            try:
                run.wait()
            except (KeyboardInterrupt, SystemExit):
                pass  # further signals, which the engine acts on
            except BaseException as error:  # of a handler
                raised = error
    _warn_of_failed(runs)
    if len(sys._current_frames()) > 1:
        _keep_stdin()
    if raised is not None:
        raise raised


def _warn_of_running() -> None:
    """Warns of jobs that the program did not wait for, unless it ends by an exception or a signal."""
    left = sorted(run.name for run in list(_running) if run.job.state not in ("draining", "stopping", "ended"))
    if left and not hasattr(sys, "last_value"):
        names = ", ".join(f"`{name}`" for name in left[:3]) + (", …" if len(left) > 3 else "")
        warn(f"{names} was running when the program ended, and was cancelled: `submit(autostop=True)` or `wait` waits")


def _warn_of_failed(runs: list[Run]) -> None:
    """Warns of jobs that have failed without the program being told, unless it ends by an exception or a signal."""
    failed = [run for run in runs if run.job.error is not None and not run.is_told and run not in _not_ours]
    if failed and not hasattr(sys, "last_value"):
        more = f", as {len(failed) - 1} more did" if len(failed) > 1 else ""
        hint = "Nobody waited for it: `submit(autostop=True)`, `wait` or `close` raises this"
        warn(f"{failed[0].job.error}{more}. {hint}")


def _keep_stdin() -> None:
    """Lets nobody close stdin: a thread that was given up may wait for a line of it, and CPython aborts then."""
    with suppress(ImportError):  # some builds are without
        ctypes = importlib.import_module("ctypes")
        for stream in (sys.stdin, getattr(sys.stdin, "buffer", None)):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))


def _have_ended() -> bool:
    """Whether no job is left, and none can come; waits for those that are being started by other threads."""
    try:
        with _lock:
            _changed.wait_for(lambda: not _starting)
            if _running:
                return False
            if not _not_ours:
                _sage.end_attaching()
            return True
    except (KeyboardInterrupt, SystemExit):
        return False


def _forget() -> None:
    global _lock, _changed
    _lock = threading.RLock()
    _changed = threading.Condition(_lock)
    _starting.clear()
    _not_ours.update(_running)
    _running.clear()
    _untold.clear()
    leave_signals()


os.register_at_fork(after_in_child=_forget)
