"""A server that stands for a provider of language models. It answers in the question's words, or as a test says."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LlmServer:
    """Answers requests, first as it is told by `replies`: each a status, headers and a body."""

    def __init__(self, *replies: tuple[int, dict[str, str], Any], port: int = 0) -> None:
        self._replies = list(replies)
        self._asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        #: Set when a request waits that is told to, by the word `wait` in it; and by a test, to have it answered.
        self.waits, self.goes_on = threading.Event(), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server._asked.append(body)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                status, headers, answer = server._replies.pop(0) if server._replies else (200, {}, server._answer(body))
                text = answer if isinstance(answer, str) else json.dumps(answer)
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                with suppress(ConnectionError):  # the caller has left
                    self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def _answer(self, body: dict[str, Any]) -> Any:
        usage = {"prompt_tokens": 9, "completion_tokens": 3}
        if "input" in body:
            vectors = [{"index": n, "embedding": [float(len(text)), 1.0]} for n, text in enumerate(body["input"])]
            return {"data": vectors, "usage": {"prompt_tokens": 9}, "model": "m-1"}
        text = body["messages"][-1]["content"]
        if "wait" in text:
            self.waits.set()
            self.goes_on.wait(60)
        return chat(f"{text} Because.", usage)

    def asked(self) -> list[dict[str, Any]]:
        """The requests since the last time."""
        asked, self._asked = self._asked, []
        return asked

    def __enter__(self) -> LlmServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.goes_on.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def chat(text: str | None, usage: Any = None, **message: Any) -> dict[str, Any]:
    """An answer as the protocol has it."""
    reason = "tool_calls" if "tool_calls" in message else "stop"
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text, **message}}
    return {"id": "1", "model": "gpt-4o-mini", "choices": [choice], "usage": usage}


def streamed(*texts: str, is_cut: bool = False) -> str:
    """An answer in pieces, as the protocol has it."""
    events = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    if not is_cut:
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + ("" if is_cut else "data: [DONE]\n\n")
