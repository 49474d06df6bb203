"""Retrieval and generation outside a job, as SAGE programs import it."""

from sage._rag_pipeline import RAGPipeline

__all__ = ["RAGPipeline"]
