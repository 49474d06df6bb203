"""The steps that find texts for a question in Milvus, as SAGE programs import them."""

from sage._retrievers import MilvusDenseRetriever, MilvusSparseRetriever

__all__ = ["MilvusDenseRetriever", "MilvusSparseRetriever"]
