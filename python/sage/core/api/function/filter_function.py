"""One of the names SAGE programs import."""

from sage._functions import FilterFunction

__all__ = ["FilterFunction"]
