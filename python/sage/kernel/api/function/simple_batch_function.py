"""One of the names SAGE programs import."""

from sage._functions import SimpleBatchFunction

__all__ = ["SimpleBatchFunction"]
