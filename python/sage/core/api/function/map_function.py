"""One of the names SAGE programs import."""

from sage._functions import MapFunction

__all__ = ["MapFunction"]
