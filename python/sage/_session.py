"""The file of an environment's own messages, in the folder of a job's log files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

#: What stands for the job that a thread works for. Threads of the engine have it with the context of the submitter.
OF_JOB: ContextVar[object] = ContextVar("of_job", default=None)


class LogFile(logging.FileHandler):
    """A file that is opened with the first message. One that cannot be is an error of logging, not of the program that
    logs."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)


class _Private(LogFile):
    """A file that only its owner may read."""

    def _open(self) -> Any:
        opener = lambda path, flags: os.open(path, flags, 0o600)  # noqa: E731
        return open(self.baseFilename, self.mode, encoding="utf-8", opener=opener)


def written_to(folder: str, logger: logging.Logger) -> Callable[[], None]:
    """Writes what is logged below ``logger`` to ``Environment.log`` in this folder, from the first message on: by the
    job of the calling thread, and by threads that are no job's. Another one may have the same name, and so the same
    logger. Returns what ends it."""
    handler, job = _Private(os.path.join(folder, "Environment.log"), delay=True), OF_JOB.get()
    handler.addFilter(lambda _record: OF_JOB.get() in (None, job))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)

    def end() -> None:
        logger.removeHandler(handler)
        handler.close()

    return end
