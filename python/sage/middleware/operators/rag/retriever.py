"""The steps that find texts for a question, as SAGE programs import them."""

from sage._retrievers import ChromaRetriever, MilvusDenseRetriever, MilvusSparseRetriever, Wiki18FAISSRetriever

__all__ = ["ChromaRetriever", "MilvusDenseRetriever", "MilvusSparseRetriever", "Wiki18FAISSRetriever"]
