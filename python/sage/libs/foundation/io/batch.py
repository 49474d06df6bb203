"""The batches of files and data sets, as SAGE programs import them."""

from sage._io import HFDatasetBatch, JSONLBatch

__all__ = ["HFDatasetBatch", "JSONLBatch"]
