"""The service that embeds, as SAGE programs import it."""

from sage._embedding_service import EmbeddingService

__all__ = ["EmbeddingService"]
