"""One of the names SAGE programs import."""

from sage._functions import Collector

__all__ = ["Collector"]
