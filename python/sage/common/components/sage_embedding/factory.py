"""The ways to embed, as SAGE programs import them."""

from sage._embedders import check_model_availability, get_embedding_model, list_embedding_models

__all__ = ["check_model_availability", "get_embedding_model", "list_embedding_models"]
