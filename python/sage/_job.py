"""A job as a program sees it: its id, how it is steered, and what it came to."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ._pickling import Elsewhere, reduced, reduced_id

if TYPE_CHECKING:
    from . import _sage
    from ._running import Run


#: What one of several functions has taken and given; ``None`` is not known.
Counted = tuple[str, int | None, int | None]


class Report:
    """The report of a job: its outcome, its operators and services, and what is left if it is not clean."""

    def __init__(self, job: _sage.Job) -> None:
        self._job = job

    def __getstate__(self) -> dict[str, Any]:
        return {"_text": self._text, "_json": self._json}

    @cached_property
    def _text(self) -> str:
        return self._job.report_text or "no report: the job was not started"

    @cached_property
    def _json(self) -> str:
        return self._job.report_json or "{}"

    @cached_property
    def data(self) -> dict[str, Any]:
        """All of it, as the engine tells it: lists, texts, numbers, and times in ``secs`` and ``nanos``."""
        read: dict[str, Any] = json.loads(self._json)
        return read

    @property
    def outcome(self) -> str:
        """In one word."""
        return str(self.data.get("outcome", ""))

    @property
    def functions(self) -> dict[str, list[Counted]]:
        """What each function has taken and given, where several ran together as one operator, by the name of
        that: tuples of the function's name and two numbers.

        A number is ``None`` where it is not known: as nothing is counted for each record between such
        functions, behind one that leaves records out or adds some, such as that of a ``filter``, unless only
        functions that give one record for each are behind it. The last one's is known then, except for a
        sink's. There are none for a job that was broken off, or has a ``take`` or a ``zip``.
        """
        operators = [operator for operator in self.data.get("operators", []) if operator["functions"]]
        return {operator["name"]: [tuple(f.values()) for f in operator["functions"]] for operator in operators}

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """What is told of each service, by its name."""
        return {service["name"]: service for service in self.data.get("services", [])}

    def __str__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        from ._html import report

        return report(self.data)


class JobId(str):
    """The id of a job: a ``str`` by which the job is waited for and steered, from any thread.

    A copy means the same job. In another process, where it was pickled to, it tells what the job had come to by then.
    """

    _run: Run | Elsewhere

    def __new__(cls, run: Run) -> JobId:
        made = super().__new__(cls, run.job.id)
        made._run = run
        return made

    @property
    def report(self) -> Report:
        """The job's report, however it ended; waits for the job if it is not over."""
        run = self._run
        if isinstance(run, Elsewhere):
            return run.told()
        run.wait()
        return Report(run.job)

    def __copy__(self) -> JobId:
        return self

    def __deepcopy__(self, _copied: Any) -> JobId:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced_id(self)

    @property
    def state(self) -> str:
        """Where the job is in its life: ``created``, ``starting``, ``running``, ``paused``, ``draining``, ``stopping``
        or ``ended``."""
        return self._run.state

    def wait(self, timeout: float | None = None) -> Report | None:
        """Waits until the job is over and cleaned, and returns its report; ``None`` if that is not so after ``timeout``
        seconds.

        Raises ``JobFailed`` from the user's own exception when the job did not succeed or left something behind,
        ``KeyboardInterrupt`` or ``SystemExit`` when a signal ended it. The latter have the ``report``, too.

        On the main thread, the program's handlers of signals run meanwhile, as for ``signal.alarm``. What one raises
        cancels the job and is raised when that is over, with the ``report`` as an attribute.
        """
        return self._wait(timeout)

    def _wait(self, timeout: float | None = None, before: BaseException | None = None) -> Report | None:
        """``before`` is what a handler of a signal raised since the job was started."""
        run = self._run
        if isinstance(run, Elsewhere):
            if run.failed is not None:
                raise run.failed
            return run.told()
        if not run.wait(timeout, before):
            return None
        run.is_told = True
        job = run.job
        if job.signal is not None:
            # Where nobody catches it, the text of the former is what comes last on standard error.
            said = [] if run.said is None else [run.said]
            ends = KeyboardInterrupt(*said) if job.signal == 2 else SystemExit(128 + job.signal)
            attach(ends, job)
            raise ends
        report = Report(job)
        if job.error is not None:
            raise JobFailed(job.error, report) from job.exception
        return report

    def drain(self) -> None:
        """Asks the job to end its sources and finish what is in flight. Returns at once."""
        self._run.job.drain()

    def cancel(self) -> None:
        """Asks the job to drop what is in flight and clean up; it then ends as failed. Returns at once."""
        self._run.job.cancel()

    def pause(self) -> None:
        """Asks the sources to stop reading until ``resume``; what is in flight is processed. Returns at once."""
        self._run.job.pause()

    def resume(self) -> None:
        """Asks paused sources to go on. Returns at once."""
        self._run.job.resume()

    async def _until_over(self) -> None:
        """As ``wait``, while the event loop runs on. A task that is cancelled meanwhile cancels the job and waits for
        its cleanup."""
        import asyncio  # takes longer than all the package

        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(over.set)
            except RuntimeError:
                pass  # the loop was closed, and nobody waits any more

        run = self._run
        run.job.on_end(tell)
        cancelled: asyncio.CancelledError | None = None
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError as error:
                cancelled = error
                self.cancel()
            except GeneratorExit:
                self.cancel()
                raise
        if cancelled is not None and not isinstance(run, Elsewhere):
            run.wait()
            run.is_told = True
            raise cancelled
        self.wait()


class JobFailed(RuntimeError):
    """A job did not succeed, left something behind, or could not commit the offsets of what it read.

    Its ``__cause__`` is the exception that was the first cause: that very object, also where it is a ``SystemExit`` or
    ``KeyboardInterrupt`` that a function raised. It can be pickled: what of its causes cannot is replaced by a
    ``RemoteCause``, which tells of it.
    """

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self)

    def __copy__(self) -> JobFailed:
        copied = type(self)(str(self), self.report).with_traceback(self.__traceback__)
        copied.__cause__ = self.__cause__
        return copied

    def __deepcopy__(self, _copied: Any) -> JobFailed:
        return self.__copy__()

    def __setattr__(self, name: str, value: Any) -> None:
        # A pool of processes puts a text in the place of the cause, which tells where a worker raised: it goes behind.
        last = self.__cause__
        if name == "__cause__" and last is not None and type(value).__name__ in _POOLS:
            while last.__cause__ is not None:
                last = last.__cause__
            last.__cause__ = value
            return
        super().__setattr__(name, value)


#: What the standard library's pools, of ``multiprocessing`` and ``concurrent.futures``, say where a worker raised by.
_POOLS = ("RemoteTraceback", "_RemoteTraceback")


def attach(error: BaseException, job: _sage.Job) -> None:
    """Has an exception that is not of a job tell of the job that it ended, or that failed before."""
    report = Report(job)
    try:
        error.report = report  # type: ignore[attr-defined]
    except AttributeError:
        pass  # a class with slots has no place for it
    if report.data.get("reason") == "failure" and job.error is not None and error.__context__ is None:
        error.__context__ = JobFailed(job.error, report)
        error.__context__.__cause__ = job.exception
