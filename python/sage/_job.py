"""What a job came to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import _sage


class Report:
    """The report of a job: its outcome, its operators and services, and what is left if it is not clean."""

    def __init__(self, job: _sage.Job) -> None:
        self._text = job.report_text or "no report: the job was not started"
        self.data: dict[str, Any] = json.loads(job.report_json or "{}")

    @property
    def outcome(self) -> str:
        """In one word."""
        return str(self.data.get("outcome", ""))

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """What is told of each service, by its name."""
        return {service["name"]: service for service in self.data.get("services", [])}

    def __str__(self) -> str:
        return self._text


class JobId(str):
    """The id of a job, as a ``str`` that knows the job's report."""

    _job: _sage.Job

    def __new__(cls, job: _sage.Job) -> JobId:
        made = super().__new__(cls, job.id)
        made._job = job
        return made

    @property
    def report(self) -> Report:
        """The job's report; waits for the job if it is not over."""
        self._job.wait()
        return Report(self._job)


class JobFailed(RuntimeError):
    """A job did not succeed, left something behind, or could not commit the offsets of what it read.

    Its ``__cause__`` is the exception that was the first cause.
    """

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report
