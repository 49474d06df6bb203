"""A server that answers as a model's does, for tests: ``POST /v1/chat/completions`` of OpenAI's interface."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Makes the answer to a conversation, or gives the status of a failure.
Answers = Callable[[list[dict[str, str]]], "str | int"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: Answers

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = type(self).answers(asked["messages"])
        body: dict[str, Any] = {"error": {"message": "the server is busy"}}
        if isinstance(answer, str):
            message = {"role": "assistant", "content": answer}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = {"id": "1", "object": "chat.completion", "created": 0, "model": "test", "choices": [choice]}
        told = json.dumps(body).encode()
        with suppress(ConnectionError):  # who asked may have been killed
            self.send_response(200 if isinstance(answer, str) else answer)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def model_server(answers: Answers) -> Iterator[dict[str, str]]:
    """Runs a server meanwhile; gives the environment variables by which programs find it."""
    handler = type("Handler", (_Handler,), {"answers": staticmethod(answers)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield {"OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1", "OPENAI_API_KEY": "test"}
        finally:
            server.shutdown()
            thread.join()
