"""The environments, as SAGE programs import them."""

from sage._environment import LocalEnvironment
from sage._flownet import FlownetEnvironment
from sage._remote_environment import RemoteEnvironment

__all__ = ["FlownetEnvironment", "LocalEnvironment", "RemoteEnvironment"]
