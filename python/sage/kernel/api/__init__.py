"""The environments, as SAGE programs import them."""

from sage._environment import LocalEnvironment
from sage._flownet import FlownetEnvironment

__all__ = ["FlownetEnvironment", "LocalEnvironment"]
