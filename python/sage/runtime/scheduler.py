"""Schedulers, as SAGE programs import them."""

from sage._scheduler import BaseScheduler, FIFOScheduler, LoadAwareScheduler, PlacementDecision

__all__ = ["BaseScheduler", "FIFOScheduler", "LoadAwareScheduler", "PlacementDecision"]
