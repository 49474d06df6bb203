"""The environment, services and jobs, as SAGE programs import them."""

from sage._environment import LocalEnvironment
from sage._flownet import FlowNetEnvironment
from sage._jobmanager import JobManager
from sage._packet import Packet, StopSignal
from sage._scheduler import BaseScheduler, FIFOScheduler, LoadAwareScheduler, PlacementDecision
from sage._services import BaseService

__all__ = [
    "BaseScheduler",
    "BaseService",
    "FIFOScheduler",
    "FlowNetEnvironment",
    "JobManager",
    "LoadAwareScheduler",
    "LocalEnvironment",
    "Packet",
    "PlacementDecision",
    "StopSignal",
]
