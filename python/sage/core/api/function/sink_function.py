"""One of the names SAGE programs import."""

from sage._functions import SinkFunction

__all__ = ["SinkFunction"]
