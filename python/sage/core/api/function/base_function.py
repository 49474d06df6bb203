"""One of the names SAGE programs import."""

from sage._functions import BaseFunction

__all__ = ["BaseFunction"]
