"""The steps that ask language models, as SAGE programs import them."""

from sage._rag import HFGenerator, OpenAIGenerator

#: Its name in some programs.
HuggingFaceGenerator = HFGenerator

__all__ = ["HFGenerator", "HuggingFaceGenerator", "OpenAIGenerator"]
