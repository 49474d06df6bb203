"""One of the names SAGE programs import."""

from sage._scheduler import PlacementDecision

__all__ = ["PlacementDecision"]
