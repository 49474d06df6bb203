"""One of the names SAGE programs import."""

from sage._environment import LocalEnvironment

__all__ = ["LocalEnvironment"]
