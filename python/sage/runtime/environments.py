"""Names that SAGE programs import."""

from sage._environment import LocalEnvironment
from sage._flownet import FlowNetEnvironment

__all__ = ["FlowNetEnvironment", "LocalEnvironment"]
