"""One of the names SAGE programs import."""

from sage._logging import CustomLogger

__all__ = ["CustomLogger"]
