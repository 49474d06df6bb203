"""Pickles the result of a job for another process, such as out of a worker of a pool.

A pool that cannot read a result waits for it for ever. So exceptions of a program's are tried here first, and where
they cannot be written, or not be read there, a ``RemoteCause`` stands for them.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from ._job import JobFailed, JobId, Report

#: How many causes of a cause are taken along.
_MOST_CAUSES = 16


class RemoteCause(Exception):
    """Stands for an exception of another process that could not be pickled."""

    def __init__(self, kind: str, text: str, traceback_text: str) -> None:
        super().__init__(f"{kind}: {text}" if text else kind)
        #: The name of the exception's class.
        self.kind = kind
        #: Its message.
        self.text = text
        #: The exception, its causes and their tracebacks, as Python prints them.
        self.traceback_text = traceback_text

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, self.text, self.traceback_text)


class _Packed(NamedTuple):
    """An exception, pickled if it can be, and what stands for it."""

    pickled: bytes | None
    instead: tuple[str, str, str]
    #: What the package has noted of it: see ``_replica.py``.
    noted: dict[str, Any] = {}  # noqa: RUF012


def packed_exception(exception: BaseException) -> _Packed:
    """An exception for another process."""
    import pickle  # here and below, as few programs need it

    try:
        text = str(exception)
    except Exception:
        text = "its text cannot be told"
    try:
        told = "".join(traceback.format_exception(type(exception), exception, exception.__traceback__))
    except Exception:
        told = text
    if isinstance(exception, RemoteCause):
        told = exception.traceback_text
    pickled: bytes | None = None
    try:
        pickled = pickle.dumps(exception)
        # Many can be written and not read, as their constructors take something else than what they keep.
        if type(pickle.loads(pickled)) is not type(exception):
            pickled = None
    except Exception:
        pickled = None
    noted = {name: value for name, value in vars(exception).items() if name.startswith("_sage_")}
    return _Packed(pickled, (type(exception).__qualname__, text, told), noted)


def unpacked_exception(packed: _Packed) -> BaseException:
    """The exception there, or what stands for it."""
    if packed.pickled is not None:
        import pickle

        try:
            exception = pickle.loads(packed.pickled)
            if isinstance(exception, BaseException):
                return exception
        except Exception:
            pass  # its class is not there in this process
    cause = RemoteCause(*packed.instead)
    vars(cause).update(packed.noted)
    return cause


def reduced(failed: JobFailed) -> tuple[Any, ...]:
    """How ``JobFailed`` is pickled: with its causes."""
    causes: list[_Packed] = []
    cause = failed.__cause__
    while cause is not None and len(causes) < _MOST_CAUSES:
        causes.append(packed_exception(cause))
        cause = cause.__cause__
    return _restored, (type(failed), str(failed), failed.report, causes, getattr(failed, "__notes__", None))


def _restored(
    cls: type[JobFailed], message: str, report: Report, causes: list[_Packed], notes: list[str] | None
) -> JobFailed:
    failed = cls(message, report)
    last: BaseException = failed
    for packed in causes:
        cause = unpacked_exception(packed)
        last.__cause__ = cause
        last = cause
    if notes is not None:
        failed.__notes__ = notes
    return failed


class Elsewhere:
    """An id's knowledge of its job in another process: how far the job was when the id was pickled."""

    def __init__(self, text: str, state: str, failed: JobFailed | None, report: Report | None) -> None:
        self.text = text
        self.state = state
        self.failed = failed
        self.report = report

    @property
    def job(self) -> NoReturn:
        """Raises: there is no job in this process."""
        raise RuntimeError(
            f"job `{self.text}` belongs to another process, where it was {self.state}; wait for it and steer it there"
        )

    def told(self) -> Report:
        """How the job ended. Raises where it had not when the id was pickled."""
        return self.job if self.report is None else self.report


def reduced_id(job: JobId) -> tuple[Any, ...]:
    """How the id of a job is pickled: with the job's result, if the job is over."""
    from ._job import JobFailed

    run = job._run
    if isinstance(run, Elsewhere):
        return _restored_id, (str(job), run.state, run.failed, run.report)
    state = run.state
    if state != "ended":
        return _restored_id, (str(job), state, None, None)
    report = job.report
    failed = None
    if run.job.error is not None:
        failed = JobFailed(run.job.error, report)
        failed.__cause__ = run.job.exception
    return _restored_id, (str(job), state, failed, report)


def _restored_id(text: str, state: str, failed: JobFailed | None, report: Report | None) -> JobId:
    from ._job import JobId

    made = str.__new__(JobId, text)
    made._run = Elsewhere(text, state, failed, report)
    return made


def refuse(what: str, instead: str) -> NoReturn:
    """Raises for what belongs to its process."""
    raise TypeError(f"{what} belongs to its process and cannot be pickled; {instead}")
