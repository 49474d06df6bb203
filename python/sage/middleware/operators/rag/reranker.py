"""The step that orders what was found, as SAGE programs import it."""

from sage._retrievers import BGEReranker

__all__ = ["BGEReranker"]
