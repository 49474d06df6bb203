"""The logger SAGE programs use, on the standard library's logging."""

from __future__ import annotations

import logging
from typing import Any


class CustomLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """A logger by name. Handlers and levels are those of ``logging``, below the logger ``sage``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        name = kwargs.get("name") or next((arg for arg in args if isinstance(arg, str)), "program")
        super().__init__(logging.getLogger(f"sage.{name}"), {})

    @classmethod
    def disable_global_console_debug(cls) -> None:
        """Shows nothing below a warning of what the package logs."""
        logging.getLogger("sage").setLevel(logging.WARNING)

    @classmethod
    def enable_global_console_debug(cls) -> None:
        """Shows everything again that the package logs."""
        logging.getLogger("sage").setLevel(logging.DEBUG)
