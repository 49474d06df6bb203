"""Has a model fill in a form: its answers are checked with pydantic, and asked for again where they are wrong.

    python pydantic_output.py REVIEWS.txt OUT.jsonl

Each line of REVIEWS.txt is a review. The model is asked at OPENAI_BASE_URL, with OPENAI_API_KEY. OUT.jsonl.failed gets
the reviews of which it made no form in three attempts.
"""

from __future__ import annotations

import os
import sys
from typing import Literal

from openai import AsyncOpenAI
from pydantic import BaseModel, Field, ValidationError

from sage import DeadLetterQueue, LocalEnvironment, Retry, Service


class Review(BaseModel):
    product: str
    feeling: Literal["happy", "unhappy", "neither"]
    stars: int = Field(ge=1, le=5)


PROMPT = f"Answer with one JSON object of this schema, and nothing else: {Review.model_json_schema()}"


class Model(Service):
    async def setup(self) -> None:
        self.client = AsyncOpenAI(max_retries=8)  # waits as long as a busy server says

    async def review(self, text: str) -> Review:
        answer = await self.client.chat.completions.create(
            model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
            messages=[{"role": "system", "content": PROMPT}, {"role": "user", "content": text}],
            response_format={"type": "json_object"},
        )
        return Review.model_validate_json(answer.choices[0].message.content or "")

    async def cleanup(self) -> None:
        await self.client.close()


def main() -> None:
    reviews, out = sys.argv[1:]
    again = Retry(3, first=0.5, on=ValidationError)
    with LocalEnvironment("reviews") as env:
        model = env.service("model", Model)

        async def fill_in(review: str) -> Review:
            return await model.review(review)

        failed = DeadLetterQueue(f"{out}.failed")
        forms = env.from_text(reviews).map(fill_in, in_flight=32, timeout=60, retry=again, on_error=failed)
        forms.to_jsonl(out)
        forms.count().map("{} forms".format).print()
        env.submit(autostop=True)


if __name__ == "__main__":
    main()
