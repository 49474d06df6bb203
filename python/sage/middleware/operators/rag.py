"""The steps that make prompts and ask language models, as SAGE programs import them."""

from sage._rag import HFGenerator, OpenAIGenerator, QAPromptor

__all__ = ["HFGenerator", "OpenAIGenerator", "QAPromptor"]
