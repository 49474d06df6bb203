"""The logger SAGE programs use, on the standard library's logging."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ._keywords import spelt
from ._session import LogFile

#: An output and the level from which on messages go there.
_Outputs = Iterable[tuple[str | os.PathLike[str], str | int]]

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_LEVELS = ("DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL")


@dataclass
class _Output:
    """An output of a logger."""

    target: str
    path: str
    handler: logging.Handler

    def config(self) -> dict[str, Any]:
        """As ``get_output_configs`` tells of it."""
        level, is_console = self.handler.level, self.target == "console"
        name = logging.getLevelName(level)
        is_active = not is_console or CustomLogger.is_global_console_debug_enabled()
        told = {"target": self.target, "resolved_path": self.path, "level": name, "level_str": name}
        return {**told, "level_num": level, "handler_active": is_active}


@spelt
class CustomLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """A logger by name, below the logger ``sage``: ``CustomLogger("app")``, or with outputs first.

    ``outputs`` are pairs of an output and the level from which on messages go there: ``"console"``, or the path of a
    file, in ``log_base_folder`` if that is given. A file and its folder are made with the first message. Without any
    outputs, messages go where ``logging`` was told to send those of ``sage``.
    """

    _is_console_debug: ClassVar[bool] = True

    #: The name that it was given.
    name = ""

    def __init__(
        self,
        name_or_outputs: str | _Outputs | None = None,
        outputs: str | _Outputs | None = None,
        name: str | None = None,
        log_base_folder: str | os.PathLike[str] | None = None,
        **others: Any,
    ) -> None:
        # The name and the outputs by themselves come in either order.
        given = [each for each in (name_or_outputs, outputs) if each is not None]
        names = [each for each in (name, *given) if isinstance(each, str)]
        pairs = next((each for each in reversed(given) if not isinstance(each, str)), ())
        self.name = names[0] if names else "Logger"
        super().__init__(logging.getLogger(f"sage.{self.name}"), {})
        self.log_base_folder = None if log_base_folder is None else os.fspath(log_base_folder)
        made = [self._output(target, level) for target, level in pairs]
        self._outputs = made
        if made:
            for before in list(self.logger.handlers):
                self.logger.removeHandler(before)
                before.close()
            for output in made:
                self.logger.addHandler(output.handler)
            self._adjust()

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Passes a message on as it is."""
        return msg, kwargs

    def add_output(self, output_target: str | os.PathLike[str], level: str | int) -> None:
        """Adds an output."""
        output = self._output(output_target, level)
        self._outputs.append(output)
        self.logger.addHandler(output.handler)
        self._adjust()

    def remove_output(self, target_index_or_name: int | str | os.PathLike[str]) -> None:
        """Removes an output, given by its number from 0 on or as it was added."""
        output = self._found(target_index_or_name)
        self._outputs.remove(output)
        self.logger.removeHandler(output.handler)
        output.handler.close()
        self._adjust()

    def update_output_level(
        self, target_index_or_name: int | str | os.PathLike[str], new_level: str | int
    ) -> None:
        """Sets the level from which on messages go to an output, given as for ``remove_output``."""
        self._found(target_index_or_name).handler.setLevel(_level(new_level))
        self._adjust()

    def get_output_configs(self) -> list[dict[str, Any]]:
        """The outputs: of each its ``target``, ``resolved_path``, ``level`` and ``level_str`` (the same), ``level_num``
        and ``handler_active``."""
        return [output.config() for output in self._outputs]

    def print_current_configs(self) -> None:
        """Prints the outputs, a line each."""
        for number, output in enumerate(self.get_output_configs()):
            print(f"{self.name} {number}: {output['level']} to {output['resolved_path']}")

    @classmethod
    def get_available_levels(cls) -> list[str]:
        """The names of the levels."""
        return list(_LEVELS)

    @classmethod
    def get_logger(
        cls,
        name: str | None = None,
        *,
        level: str | int = "INFO",
        outputs: _Outputs | None = None,
        log_base_folder: str | os.PathLike[str] | None = None,
    ) -> logging.Logger:
        """The logger of ``logging`` that is behind one of these, by default with the console as its output."""
        made = cls(name, outputs or [("console", level)], log_base_folder=log_base_folder)
        logger: logging.Logger = made.logger
        return logger

    @classmethod
    def disable_global_console_debug(cls) -> None:
        """Shows only warnings and errors of the package's log and of these loggers on the console."""
        CustomLogger._is_console_debug = False
        logging.getLogger("sage").setLevel(logging.WARNING)

    @classmethod
    def enable_global_console_debug(cls) -> None:
        """Shows all of it again."""
        CustomLogger._is_console_debug = True
        logging.getLogger("sage").setLevel(logging.DEBUG)

    @classmethod
    def is_global_console_debug_enabled(cls) -> bool:
        """Whether that is so, as it is at the beginning."""
        return CustomLogger._is_console_debug

    def _output(self, target: str | os.PathLike[str], level: str | int) -> _Output:
        target = os.fspath(target)
        path, handler = target, _stderr()
        if target != "console":
            path = os.path.join(self.log_base_folder or "", target)
            handler = _File(path, encoding="utf-8", delay=True)
        handler.setLevel(_level(level))
        handler.setFormatter(logging.Formatter(_FORMAT))
        return _Output(target, path, handler)

    def _found(self, which: int | str | os.PathLike[str]) -> _Output:
        for number, output in enumerate(self._outputs):
            if which == number if isinstance(which, int) else os.fspath(which) == output.target:
                return output
        there = ", ".join(output.target for output in self._outputs) or "none"
        raise ValueError(f"`{self.name}` has no output {which!r}; its outputs: {there}")

    def _adjust(self) -> None:
        """Has the logger hand on what its outputs want, or what ``logging`` was told to if it has none."""
        levels = [handler.level for handler in self.logger.handlers]
        self.logger.propagate = not levels
        self.logger.setLevel(min(levels, default=logging.NOTSET))


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


class _File(LogFile):
    def _open(self) -> io.TextIOWrapper:
        os.makedirs(os.path.dirname(self.baseFilename), exist_ok=True)
        return super()._open()


def _stderr() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.addFilter(_is_shown)
    return handler


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or CustomLogger._is_console_debug


def _level(level: str | int) -> str | int:
    return level.upper() if isinstance(level, str) else level


@spelt
def get_logger(name: str | None = None) -> CustomLogger:
    """A logger that shows messages on the console, from the level ``INFO`` on."""
    return CustomLogger(name, [("console", "INFO")])
