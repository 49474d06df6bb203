"""Asks a model about each line of a file, and goes on where it was ended.

    python jsonl_to_llm.py QUESTIONS.jsonl ANSWERS.jsonl

Each line of QUESTIONS.jsonl has an "id" and a "question". The model is asked at OPENAI_BASE_URL, with OPENAI_API_KEY.
Interrupt it, or let it be killed, and run it again: what is answered is not asked again. Questions that failed for good
are in ANSWERS.jsonl.failed, and the next run asks them once more.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from openai import AsyncOpenAI

from sage import DeadLetterQueue, LocalEnvironment, Service


class Model(Service):
    async def setup(self) -> None:
        self.client = AsyncOpenAI(max_retries=8)  # waits as long as a busy server says

    async def ask(self, question: str) -> str:
        model = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
        answer = await self.client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}]
        )
        return answer.choices[0].message.content or ""

    async def cleanup(self) -> None:
        await self.client.close()


def main() -> None:
    questions, answers = sys.argv[1:]
    with LocalEnvironment("questions") as env:
        model = env.service("model", Model)

        async def ask(record: dict[str, Any]) -> dict[str, Any]:
            return {**record, "answer": await model.ask(record["question"])}

        records = env.from_jsonl(questions, skip_done=answers, key="id")
        failed = DeadLetterQueue(f"{answers}.failed")
        asked = records.map(ask, in_flight=32, timeout=300, ordered=False, on_error=failed)
        asked.to_jsonl(answers, key="id")
        report = env.submit(autostop=True).report
    print(*report.data["notes"], sep="\n")


if __name__ == "__main__":
    main()
