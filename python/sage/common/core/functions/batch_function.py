"""One of the names SAGE programs import."""

from sage._functions import BatchFunction

__all__ = ["BatchFunction"]
