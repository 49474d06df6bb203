"""One of the names SAGE programs import."""

from sage._functions import FutureFunction

__all__ = ["FutureFunction"]
