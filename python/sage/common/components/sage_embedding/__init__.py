"""Embedders, as SAGE programs import them."""

from sage._embedding import EmbeddingModel, apply_embedding_model

__all__ = ["EmbeddingModel", "apply_embedding_model"]
