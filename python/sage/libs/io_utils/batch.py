"""The batches of files, as SAGE programs import them."""

from sage._io import JSONLBatch

__all__ = ["JSONLBatch"]
