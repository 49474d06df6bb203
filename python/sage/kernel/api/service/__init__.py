"""Services, as SAGE programs import them."""

from sage._services import BaseService

__all__ = ["BaseService"]
