"""One of the names SAGE programs import."""

from sage._remote_environment import RemoteEnvironment

__all__ = ["RemoteEnvironment"]
