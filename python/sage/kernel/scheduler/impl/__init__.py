"""Two of the names SAGE programs import."""

from sage._scheduler import FIFOScheduler, LoadAwareScheduler

__all__ = ["FIFOScheduler", "LoadAwareScheduler"]
