"""One of the names SAGE programs import."""

from sage._functions import KeyByFunction

__all__ = ["KeyByFunction"]
