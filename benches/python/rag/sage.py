"""Ours: a job that adds the files to an index of documents, and asks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rag.documents import Wordllama
from sage import LocalEnvironment
from sage.services import Chunker, DocumentIndex, documents

#: Files that are added at once, and replicas that add and ask: some read and store while another embeds.
FILES = 128
REPLICAS = 4


class Embedder:
    def __init__(self, model: Wordllama) -> None:
        self.model = model
        self.id, self.dimensions = model.id, model.dimensions

    def embed_passages(self, texts: list[str]) -> Any:
        return self.model.embed(texts)

    embed_queries = embed_passages


def found(folder: Path, questions: list[str], embedder: Wordllama) -> list[str]:
    env = LocalEnvironment("rag")
    chunker = Chunker(target_chars=1, max_chars=1_000, overlap_chars=0)
    made = {"embedder": Embedder(embedder), "chunker": chunker}
    index = env.service("index", DocumentIndex, kwargs=made)
    added = env.from_batch(documents(folder, ["txt"])).batch(FILES).map(index.add, parallelism=REPLICAS).count()

    def ask(question: str) -> tuple[str, str]:
        return question, index.search(question, 5)[0].text

    found = added.flatmap(lambda _: questions).map(ask, parallelism=REPLICAS).collect()
    env.submit(autostop=True)
    answers = dict(found)
    return [answers[question] for question in questions]
