"""The logger SAGE programs use, on the standard library's logging."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class CustomLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """A logger by name, below the logger ``sage``.

    ``outputs`` are pairs of an output and the level from which on messages go there: ``"console"``, or the path of a
    file, which is opened with the first message. Without any, messages go where ``logging`` was told to send those of
    ``sage``.
    """

    def __init__(
        self,
        outputs: str | Iterable[tuple[str | os.PathLike[str], str | int]] = (),
        name: str = "program",
        **others: Any,
    ) -> None:
        if isinstance(outputs, str):
            name, outputs = outputs, ()
        logger = logging.getLogger(f"sage.{name}")
        super().__init__(logger, {})
        handlers = [_handler(os.fspath(output), level) for output, level in outputs]
        if handlers:
            for before in list(logger.handlers):
                logger.removeHandler(before)
                before.close()
            for handler in handlers:
                logger.addHandler(handler)
            logger.propagate = False
            logger.setLevel(min(handler.level for handler in handlers))

    @classmethod
    def disable_global_console_debug(cls) -> None:
        """Shows only warnings and errors of the package's log."""
        logging.getLogger("sage").setLevel(logging.WARNING)

    @classmethod
    def enable_global_console_debug(cls) -> None:
        """Shows all of the package's log again."""
        logging.getLogger("sage").setLevel(logging.DEBUG)


class _Console(logging.Handler):
    """Writes messages to stderr, unless the program has set up ``logging`` itself: that shows them then."""

    def emit(self, record: logging.LogRecord) -> None:
        if not (logging.getLogger().handlers or logging.getLogger("sage").handlers):
            print(self.format(record), file=sys.stderr)


def show_on_console(logger: logging.Logger) -> None:
    """Shows the messages of a logger where nobody else does, which is on stderr."""
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        console = _Console()
        console.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(console)


def _handler(output: str, level: str | int) -> logging.Handler:
    handler: logging.Handler = logging.StreamHandler()
    if output != "console":
        handler = logging.FileHandler(output, encoding="utf-8", delay=True)
    handler.setLevel(level.upper() if isinstance(level, str) else level)
    handler.setFormatter(logging.Formatter(_FORMAT))
    return handler
