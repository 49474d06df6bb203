"""The step that makes prompts, as SAGE programs import it."""

from sage._rag import QAPromptor

__all__ = ["QAPromptor"]
