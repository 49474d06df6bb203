"""What sizes retrieval for a question, as SAGE programs import it."""

from sage._rag_pipeline import Query_Profiler

__all__ = ["Query_Profiler"]
