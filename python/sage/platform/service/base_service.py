"""One of the names SAGE programs import."""

from sage._services import BaseService

__all__ = ["BaseService"]
