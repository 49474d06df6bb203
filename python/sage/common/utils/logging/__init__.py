"""Loggers, as SAGE programs import them."""

from sage._logging import CustomLogger, get_logger

__all__ = ["CustomLogger", "get_logger"]
