"""Whatever llmock does to a Python client whose calls go through a policy, it finds nothing wrong with it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from sage import JobFailed, LocalEnvironment, Retry
from sage.services import Llm, LlmError

LLMOCK = Path(__file__).parents[2] / ".venv-llm/bin/llmock"

ANSWERED = [
    {"type": "fail", "status": 429, "retry_after": 0.3, "times": 2},
    {"type": "fail", "status": 429},
    {"type": "fail", "status": 503, "retry_after": 0.5},
    {"type": "fail", "status": 500},
    {"type": "fail", "status": 529, "retry_after": 0.2, "times": 3},
    {"type": "delay", "seconds": 5.0},
]


class Llmock:
    """A server that plays a provider, and judges its client."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [LLMOCK, "serve", "--log-level", "critical", "--port", f"{self.port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            assert self.process.poll() is None and time.monotonic() < until, "llmock does not start"
            try:
                self.ask("/health")
                return
            except OSError:
                time.sleep(0.02)

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.port}{path}", data, {"content-type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def llmock() -> Iterator[Llmock]:
    served = Llmock()
    yield served
    served.process.kill()
    served.process.wait()


def asked(served: Llmock, is_async: bool, **options: Any) -> Any:
    env = LocalEnvironment("asked")
    where = [f"http://127.0.0.1:{served.port}/v1", "sk-secret-of-the-test"]
    policy = {"timeout": 2, "retry": Retry(4, first=0.4), "rate": 50}
    llm = env.service("llm", Llm, ["gpt-4o-mini", *where], **policy)

    async def chat(question: str) -> Any:
        return await llm.chat(question, **options)

    def wait(question: str) -> Any:
        return llm.chat_blocking(question, **options)

    answers = env.from_batch(["Why?"]).map(chat if is_async else wait).collect()
    env.submit(autostop=True)
    return answers[0]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("behaviour", ANSWERED, ids=json.dumps)
def test_each_fault_is_met_as_it_should_be(llmock: Llmock, behaviour: dict[str, Any], is_async: bool) -> None:
    llmock.ask("/_llmock/reset", {})
    llmock.ask("/_llmock/scenario", {"behaviors": [behaviour]})
    answer = asked(llmock, is_async, streamed=behaviour.get("status") == 500)
    assert answer.text and answer.finish == "stop"
    assert llmock.ask("/_llmock/verdict")["findings"] == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_is_refused_for_good_is_not_asked_again(llmock: Llmock, status: int) -> None:
    llmock.ask("/_llmock/reset", {})
    llmock.ask("/_llmock/scenario", {"behaviors": [{"type": "fail", "status": status}]})
    with pytest.raises(JobFailed) as raised:
        asked(llmock, True)
    error = raised.value.__cause__
    verdict = "denied" if status in (401, 403) else "bad"
    assert isinstance(error, LlmError) and (error.status, error.verdict) == (status, verdict)
    assert len(llmock.ask("/_llmock/requests")["requests"]) == 1
    assert llmock.ask("/_llmock/verdict")["findings"] == []
