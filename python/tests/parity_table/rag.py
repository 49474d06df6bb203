"""Steps that make prompts and ask language models."""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

from llm_server import LlmServer

from . import run, there

_PLACE = "sage.middleware.operators.rag"


@there("QAPromptor", "config=None, enable_profile=False", f"sage.libs.rag.promptor {_PLACE}")
def qa_promptor(QAPromptor: Any) -> None:
    record = {"query": "Why?", "results": [{"text": "one"}, "two"]}
    asked = [record, ("How?", ["three"]), "When?"]
    prompts = run(lambda env: env.from_batch(asked).map(QAPromptor, {"use_short_answer": True}))
    assert [prompt[0] for prompt in prompts] == [record, "How?", "When?"]
    assert [[each["role"] for each in prompt[1]] for prompt in prompts] == [["system", "user"]] * 3
    assert [prompt[1][1]["content"] for prompt in prompts] == [f"Question: {word}?" for word in ("Why", "How", "When")]
    assert "one\ntwo" in prompts[0][1][0]["content"] and "three" in prompts[1][1][0]["content"]
    with patch.dict(sys.modules, jinja2=Stand("jinja2")):
        (prompt,) = run(lambda env: env.from_batch([record]).map(QAPromptor, {"template": "by:"}))
        assert prompt[1][0]["content"] == "by: one\ntwo"


class Stand(type(sys)):  # type: ignore[misc]
    """Stands for the module `jinja2`."""

    class Template:
        def __init__(self, text: str) -> None:
            self.text = text

        def render(self, external_corpus: str) -> str:
            return f"{self.text} {external_corpus}"


@there("OpenAIGenerator", "config, enable_profile=False", f"sage.libs.rag.generator {_PLACE}")
def openai_generator(OpenAIGenerator: Any) -> None:
    with LlmServer() as server:
        config = {"model_name": "m", "base_url": server.url, "api_key": "k", "seed": 7, "temperature": 0.5}
        messages = [{"role": "user", "content": "Why?"}]
        asked = [[{"query": "Why?"}, messages], ["Why?", "Why?"], [messages]]
        record, *pairs = run(lambda env: env.from_batch(asked).map(OpenAIGenerator, config))
        assert record.pop("generate_time") > 0
        assert record == {"query": "Why?", "question": "Why?", "generated": "Why? Because."}
        assert pairs == [("Why?", "Why? Because."), (None, "Why? Because.")]
        sent = {"model": "m", "messages": messages, "seed": 7, "temperature": 0.5}
        assert server.asked() == [sent] * 3


@there("HFGenerator", "config, enable_profile=False", f"sage.libs.rag.generator {_PLACE}")
def hf_generator(HFGenerator: Any) -> None:
    with LlmServer() as server:
        config = {"model_name": "m", "base_url": server.url}
        assert run(lambda env: env.from_batch([["Why?", "Why?"]]).map(HFGenerator, config)) == [
            ("Why?", "Why? Because.")
        ]
