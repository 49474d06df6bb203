"""The client of language models: `sage.services.Llm`, by itself and as a service with a policy."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from llm_server import LlmServer, chat, streamed

from sage import JobFailed, Keep, LocalEnvironment, Retry, ServiceError, ServiceRefused
from sage._llm import _request
from sage.services import ChatStream, Llm, LlmError, TokenUsage

PLAIN = {"content-type": "text/event-stream"}


def refused(message: str, **error: Any) -> dict[str, Any]:
    return {"error": {"message": message, **error}}


def nobody() -> str:
    """An address at which nobody is."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1"


def clients_threads() -> int:
    """How many threads clients have in this process."""
    names = [name.read_text(encoding="utf-8").strip() for name in Path("/proc/self/task").glob("*/comm")]
    return names.count("sage-llm")


def failed(llm: Llm) -> LlmError:
    with pytest.raises(LlmError) as raised:
        llm.chat_blocking("Why?")
    return raised.value


def test_it_is_asked_with_and_without_waiting() -> None:
    with LlmServer((200, {}, chat("So.", {"prompt_tokens": 1_000_000, "completion_tokens": 3}))) as server:
        llm = Llm("gpt-4o-mini", server.url, "sk-secret")
        answer = llm.chat_blocking("Why?", temperature=0.5, model="gpt-4o", seed=7)
        assert (answer.text, answer.finish, answer.model) == ("So.", "stop", "gpt-4o-mini")
        assert answer.usage == TokenUsage(1_000_000, 0, 3) and answer.spent == pytest.approx(2.50003)
        sent = {"messages": [{"role": "user", "content": "Why?"}], "temperature": 0.5, "seed": 7, "model": "gpt-4o"}
        assert server.asked() == [sent] and server.headers[0]["authorization"] == "Bearer sk-secret"
        assert asyncio.run(llm.chat([answer.message(), {"role": "user", "content": "How?"}])).text == "How? Because."
        assert [each["role"] for each in server.asked()[0]["messages"]] == ["assistant", "user"]
        llm.cleanup()


def test_tools_and_schemas_are_sent_and_calls_of_tools_read() -> None:
    call = {"id": "7", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    with LlmServer((200, {}, chat(None, tool_calls=[call])), (200, {}, chat('{"n": 1}'))) as server:
        llm = Llm("m", server.url)
        weather = {"name": "weather", "parameters": {"type": "object"}}
        answer = llm.chat_blocking("Warm?", tools=[weather])
        assert (answer.text, answer.finish, answer.usage, answer.spent) == ("", "tool_calls", None, None)
        assert answer.tool_calls[0].parsed() == {"city": "Rome"} and answer.message()["tool_calls"] == [call]
        schema = {"title": "count", "type": "object"}
        assert llm.chat_blocking("How many?", json_schema=schema).json() == {"n": 1}
        first, second = server.asked()
        assert first["tools"] == [{"type": "function", "function": weather}]
        named = {"name": "count", "schema": schema, "strict": True}
        assert second["response_format"] == {"type": "json_schema", "json_schema": named}
        llm.cleanup()


def test_an_answer_comes_in_pieces_and_a_cut_one_is_an_error() -> None:
    replies = [(200, PLAIN, streamed("So", " it is")), (200, PLAIN, streamed("So", is_cut=True))]

    async def read() -> None:
        stream = await llm.stream("Why?")
        assert [piece.text async for piece in stream] == ["So", " it is"]
        assert (await stream.answer()).text == "So it is"
        with pytest.raises(LlmError, match="cut"):
            await (await llm.stream("Why?")).answer()

    with LlmServer(*replies, replies[0]) as server:
        llm = Llm("m", server.url)
        asyncio.run(read())
        assert llm.chat_blocking("Why?", streamed=True).text == "So it is"
        llm.cleanup()


def test_vectors_are_in_the_order_of_their_texts() -> None:
    with LlmServer() as server:
        llm = Llm("m", server.url)
        found = llm.embed_blocking(["a", "bcd"])
        assert [each.vector for each in found] == [[1.0, 1.0], [3.0, 1.0]] and sum(each.tokens for each in found) == 9
        assert asyncio.run(llm.embed(["ab"]))[0].vector == [2.0, 1.0]
        with pytest.raises(TypeError, match="list of texts"):
            llm.embed_blocking("ab")
        llm.cleanup()


def test_errors_say_what_they_mean_and_never_have_the_key() -> None:
    replies = [
        (429, {"retry-after": "2"}, refused("slow down, sk-secret")),
        (429, {}, refused("pay", code="insufficient_quota")),
        (500, {}, "<html>"),
        (401, {}, refused("who are you")),
    ]
    with LlmServer(*replies) as server:
        llm = Llm("m", server.url, "sk-secret")
        assert "secret" not in repr(llm) + str(vars(llm))
        errors = [failed(llm) for _ in replies]
        llm.cleanup()
    assert [error.verdict for error in errors] == ["throttled", "denied", "passing", "denied"]
    assert [error.status for error in errors] == [429, 429, 500, 401]
    assert (errors[0].retry_after, errors[1].code) == (2.0, "insufficient_quota")
    assert str(errors[0]) == "the provider answered 429: slow down, (key)"
    llm = Llm("m", nobody())
    assert (failed(llm).verdict, failed(llm).status) == ("outage", None)
    llm.cleanup()


def test_the_address_of_the_variable_is_asked_with_the_key_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with LlmServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        for key, sent in [(None, "Bearer sk-secret"), ("mine", "Bearer mine")]:
            llm = Llm("m", api_key=key)
            llm.chat_blocking("Why?")
            assert server.headers[-1]["authorization"] == sent and llm.base_url == server.url
            llm.cleanup()


def test_the_key_of_the_variable_goes_to_openai_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with LlmServer() as server:
        llm = Llm("m", server.url)
        llm.chat_blocking("Why?")
        assert "authorization" not in server.headers[0]
        llm.cleanup()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_policy_tries_again_what_may_go_better(is_async: bool) -> None:
    with LlmServer((429, {"retry-after": "0"}, refused("slow down")), (503, {}, "")) as server:
        env = LocalEnvironment("asked")
        llm = env.service("llm", Llm, ["m", server.url], timeout=60, concurrency=32, rate=1000, retry=4)

        async def asks(question: str) -> Any:
            return (await llm.chat(question)).text

        def waits(question: str) -> Any:
            return llm.chat_blocking(question).text

        answers = env.from_batch(["Why?"]).map(asks if is_async else waits).collect()
        policy = env.submit(autostop=True).metrics().services["llm"].policy
        assert answers == ["Why? Because."]
        assert policy is not None and (policy.attempts, policy.retries) == (3, 2)
        assert policy.last_error is not None and "the provider answered 503" in policy.last_error


def test_a_policy_does_not_send_again_what_is_at_fault() -> None:
    with LlmServer((400, {}, refused("no such model"))) as server:
        env = LocalEnvironment("asked")
        llm = env.service("llm", Llm, ["m", server.url], retry=4)
        env.from_batch(["Why?"]).map(llm.chat_blocking).collect()
        with pytest.raises(JobFailed) as raised:
            env.submit(autostop=True)
        assert isinstance(raised.value.__cause__, LlmError) and len(server.asked()) == 1


def test_a_stream_is_had_from_a_service() -> None:
    with LlmServer((503, {}, ""), (200, PLAIN, streamed("So", "."))) as server:
        env = LocalEnvironment("asked")
        llm = env.service("llm", Llm, ["m", server.url], retry=2)

        async def asks(question: str) -> Any:
            stream = await llm.stream(question)
            assert isinstance(stream, ChatStream)
            return "|".join([piece.text async for piece in stream])

        answers = env.from_batch(["Why?"]).map(asks).collect()
        env.submit(autostop=True)
        assert answers == ["So|."]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_cancelled_job_waits_for_no_answer(is_async: bool) -> None:
    before = clients_threads()
    with LlmServer() as server:
        env = LocalEnvironment("asked")
        llm = env.service("llm", Llm, ["m", server.url], timeout=60)
        env.from_batch(["wait"]).map(llm.chat if is_async else llm.chat_blocking).collect()
        job = env.submit()
        assert server.waits.wait(60)
        begun = time.monotonic()
        job.cancel()
        with pytest.raises(JobFailed, match="cancelled"):
            job.wait()
        assert time.monotonic() - begun < 30
    assert clients_threads() <= before


def test_tokens_are_limited_by_what_a_call_is_likely_to_take() -> None:
    from sage import Rate

    with LlmServer() as server:
        env = LocalEnvironment("asked")
        llm = env.service("llm", Llm, ["m", server.url], cost=Llm.tokens, rate=Rate(cost=600, per=60))
        asked = [llm.chat_blocking]
        env.from_batch(["Why?"]).map(lambda question: asked[0](question, max_tokens=1000)).collect()
        with pytest.raises(JobFailed) as raised:
            env.submit(autostop=True)
        assert isinstance(raised.value.__cause__, ServiceRefused)
        assert Llm.tokens("a" * 400, max_tokens=10) > 110


def test_what_a_call_did_take_is_settled() -> None:
    from sage import Rate, Spend

    with LlmServer() as server:
        env = LocalEnvironment("asked")
        policy = {"cost": Llm.tokens, "usage": Llm.used, "rate": Rate(cost=10_000, per=60), "spend": Spend(1.0)}
        llm = env.service("llm", Llm, ["gpt-4o-mini", server.url], **policy)
        answers = env.from_batch(["Why?", "How?"]).map(llm.chat).collect()
        job = env.submit(autostop=True)
        rate = job.metrics().services["llm"].policy.rate
        # By the answers; far more was reserved.
        spent = sum(answer.spent for answer in answers)
        assert rate["cost"] == 2 * (9 + 3) and spent > 0
        assert rate["spent_billionths"] == pytest.approx(spent * 1e9, abs=2)


def test_a_wait_ends_when_the_client_is_closed() -> None:
    with LlmServer() as server:
        llm = Llm("m", server.url)
        ended: list[BaseException] = []

        def wait() -> None:
            try:
                llm.chat_blocking("wait")
            except RuntimeError as error:
                ended.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        assert server.waits.wait(60)
        llm.cleanup()
        thread.join(60)
        assert "closed" in str(ended[0])


def test_whoever_awaits_an_answer_or_a_piece_is_told_that_the_client_was_closed() -> None:
    async def ask(llm: Llm, server: LlmServer) -> None:
        stream = await llm.stream("Why?")
        asked = asyncio.ensure_future(llm.chat("wait"))
        assert await asyncio.to_thread(server.waits.wait, 60)
        await asyncio.to_thread(llm.cleanup)
        ended = await asyncio.wait_for(asyncio.gather(asked, stream.answer(), return_exceptions=True), 60)
        assert [type(error) for error in ended] == [LlmError, LlmError]
        assert all("closed" in str(error) for error in ended)

    with LlmServer((200, PLAIN, streamed("So", "."))) as server:
        asyncio.run(ask(Llm("m", server.url), server))


def test_a_client_is_closed_while_others_call_it() -> None:
    with LlmServer() as server:
        client, request = Llm("m", server.url)._native(), _request("wait", {})
        for _ in range(20):
            client.chat(request, None, lambda *_: None)
        assert server.waits.wait(60)
        begin = time.monotonic()
        closing = threading.Thread(target=client.close)
        closing.start()
        # Each call takes the client's lock, while the client's thread takes the interpreter to tell of those it drops.
        with pytest.raises(ServiceError, match="closed"):
            while True:
                client.chat(request, None, lambda *_: None)
        closing.join(60)
        assert time.monotonic() - begin < 4, "it waits for its thread for five seconds at most"


def tallies(job: Any) -> Any:
    return job.metrics().services["llm"].policy.tallies


def test_what_calls_took_is_in_the_figures_by_model_and_what_was_kept_is_not() -> None:
    with LlmServer() as server:
        env = LocalEnvironment("tallied")
        answers = {"retry": 2, "version": "1", "keep": {"chat": Keep(cache=10, codec="pickle")}}
        llm = env.service("llm", Llm, ["gpt-4o-mini", server.url], **answers)

        async def asked(question: str) -> str:
            answer = await llm.chat(question, model="gpt-4o" if question == "How?" else None)
            return str(answer.text)

        env.from_batch(["Why?", "How?", "Why?"]).map(asked).collect()
        env.from_batch([["a", "b"]]).map(llm.embed_blocking).collect()
        job = env.submit(autostop=True)
        figures = {tuple(each["of"].values()): each["sums"] for each in tallies(job)}
        assert set(figures) == {("chat", "gpt-4o-mini"), ("chat", "gpt-4o"), ("embeddings", "gpt-4o-mini")}
        sums = figures["chat", "gpt-4o-mini"]
        assert (sums["gen_ai.usage.input_tokens"], sums["gen_ai.usage.output_tokens"]) == (9, 3)
        assert sums["cost"] == pytest.approx(9 * 1.5e-7 + 3 * 6e-7)
        assert figures["embeddings", "gpt-4o-mini"]["cost"] == pytest.approx(9 * 1.5e-7)


def test_a_stream_is_in_the_figures_at_its_end_also_one_that_is_cut() -> None:
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})
    told = streamed("So").replace("data: [DONE]", f"data: {usage}\n\ndata: [DONE]")
    with LlmServer((200, PLAIN, told), (200, PLAIN, streamed("So", is_cut=True))) as server:
        env = LocalEnvironment("streamed")
        llm = env.service("llm", Llm, ["gpt-4o-mini", server.url], retry=3)

        async def read(question: str) -> str:
            try:
                return str((await (await llm.stream(question)).answer()).text)
            except LlmError as error:
                return str(error)

        answers = env.from_batch(["Why?", "How?"]).map(read).collect()
        job = env.submit(autostop=True)
        # Whichever was sent first.
        whole, cut = sorted(answers)
        assert whole == "So" and "cut" in cut
        policy = job.metrics().services["llm"].policy
        assert policy is not None and (policy.attempts, policy.failed) == (2, 1)
        assert policy.last_error is not None and "cut" in policy.last_error
        assert [each["sums"]["gen_ai.usage.input_tokens"] for each in tallies(job)] == [7]


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_call_in_the_journal_has_an_idempotency_key_the_same_for_each_attempt(tmp_path: Path, is_kept: bool) -> None:
    with LlmServer((500, {}, refused("not now"))) as server:
        env = LocalEnvironment("journalled")
        keep = {"chat": Keep(journal=True, codec="pickle")}
        kept: dict[str, Any] = {"version": "1", "journal": str(tmp_path), "keep": keep}
        llm = env.service("llm", Llm, ["m", server.url], retry=Retry(3, first=0.0), **(kept if is_kept else {}))

        async def asked(question: str) -> str:
            return str((await llm.chat(question)).text)

        env.from_batch(["Why?"]).map(asked).collect()
        env.submit(autostop=True)
        keys = [headers.get("idempotency-key") for headers in server.headers]
        assert len(keys) == 2 and len(set(keys)) == 1 and (keys[0] is not None) == is_kept


def test_prices_are_read_from_a_file_and_an_error_says_what_is_wrong_in_it(tmp_path: Path) -> None:
    table = tmp_path / "prices.json"
    table.write_text(json.dumps({"m": {"input_cost_per_token": 2, "output_cost_per_token": "0.5"}}))
    with LlmServer() as server:
        llm = Llm("m", server.url, prices=table)
        assert llm.chat_blocking("Why?").spent == 9 * 2 + 3 * 0.5
        llm.cleanup()
    for text, told in [
        ("{", "the prices are no JSON"),
        ("[]", "no table of models"),
        ('{"m": {"input_cost_per_token": "much"}}', '`input_cost_per_token` of the model `m` is "much", not a number'),
    ]:
        table.write_text(text)
        with pytest.raises(ValueError, match=re.escape(told)) as raised:
            Llm("m", prices=table).setup()
        assert str(table) in str(raised.value)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        Llm("m", prices=tmp_path / "none.json").setup()


@pytest.mark.parametrize("name", ["connect_timeout", "read_timeout"])
def test_a_provider_that_does_not_answer_is_left_after_the_timeout(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        held = []
        if name == "connect_timeout":
            with suppress(TimeoutError):
                while True:  # until the system takes no more connections
                    held.append(socket.create_connection(server.getsockname(), timeout=0.1))
        begin = time.monotonic()
        llm = Llm("m", f"http://127.0.0.1:{server.getsockname()[1]}/v1", **{name: 0.1})
        error = failed(llm)
        assert 0.1 <= time.monotonic() - begin < 30
        assert error.verdict == ("outage" if name == "connect_timeout" else "passing")
        llm.cleanup()
        for connection in held:
            connection.close()
