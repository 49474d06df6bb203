"""One of the names SAGE programs import."""

from sage._scheduler import BaseScheduler

__all__ = ["BaseScheduler"]
