"""The steps that find texts for a question, as SAGE programs import them."""

from sage._faiss import Wiki18FAISSRetriever
from sage._retrievers import ChromaRetriever, MilvusDenseRetriever, MilvusSparseRetriever

__all__ = ["ChromaRetriever", "MilvusDenseRetriever", "MilvusSparseRetriever", "Wiki18FAISSRetriever"]
