"""One of the names SAGE programs import."""

from sage._services import ServiceFactory

__all__ = ["ServiceFactory"]
