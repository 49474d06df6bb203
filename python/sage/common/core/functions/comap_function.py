"""One of the names SAGE programs import."""

from sage._functions import BaseCoMapFunction

__all__ = ["BaseCoMapFunction"]
