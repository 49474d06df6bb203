"""A job as a program sees it: its id, how to steer it, and its report."""

from __future__ import annotations

from functools import cached_property
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

from ._arguments import seconds
from ._keywords import spelt
from ._pickling import Elsewhere, reduced, reduced_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import _sage
    from ._metrics import JobMetrics
    from ._running import Run


#: What one of several functions has taken and given; ``None`` is not known.
Counted = tuple[str, int | None, int | None]


@spelt
class Report:
    """The report of a job: its outcome, its operators and services, and what is left if it is not clean.

    >>> env = LocalEnvironment("numbers")
    >>> numbers = env.from_batch([1, 2]).collect()
    >>> report = env.submit(autostop=True).report
    >>> report.outcome, report.data["cleanliness"]
    ('succeeded', 'clean')
    """

    def __init__(self, job: _sage.Job) -> None:
        self._job = job

    @classmethod
    def told(cls, text: str, json: str) -> Report:
        """One that was told in words and as JSON, of a job that was never here."""
        made = cls.__new__(cls)
        made.__dict__.update(_text=text, _json=json)
        return made

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
        """The whole report, as the engine gives it: lists, texts, numbers, and times in ``secs`` and ``nanos``.

        >>> env = LocalEnvironment("numbers")
        >>> numbers = env.from_batch(["1", "two"]).map(int, on_error="skip").collect()
        >>> report = env.submit(autostop=True).report
        >>> sum(operator["failed"] for operator in report.data["operators"])
        1
        """
        import json  # few programs read it

        read: dict[str, Any] = json.loads(self._json)
        return read

    def to_dict(self) -> dict[str, Any]:
        """The whole report, with times in seconds: lists, texts, numbers, and ``started`` in seconds since 1970.

        >>> env = LocalEnvironment("told")
        >>> kept = env.from_batch([1, 2]).collect()
        >>> told = env.submit(autostop=True).report.to_dict()
        >>> told["outcome"], told["operators"][0]["records_in"], told["elapsed"] < 60.0
        ('succeeded', 2, True)
        """
        told: dict[str, Any] = _plain(self.data)
        return told

    def to_json(self, indent: int | None = None) -> str:
        """``to_dict`` as JSON, on one line or with ``indent`` spaces for each level.

        >>> env = LocalEnvironment("told")
        >>> kept = env.from_batch([1, 2]).collect()
        >>> env.submit(autostop=True).report.to_json()[:30]  # doctest: +ELLIPSIS
        '{"job": "...'
        """
        import json  # few programs write it

        return json.dumps(self.to_dict(), indent=indent)

    def to_frame(self, rows: str = "operators", *, library: str | None = None) -> Any:
        """A data frame with a row for each of the ``"operators"``, ``"services"`` or ``"workers"``; times in seconds.

        ``library`` is ``"pandas"`` or ``"polars"``. The default is the one that is installed, of both the one that the
        program uses already, or pandas. Raises ``ImportError`` if there is none.

        >>> env = LocalEnvironment("told")
        >>> kept = env.from_batch([1, 2]).collect()
        >>> report = env.submit(autostop=True).report
        >>> report.to_frame()[["name", "records_in"]]  # doctest: +SKIP
                    name  records_in
        0          batch           2
        1        collect           2
        """
        from ._frames import frame  # few programs make one

        return frame(self.to_dict(), rows, library)

    @property
    def outcome(self) -> str:
        """The outcome, in one word.

        >>> env = LocalEnvironment("numbers")
        >>> numbers = env.from_batch([1, 2]).collect()
        >>> env.submit(autostop=True).report.outcome
        'succeeded'
        """
        return str(self.data.get("outcome", ""))

    @property
    def functions(self) -> dict[str, list[Counted]]:
        """For each operator that ran several functions together, by its name: tuples of a function's name and how many
        records it took and returned.

        A number is ``None`` if it is unknown, because nothing is counted between such functions. It is unknown behind a
        function that drops or adds records, such as that of a ``filter``, unless only functions that return one record
        for each follow. Then the last number is known, except for a sink's. A job that was broken off, or has a
        ``take`` or a ``zip``, has no numbers.

        >>> env = LocalEnvironment("numbers")
        >>> numbers = env.from_batch(["1", "2"]).map(int).map(abs).collect()
        >>> env.submit(autostop=True).report.functions
        {'int → abs → collect': [('int', 2, 2), ('abs', 2, 2), ('collect', 2, 2)]}
        """
        operators = [operator for operator in self.data.get("operators", []) if operator["functions"]]
        return {operator["name"]: [tuple(f.values()) for f in operator["functions"]] for operator in operators}

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """The report of each service, by its name.

        >>> env = LocalEnvironment("prices")
        >>> prices = env.service("prices", lambda: {"apples": 30})
        >>> found = env.from_batch(["apples"]).map(prices.get).collect()
        >>> report = env.submit(autostop=True).report
        >>> report.services["prices"]["state"], report.services["prices"]["calls"]
        ('cleaned', 1)
        """
        return {service["name"]: service for service in self.data.get("services", [])}

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        data = self.data
        if not data:
            return "<Report: the job was not started>"
        words = [str(data[what]).replace("_", " ") for what in ("outcome", "cleanliness")]
        return f"<Report of {data['environment']}: {', '.join(words)}>"

    def _repr_html_(self) -> str:
        from ._html import report

        return report(self.data)


def _plain(value: Any) -> Any:
    """A part of a report with its times in seconds."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    for seconds, nanos in (("secs", "nanos"), ("secs_since_epoch", "nanos_since_epoch")):
        if value.keys() == {seconds, nanos}:
            return value[seconds] + value[nanos] / 1e9
    return {name: _plain(each) for name, each in value.items()}


@spelt
class JobId(str):
    """The id of a job: a ``str`` with methods to wait for the job and to steer it, from any thread.

    A copy means the same job. Pickled to another process, it tells how far the job was at that moment.

    >>> env = LocalEnvironment("numbers")
    >>> numbers = env.from_batch([1, 2]).collect()
    >>> job = env.submit()  # returns at once
    >>> job.wait().outcome, job.state
    ('succeeded', 'ended')
    """

    _run: Run | Elsewhere

    def __new__(cls, run: Run) -> JobId:
        made = super().__new__(cls, run.job.id)
        made._run = run
        return made

    @property
    def report(self) -> Report:
        """The job's report, however the job ended. Waits for the job if it is not over.

        >>> env = LocalEnvironment("numbers")
        >>> numbers = env.from_batch([1, 2]).collect()
        >>> env.submit().report.outcome
        'succeeded'
        """
        run = self._run
        if isinstance(run, Elsewhere):
            return run.told()
        with Heeding(run):
            run.wait()
        return Report(run.job)

    def __dir__(self) -> list[str]:
        # Its methods are few; those of a text would hide them.
        return sorted(name for name in super().__dir__() if name.startswith("__") or not hasattr(str, name))

    def _repr_html_(self) -> str:
        from ._html import job

        return job(self)

    def __copy__(self) -> JobId:
        return self

    def __deepcopy__(self, _copied: Any) -> JobId:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced_id(self)

    def metrics(self) -> JobMetrics:
        """What the job has done so far and is doing: counts, rates, queues and services. For any thread, while the job
        runs and when it is over.

        >>> env = LocalEnvironment("counted")
        >>> kept = env.from_batch(range(1000)).map(abs).collect()
        >>> metrics = env.submit(autostop=True).metrics()
        >>> metrics.done, metrics.total, metrics.operators["batch"].records_in
        (1000, 1000, 1000)
        """
        from ._metrics import of_report, of_run  # few programs ask for them

        run = self._run
        return of_report(self, run.told().data) if isinstance(run, Elsewhere) else of_run(run)

    @property
    def state(self) -> str:
        """The job's state: ``created``, ``starting``, ``running``, ``paused``, ``draining``, ``stopping`` or
        ``ended``.

        >>> env = LocalEnvironment("numbers")
        >>> numbers = env.from_batch([1, 2]).collect()
        >>> env.submit(autostop=True).state
        'ended'
        """
        return self._run.state

    def wait(self, timeout: float | None = None) -> Report | None:
        """Waits until the job is over and cleaned, and returns its report; returns ``None`` if it is not after
        ``timeout`` seconds.

        Raises ``JobFailed`` from the user's own exception if the job did not succeed or left something behind, and
        ``KeyboardInterrupt`` or ``SystemExit`` if a signal ended it. These have the ``report`` too.

        On the main thread, the program's signal handlers run meanwhile, as for ``signal.alarm``. If one raises, the
        exception cancels the job, and is raised when the job is over, with the ``report`` as an attribute.

        >>> from itertools import count
        >>> env = LocalEnvironment("endless")
        >>> stream = env.from_batch(count()).sink(lambda n: None)
        >>> job = env.submit()
        >>> print(job.wait(timeout=0.01))
        None
        >>> job.drain()
        >>> job.wait().outcome
        'succeeded'
        """
        run = self._run
        if timeout is not None:
            timeout = seconds("`timeout`", timeout, hint="; leave it out for none")
        if isinstance(run, Elsewhere):
            if run.failed is not None:
                raise run.failed
            return run.told()
        report = None
        with Heeding(run):
            report = self._wait(timeout)
        return report

    def _wait(self, timeout: float | None = None, before: BaseException | None = None) -> Report | None:
        """``before`` is what a handler of a signal raised since the job was started."""
        run = self._run
        assert not isinstance(run, Elsewhere), "those have no job to wait for"
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
        """Asks the job to end its sources and finish the records in flight. Returns at once.

        >>> from itertools import count
        >>> env = LocalEnvironment("endless")
        >>> stream = env.from_batch(count()).sink(lambda n: None)
        >>> job = env.submit()
        >>> job.drain()
        >>> job.wait().outcome
        'succeeded'
        """
        self._run.job.drain()

    def cancel(self) -> None:
        """Asks the job to drop the records in flight and clean up; the job then ends as failed. Returns at once.

        >>> from itertools import count
        >>> env = LocalEnvironment("endless")
        >>> stream = env.from_batch(count()).sink(lambda n: None)
        >>> job = env.submit()
        >>> job.cancel()
        >>> job.report.outcome
        'cancelled'
        """
        self._run.job.cancel()

    def pause(self) -> None:
        """Asks the sources to stop reading until ``resume``. Records in flight are processed. Returns at once.

        >>> from itertools import count
        >>> env = LocalEnvironment("endless")
        >>> stream = env.from_batch(count()).sink(lambda n: None)
        >>> job = env.submit()
        >>> job.pause()
        >>> job.resume()
        >>> job.drain()
        >>> job.wait().outcome
        'succeeded'
        """
        self._run.job.pause()

    def resume(self) -> None:
        """Asks paused sources to go on. Returns at once.

        >>> from itertools import count
        >>> env = LocalEnvironment("endless")
        >>> stream = env.from_batch(count()).sink(lambda n: None)
        >>> job = env.submit()
        >>> job.pause()
        >>> job.resume()
        >>> env.stop()
        """
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


class Heeding:
    """The one way into a call that waits for a job: the call is the block of this ``with``.

    While the engine waits, it sees to the handlers of signals itself. What one raises elsewhere in the block, before
    that wait has begun, is heard here: it cancels the job as well, and is raised when the job is over. What further
    handlers raise until then is left out. Only the main thread has such handlers; errors of the block's own are to be
    raised before it, as they cannot be told from those while the job goes on.
    """

    def __init__(self, run: Run | None, begun: Callable[[], object] | None = None) -> None:
        """``run`` is ``None`` if there is no job. ``begun`` is called before the job is waited for here, as the block
        may not have come to it."""
        self._run = run
        self._begun = begun

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        run = self._run
        if error is None or run is None or not _may_raise(run):
            return False
        while True:
            try:
                if self._begun is not None:
                    self._begun()
                JobId(run)._wait(before=error)
                return True
            except BaseException:
                if not _may_raise(run):
                    raise


def _may_raise(run: Run) -> bool:
    """Whether a handler of a signal may have raised what this thread has raised about a job."""
    return run.goes_on and current_thread() is main_thread()


class JobFailed(RuntimeError):
    """A job did not succeed, left something behind, or could not commit the offsets of the records it read.

    Its ``__cause__`` is the exception that was the first cause: the same object, even if it is a ``SystemExit`` or
    ``KeyboardInterrupt`` that a function raised. It can be pickled: a cause that cannot be pickled is replaced by a
    ``RemoteCause``, which describes it.

    >>> env = LocalEnvironment("fails")
    >>> stream = env.from_batch([0]).map(lambda n: 1 / n).print()
    >>> try:
    ...     job = env.submit(autostop=True)
    ... except JobFailed as error:
    ...     print(type(error.__cause__).__name__, error.report.outcome)
    ZeroDivisionError failed
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
    """Attaches a job's report to an exception that ended the job, or that came after the job had failed."""
    report = Report(job)
    try:
        error.report = report  # type: ignore[attr-defined]
    except AttributeError:
        pass  # a class with slots has no place for it
    if report.data.get("reason") == "failure" and job.error is not None and error.__context__ is None:
        error.__context__ = JobFailed(job.error, report)
        error.__context__.__cause__ = job.exception
