"""The environment, as SAGE programs import it."""

from sage._environment import LocalEnvironment

__all__ = ["LocalEnvironment"]
