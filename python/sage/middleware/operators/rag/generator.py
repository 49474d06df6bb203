"""The steps that ask language models, as SAGE programs import them."""

from sage._rag import HFGenerator, OpenAIGenerator

__all__ = ["HFGenerator", "OpenAIGenerator"]
