"""The environment and services, as SAGE programs import them."""

from sage._environment import LocalEnvironment
from sage._functions import Packet, StopSignal
from sage._services import BaseService

__all__ = ["BaseService", "LocalEnvironment", "Packet", "StopSignal"]
