"""A chat that remembers: each user has a conversation of their own, and many of them are answered at a time.

    python chat_memory.py < messages.jsonl

Each line is {"user": .., "text": ..}. The model is asked at OPENAI_BASE_URL, with OPENAI_API_KEY.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from openai import OpenAI

from sage import LocalEnvironment, Service

#: How many messages of a conversation the model is given, the latest.
REMEMBERED = 20

#: A conversation is forgotten after so many seconds without a message.
FORGOTTEN_AFTER = 3600.0

Message = dict[str, str]


class Model(Service):
    def setup(self) -> None:
        self.client = OpenAI(max_retries=3, timeout=60)

    def reply(self, messages: list[Message]) -> str:
        model = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
        answer = self.client.chat.completions.create(model=model, messages=messages)  # type: ignore[arg-type]
        return answer.choices[0].message.content or ""

    def cleanup(self) -> None:
        self.client.close()


def main() -> None:
    with LocalEnvironment("chat", config={"on_signal": "finish"}) as env:
        model = env.service("model", Model)

        def answer(said: list[Message], message: dict[str, Any]) -> tuple[list[Message], dict[str, Any]]:
            """Gives the conversation as it is now, and the answer."""
            said = [*said, {"role": "user", "content": message["text"]}][-REMEMBERED:]
            reply = model.reply(said)
            return [*said, {"role": "assistant", "content": reply}], {"user": message["user"], "answer": reply}

        messages = env.from_batch(sys.stdin).map(json.loads, name="parse")
        by_user = messages.keyby(lambda message: message["user"])
        answers = by_user.map_with_state(list, answer, parallelism=8, expire_after=FORGOTTEN_AFTER)
        answers.map(json.dumps).print()
        env.submit(autostop=True)


if __name__ == "__main__":
    main()
