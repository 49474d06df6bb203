"""One of the names SAGE programs import."""

from sage._flownet import FlownetEnvironment

__all__ = ["FlownetEnvironment"]
