"""Steps that ask language models, as SAGE programs use them. Each takes one mapping, such as a section of a
configuration file; errors are raised."""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ._arguments import said
from ._functions import MapFunction

#: Where a record has the texts that were found for its question: the first of them that has some.
_FOUND = (
    *("refining_results", "retrieval_results", "results", "context", "external_corpus"),
    *("retrieved_docs", "retrieved_documents", "retrieved_context"),
)

#: Where it has the question.
_ASKED = ("query", "question", "original_query", "user_query")

#: What a template calls the texts.
_TEXTS = ("external_corpus", "retrieved_documents", "retrieved_docs", "context")

_FROM_TEXTS = "Answer the question by what these texts say. If the answer is not in them, say that it is not."
_FROM_NOTHING = "Answer the question. If you do not know the answer, say so."
_SHORT = " Give the answer alone, in a few words."

#: The variables of the environment that may have the key of a provider's account.
_KEYS = ("OPENAI_API_KEY", "ALIBABA_API_KEY", "DASHSCOPE_API_KEY")

#: What of a configuration goes along with each request.
_SENT = ("seed", "temperature", "max_tokens", "top_p", "frequency_penalty", "n", "logprobs", "enable_thinking")


def _question_in(record: Mapping[str, Any]) -> Any:
    return next((record[name] for name in _ASKED if record.get(name) is not None), None)


def _checked(step: str, config: Any) -> Mapping[str, Any]:
    if not isinstance(config, Mapping):
        raise TypeError(f"`{step}` takes its configuration as a mapping, not {said(config)}")
    return config


class QAPromptor(MapFunction):
    """Makes the messages that ask a model a question by what texts say: ``stream.map(QAPromptor, {})``.

    It takes a mapping with a ``query``, ``question``, ``original_query`` or ``user_query``, and the texts in
    ``refining_results``, ``retrieval_results``, ``results``, ``context``, ``external_corpus``, ``retrieved_docs``,
    ``retrieved_documents`` or ``retrieved_context``, as texts or mappings with ``text``; or a pair of a question and
    texts; or a question. It gives ``[record, [system, user]]``, and of a pair ``[question, …]``.

    ``use_short_answer`` asks for a few words. ``template`` is the text of the system's message instead. In it, names
    in braces stand for what the record has: ``{external_corpus}``, ``{retrieved_documents}``, ``{retrieved_docs}`` and
    ``{context}`` for the texts, ``{query}``, ``{question}``, ``{original_query}`` and ``{user_query}`` for the
    question, and others for a field of the mapping. One with ``{{`` or ``{%`` is for Jinja2, which has to be installed,
    with the same names.

    >>> from sage.libs.rag.promptor import QAPromptor
    >>> env = LocalEnvironment("prompts")
    >>> prompts = env.from_batch([("Why?", ["Because."])]).map(QAPromptor, {}).collect()
    >>> job = env.submit(autostop=True)
    >>> question, messages = prompts[0]
    >>> question, [message["role"] for message in messages], messages[1]["content"]
    ('Why?', ['system', 'user'], 'Question: Why?')
    """

    def __init__(self, config: Mapping[str, Any] | None = None, enable_profile: bool = False) -> None:
        super().__init__()
        self.config = _checked("QAPromptor", {} if config is None else config)
        self.use_short_answer = bool(self.config.get("use_short_answer", False))
        template = self.config.get("template")
        self._template = None if template is None else _template(template)

    def execute(self, data: Any) -> list[Any]:
        """Makes the messages."""
        if isinstance(data, Mapping):
            question = _question_in(data)
            if question is None:
                raise ValueError(f"`QAPromptor` needs a `query` or a `question`; the record has {said(list(data))}")
            found = next((data[name] for name in _FOUND if data.get(name)), ())
            original: Any = data
        elif isinstance(data, (tuple, list)) and len(data) == 2:
            original, found = data
            question = original
        elif isinstance(data, str):
            original, question, found = data, data, ()
        else:
            raise TypeError(f"`QAPromptor` takes a mapping, a pair or a question, not {type(data).__name__}")
        texts = [found] if isinstance(found, (str, Mapping)) else list(found or ())
        system = {"role": "system", "content": self._system("\n".join(map(_text, texts)), question, original)}
        return [original, [system, {"role": "user", "content": f"Question: {question}"}]]

    def _system(self, corpus: str, question: Any, record: Any) -> str:
        if self._template is not None:
            named = dict.fromkeys(_TEXTS, corpus) | dict.fromkeys(_ASKED, question)
            if isinstance(record, Mapping):
                named |= {name: value for name, value in record.items() if name not in named}
            return str(self._template.render(named))
        asked = (_FROM_TEXTS if corpus else _FROM_NOTHING) + (_SHORT if self.use_short_answer else "")
        return f"{asked}\n\n{corpus}" if corpus else asked


class _Named:
    """A text with names in braces. A name that is not known stays as it is, with its braces."""

    def __init__(self, text: str) -> None:
        self._text = text

    def render(self, named: dict[str, Any]) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: str(named.get(found[1], found[0])), self._text)


def _template(text: Any) -> Any:
    if not isinstance(text, str):
        return text  # one of Jinja2's already
    if "{{" not in text and "{%" not in text:
        return _Named(text)
    try:
        return importlib.import_module("jinja2").Template(text)
    except ModuleNotFoundError as error:
        hint = "a `template` of `QAPromptor` needs Jinja2: pip install 'sage-dataflow[jinja2]'"
        raise ImportError(hint, name="jinja2") from error


def _text(found: Any) -> str:
    if isinstance(found, Mapping):
        return str(next((found[name] for name in ("text", "content") if name in found), found))
    return str(found)


class _Generator(MapFunction):
    """Asks a model."""

    def __init__(self, config: Any, api_key: str | None) -> None:
        from ._llm import Llm  # few programs need it

        super().__init__()
        step = type(self).__name__
        self.config = _checked(step, config)
        model = config.get("model_name", config.get("model"))
        if model is None:
            raise ValueError(f"`{step}` needs the `model_name`; its configuration has {said(list(config))}")
        self.model_name, self.base_url = model, config.get("base_url") or None
        self._llm = Llm(model, self.base_url, api_key)

    def ask(self, data: Any) -> tuple[Any, str]:
        """The original and the answer, of ``[original, prompt]`` or ``[prompt]``."""
        if isinstance(data, str) or not isinstance(data, Sequence) or not 1 <= len(data) <= 2:
            what = f"`{type(self).__name__}` takes a list of the record and its prompt, or of the prompt alone"
            raise TypeError(f"{what}, not {type(data).__name__}")
        prompt = data[-1]
        options = {name: self.config[name] for name in _SENT if self.config.get(name) is not None}
        answer = self._llm.chat_blocking(prompt, streamed=bool(self.config.get("stream", False)), **options)
        return data[0] if len(data) == 2 else None, answer.text

    def teardown(self, context: Any) -> None:
        """Ends its connections."""
        self._llm.cleanup()


class OpenAIGenerator(_Generator):
    """Has a model answer prompts, such as ``QAPromptor`` makes: ``stream.map(OpenAIGenerator, config)``.

    The configuration has ``model_name`` (or ``model``), perhaps ``base_url`` and ``api_key``, and what is sent along:
    ``temperature``, ``max_tokens``, ``top_p``, ``frequency_penalty``, ``seed``, ``n``, ``logprobs``,
    ``enable_thinking``; with ``stream`` the answer is sent in pieces, and put together. Without ``base_url``, the
    address is that of the variable ``OPENAI_BASE_URL``, or OpenAI's. Without ``api_key``, the key is
    that of the variable ``OPENAI_API_KEY``, ``ALIBABA_API_KEY`` or ``DASHSCOPE_API_KEY``, whatever the ``base_url``, as
    in SAGE: give ``api_key="EMPTY"`` for a server that is not to get it.

    Of ``[mapping, prompt]`` it gives the mapping with ``generated``, ``generate_time`` in seconds and, if that is not
    there, ``question``; of ``[question, prompt]`` the pair of the question and the answer; of ``[prompt]`` ``(None,
    answer)``. A prompt is a question or a list of messages. A call that fails raises ``LlmError``; for retries and
    limits, register an ``Llm`` as a service.

    >>> from sage.libs.rag.generator import OpenAIGenerator
    >>> env = LocalEnvironment("answers")
    >>> config = {"model_name": "small", "base_url": "http://localhost:8080/v1"}
    >>> answers = env.from_batch([]).map(OpenAIGenerator, config).collect()  # nothing is asked here
    >>> job = env.submit(autostop=True)
    """

    def __init__(self, config: Mapping[str, Any], enable_profile: bool = False) -> None:
        given = config.get("api_key") if isinstance(config, Mapping) else None
        super().__init__(config, given or next(filter(None, map(os.environ.get, _KEYS)), None))

    def execute(self, data: Any) -> Any:
        """Asks the model."""
        begun = time.perf_counter()
        original, text = self.ask(data)
        if not isinstance(original, Mapping):
            return original, text
        answered = {**original, "generated": text, "generate_time": time.perf_counter() - begun}
        if (question := _question_in(answered)) is not None:
            answered.setdefault("question", question)
        return answered


class HFGenerator(_Generator):
    """Has a model of Hugging Face answer prompts, which a server of one's own runs, such as that of ``vllm serve``:
    ``stream.map(HFGenerator, {"model_name": …, "base_url": "http://localhost:8000/v1"})``. Of ``[question, prompt]`` it
    gives ``(question, answer)``. Otherwise it is as ``OpenAIGenerator``.

    >>> from sage.libs.rag.generator import HFGenerator
    >>> HFGenerator({"model_name": "small"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: `HFGenerator` asks a server of your own: give its `base_url`, such as that of `vllm serve small`
    """

    def __init__(self, config: Mapping[str, Any], enable_profile: bool = False) -> None:
        super().__init__(config, config.get("api_key") if isinstance(config, Mapping) else None)
        if self.base_url is None:
            hint = f"give its `base_url`, such as that of `vllm serve {self.model_name}`"
            raise ValueError(f"`HFGenerator` asks a server of your own: {hint}")

    def execute(self, data: Any) -> tuple[Any, str]:
        """Asks the model."""
        return self.ask(data)
