"""One of the names SAGE programs import."""

from sage._functions import FlatMapFunction

__all__ = ["FlatMapFunction"]
