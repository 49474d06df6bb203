"""One of the names SAGE programs import."""

from sage._functions import BaseJoinFunction

__all__ = ["BaseJoinFunction"]
