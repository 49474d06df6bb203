"""The file of an environment's own messages, in the folder of a job's log files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any


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
    """Writes what is logged below ``logger`` to ``Environment.log`` in this folder, from the first message on. Returns
    what ends it."""
    handler = _Private(os.path.join(folder, "Environment.log"), delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)

    def end() -> None:
        logger.removeHandler(handler)
        handler.close()

    return end
