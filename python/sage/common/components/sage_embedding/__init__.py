"""Embedders, as SAGE programs import them."""

from sage._embedders import check_model_availability, get_embedding_model, list_embedding_models
from sage._embedding import EmbeddingModel, apply_embedding_model
from sage._embedding_service import EmbeddingService

__all__ = [
    "EmbeddingModel",
    "EmbeddingService",
    "apply_embedding_model",
    "check_model_availability",
    "get_embedding_model",
    "list_embedding_models",
]
