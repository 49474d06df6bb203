"""Schedulers, as SAGE programs import them."""

from sage._scheduler import BaseScheduler, PlacementDecision

__all__ = ["BaseScheduler", "PlacementDecision"]
