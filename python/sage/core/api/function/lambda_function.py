"""One of the names SAGE programs import."""

from sage._functions import wrap_lambda

__all__ = ["wrap_lambda"]
