"""One of the names SAGE programs import."""

from sage._functions import SourceFunction

__all__ = ["SourceFunction"]
