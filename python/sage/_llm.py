"""A client of language models, as a service: see ``crates/sage-python/src/llm.rs``, which does the work."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from ._arguments import said, seconds
from ._sage import LlmCall, LlmClient, LlmStream, ServiceError
from ._spends import Usage

if TYPE_CHECKING:
    from ._sage import Late

#: What a model is asked: a question, or the messages of a conversation.
Messages = str | Sequence[Mapping[str, Any]]


class LlmError(ServiceError):
    """Why a provider gave no answer. ``verdict`` says what that means to a policy: ``"bad"``, ``"passing"``,
    ``"throttled"``, ``"denied"`` or ``"outage"``. ``status`` is that of HTTP, 200 for an error that was sent as an
    answer, and ``None`` where nothing was answered; ``code`` is what the provider calls it, such as
    ``insufficient_quota``; ``retry_after`` is how many seconds it asks its callers to wait.

    >>> error = LlmError("the provider answered 429: slow down", "throttled", 429, retry_after=2.0)
    >>> error.verdict, error.status, error.retry_after
    ('throttled', 429, 2.0)
    """

    def __init__(
        self,
        text: str,
        verdict: str = "passing",
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text, verdict, status, code, retry_after)
        self.verdict, self.status, self.code, self.retry_after = verdict, status, code, retry_after

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class TokenUsage:
    """What a call took of tokens: those of the request, among them those that the provider had in its cache, and those
    of the answer.

    >>> TokenUsage(input=9, cached_input=4, output=3).total
    12
    """

    input: int
    cached_input: int
    output: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.input + self.output


@dataclass(frozen=True)
class ToolCall:
    """A tool that a model asks to be called. ``arguments`` are as the model gives them: perhaps no JSON.

    >>> ToolCall("1", "weather", '{"city": "Rome"}').parsed()
    {'city': 'Rome'}
    """

    id: str
    name: str
    arguments: str

    def parsed(self) -> Any:
        """The arguments as a value. Raises ``ValueError`` if they are no JSON."""
        return json.loads(self.arguments)


@dataclass(frozen=True)
class ChatAnswer:
    """What a model says.

    >>> answer = ChatAnswer('{"city": "Rome"}')
    >>> answer.json(), answer.message()
    ({'city': 'Rome'}, {'role': 'assistant', 'content': '{"city": "Rome"}'})
    """

    #: Its text; empty if it only asks for tools.
    text: str
    #: The tools it asks to be called.
    tool_calls: tuple[ToolCall, ...] = ()
    #: Why it ends here: ``stop``, ``length``, ``tool_calls``, ``content_filter`` or another word of the provider's.
    finish: str | None = None
    #: What the call took of tokens; ``None`` if the provider does not say.
    usage: TokenUsage | None = None
    #: What it cost, in dollars; ``None`` if that, or the price of the model, is not known.
    spent: float | None = None
    #: The model that has answered, as the provider names it.
    model: str = ""
    id: str = ""
    #: Why the model refuses to answer, and what it says of its reasoning, where a provider tells that.
    refusal: str | None = None
    reasoning: str | None = None
    #: The model that was asked.
    requested: str = ""

    def json(self) -> Any:
        """The text as a value. Raises ``ValueError`` if it is no JSON: a model may not heed a schema."""
        return json.loads(self.text)

    def message(self) -> dict[str, Any]:
        """The message that says this, for the next request of a conversation."""
        if not self.tool_calls:
            return {"role": "assistant", "content": self.text}
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.tool_calls
        ]
        return {"role": "assistant", "content": self.text or None, "tool_calls": calls}


@dataclass(frozen=True)
class Embedding:
    """A text as a vector, and its share of the tokens that were taken.

    >>> Embedding([0.6, 0.8], tokens=3, model="small").vector
    [0.6, 0.8]
    """

    vector: list[float]
    tokens: int
    model: str


@dataclass(frozen=True)
class Piece:
    """A piece of an answer: of its text, of the model's reasoning, or of the call of a tool, which is the answer's
    ``index``-th from 0; its ``name`` is in the call's first piece.

    >>> Piece(text="Because").text
    'Because'
    """

    text: str = ""
    reasoning: str = ""
    index: int | None = None
    name: str | None = None
    arguments: str = ""


class ChatStream(AsyncIterator[Piece]):
    """An answer that comes in pieces, from ``Llm.stream``: ``async for piece in stream``. A stream that breaks off, or
    ends before the answer does, raises ``LlmError``.

    A policy covers it up to its beginning: its first attempts, its wait for a turn, its timeout. From there on it is
    its reader's: one that breaks off is not tried again, and takes no place among the calls under way. The report tells
    how it ended: what it took, once it has been read to its end; one that breaks off is there as a call that failed,
    and as the last error. One that is not read to its end is not."""

    def __init__(self, stream: LlmStream) -> None:
        self._stream = stream
        self._late: Late | None = None

    async def __anext__(self) -> Piece:
        try:
            piece = json.loads(await _awaited(self._stream.next))
        except LlmError as error:
            if late := self._once():
                late.broke_off(str(error))
            raise
        if piece is None:
            if late := self._once():
                whole = _tally(_answer(await _awaited(self._stream.so_far)))
                late.tally(*whole) if whole else None
            raise StopAsyncIteration
        return Piece(**piece)

    def _once(self) -> Late | None:
        late, self._late = self._late, None
        return late

    async def answer(self) -> ChatAnswer:
        """Waits for the rest, and gives the answer as a whole."""
        async for _ in self:
            pass
        return _answer(await _awaited(self._stream.so_far))


class Llm:
    """A service: a client of a language model that speaks OpenAI's protocol, at OpenAI or any other provider, or on a
    server of one's own. It sends each request once: timeouts, retries and limits are those of the service's policy,
    which knows what its errors mean.

    ``base_url`` is the address up to what comes before ``/chat/completions``; unless given, that of the variable
    ``OPENAI_BASE_URL``, or OpenAI's. ``api_key`` is then that of the variable ``OPENAI_API_KEY``, and none for a
    ``base_url`` that is given, unless it is given too; it is never shown. Connecting may take ``connect_timeout``
    seconds, and for ``read_timeout`` nothing may come of an answer. ``prices`` is a file of what models cost, in
    litellm's format: an object that has the models by their names, each with ``input_cost_per_token``, and perhaps
    ``output_cost_per_token`` and ``cache_read_input_token_cost``. Default: a table of about 50 models.

    >>> env = LocalEnvironment("asked")
    >>> where = {"base_url": "http://localhost:8080/v1"}
    >>> llm = env.service("llm", Llm, ["small"], where, timeout=60, concurrency=32, retry=4)
    >>> async def asked(question):
    ...     return (await llm.chat(question, max_tokens=200)).text
    >>> answers = env.from_batch([]).map(asked).collect()  # nothing is asked here
    >>> job = env.submit(autostop=True)
    >>> answers
    []

    Each method has another by the name with ``_blocking``, for functions that wait for the answer. With a policy, what
    calls took and cost is in its figures, by model and with OpenTelemetry's names: ``PolicyMetrics.tallies``. Calls
    that are in the run's journal have an idempotency key.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        connect_timeout: float = 10.0,
        read_timeout: float = 600.0,
        prices: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise ValueError(f"`model` is a model by its provider's name for it, not {said(model)}")
        if base_url is None:
            base_url = os.environ.get("OPENAI_BASE_URL") or None
            api_key = os.environ.get("OPENAI_API_KEY") if api_key is None else api_key
        self.model, self.base_url = model, base_url
        times = (
            seconds("`connect_timeout`", connect_timeout, more=True),
            seconds("`read_timeout`", read_timeout, more=True),
        )
        table = None if prices is None else os.fspath(prices)
        self._lock = Lock()
        self._client: LlmClient | None = None
        self._make: Callable[[], LlmClient] = lambda: LlmClient(model, base_url, api_key, *times, table)

    def __repr__(self) -> str:
        where = "" if self.base_url is None else f", {self.base_url!r}"
        return f"Llm({self.model!r}{where})"

    def _native(self) -> LlmClient:
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def setup(self) -> None:
        """Makes the client ready; it connects when it is called."""
        self._native()

    def cleanup(self) -> None:
        """Ends all calls that are under way, and the client's thread."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    @staticmethod
    def tokens(messages: Messages, **options: Any) -> int:
        """How many tokens a call of ``chat`` with these arguments is likely to take: about one for four letters, and
        the most that the answer may have, or 512. As ``cost=`` of the service, it is what a ``Rate`` of cost counts.

        >>> Llm.tokens("Why is the sky blue?", max_tokens=100) > 100
        True
        """
        return LlmClient.tokens(_request(messages, options))

    @staticmethod
    def used(answer: Any) -> Usage | None:
        """What a call took, in tokens, and cost, in dollars: as ``usage=`` of the service, it settles what ``cost=``
        had reserved. ``None`` where the provider does not say.

        >>> Llm.used(ChatAnswer("Because", usage=TokenUsage(9, 0, 3), spent=0.001))
        Usage(cost=12, spent=0.001)
        """
        if isinstance(answer, ChatAnswer):
            return None if answer.usage is None else Usage(answer.usage.total, answer.spent or 0.0)
        is_embedded = isinstance(answer, list) and all(isinstance(each, Embedding) for each in answer)
        return Usage(sum(each.tokens for each in answer)) if is_embedded else None

    def _tally(self, answer: Any, late: Late) -> Tally | None:
        """What an answer adds to the figures of the service: see ``told_of`` in ``_call_policies.py``."""
        if isinstance(answer, ChatStream):
            answer._late = late  # it tells at its end
            return None
        if isinstance(answer, list) and all(isinstance(each, Embedding) for each in answer):
            tokens = sum(each.tokens for each in answer)
            spent = self._native().spent_on_embeddings(tokens)
            return _took("embeddings", self.model, TokenUsage(tokens, 0, 0), spent)
        return _tally(answer)

    async def chat(self, messages: Messages, *, idempotency_key: str | None = None, **options: Any) -> ChatAnswer:
        """Asks the model: a question, or the messages of a conversation as the protocol has them.

        ``model`` asks another one. ``tools`` are the functions that the model may ask to be called: each a mapping of
        its ``name``, ``description`` and ``parameters``. ``json_schema`` is the schema that the answer is to follow.
        With ``streamed=True`` the answer is sent in pieces, and put together. All other options, such as
        ``temperature``, ``max_tokens`` and ``seed``, are sent as they are. By ``idempotency_key`` the provider knows a
        request that it has had before, if it heeds such keys; a policy gives one to calls that are in its journal.
        Raises ``LlmError``.
        """
        request = _request(messages, options)
        client = self._native()
        return _answer(await _awaited(lambda told: client.chat(request, idempotency_key, told)))

    def chat_blocking(self, messages: Messages, *, idempotency_key: str | None = None, **options: Any) -> ChatAnswer:
        """As ``chat``, and waits for the answer."""
        return _answer(_given(*self._native().chat_blocking(_request(messages, options), idempotency_key)))

    async def stream(self, messages: Messages, **options: Any) -> ChatStream:
        """Asks the model as ``chat`` does, for an answer in pieces, as they come. A policy covers the stream up to its
        beginning: see ``ChatStream``. Where it is to cover all of it, use ``chat`` with ``streamed=True``."""
        request = _request(messages, options)
        client = self._native()
        return ChatStream(await _awaited(lambda told: client.stream(request, told)))

    async def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """Makes vectors of texts, in their order. Raises ``LlmError``."""
        client, all_of_them = self._native(), _texts(texts)
        return _embeddings(await _awaited(lambda told: client.embed(all_of_them, told)))

    def embed_blocking(self, texts: Sequence[str]) -> list[Embedding]:
        """As ``embed``, and waits for the vectors."""
        return _embeddings(_given(*self._native().embed_blocking(_texts(texts))))


def _texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("`texts` is a list of texts, not one; give it as [text]")
    return list(texts)


def _request(messages: Messages, options: dict[str, Any]) -> str:
    """A request, as ``llm.rs`` reads it."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    options = dict(options)
    model, streamed = options.pop("model", None), options.pop("streamed", False)
    tools, schema = options.pop("tools", None) or (), options.pop("json_schema", None)
    tools = [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
    if schema is not None:
        named = {"name": schema.get("title", "answer"), "schema": schema, "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": named}
    request = {"messages": list(messages), "tools": tools, "parameters": options, "model": model, "streamed": streamed}
    return json.dumps(request)


def _given(error: str | None, answer: Any) -> Any:
    """The answer that a call has come to, if it has come to one."""
    if error is not None:
        told = json.loads(error)
        raise LlmError(told["text"], told["verdict"], told["status"], told["code"], told["retry_after"])
    return answer


def _answer(text: str) -> ChatAnswer:
    told = json.loads(text)
    answer = told["answer"]
    usage = answer["usage"]
    return ChatAnswer(
        text=answer["text"],
        tool_calls=tuple(ToolCall(**call) for call in answer["tool_calls"]),
        finish=told["finish"],
        usage=None if usage is None else TokenUsage(**usage),
        spent=told["spent"],
        model=answer["model"],
        id=answer["id"],
        refusal=answer["refusal"],
        reasoning=answer["reasoning"],
        requested=answer["requested"],
    )


#: What an answer adds to the figures of its service: of which kind it is, and how much.
Tally = tuple[dict[str, str], dict[str, float]]


def _tally(answer: Any) -> Tally | None:
    if not isinstance(answer, ChatAnswer) or answer.usage is None:
        return None
    return _took("chat", answer.requested, answer.usage, answer.spent)


def _took(operation: str, model: str, usage: TokenUsage, spent: float | None) -> Tally:
    """By OpenTelemetry's names. It has none for a cost."""
    return {"gen_ai.operation.name": operation, "gen_ai.request.model": model}, {
        "gen_ai.usage.input_tokens": usage.input,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input,
        "gen_ai.usage.output_tokens": usage.output,
        "cost": spent or 0.0,
    }


def _embeddings(text: str) -> list[Embedding]:
    return [Embedding(**each) for each in json.loads(text)]


async def _awaited(begin: Callable[[Callable[[str | None, Any], None]], LlmCall]) -> Any:
    """What a call comes to, on the running event loop."""
    from asyncio import get_running_loop  # it is there

    loop = get_running_loop()
    future = loop.create_future()

    def settle(error: str | None, answer: Any) -> None:
        if not future.done():
            future.set_result((error, answer))

    def told(error: str | None, answer: Any) -> None:
        try:
            loop.call_soon_threadsafe(settle, error, answer)
        except RuntimeError:
            pass  # the loop is closed

    call = begin(told)
    try:
        return _given(*await future)
    finally:
        call.cancel()
