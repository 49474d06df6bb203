"""Puts a folder of documents into a Chroma database, and answers a question from it.

    python folder_to_chroma.py FOLDER DATABASE QUESTION

Run it again after documents have changed: passages have ids, so that they replace those of the run before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import chromadb

from sage import LocalEnvironment, Service
from sage.services import Chunker, Embedder, Passage, documents, read_document

Vector = Sequence[float] | Sequence[int]


class Store(Service):
    """The database: opened when the job starts, closed when it ends."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def setup(self) -> None:
        self.client = chromadb.PersistentClient(self.folder)
        self.passages = self.client.get_or_create_collection("passages")

    def keep(self, batch: list[tuple[Passage, Vector]]) -> int:
        """Writes many passages at once, which takes little longer than one. Gives their number."""
        self.passages.upsert(
            ids=[passage.id for passage, _ in batch],
            embeddings=[vector for _, vector in batch],
            documents=[passage.text for passage, _ in batch],
            metadatas=[{"path": passage.path, "line": passage.first_line} for passage, _ in batch],
        )
        return len(batch)

    def best(self, vector: Vector) -> str:
        found = self.passages.query(query_embeddings=[vector], n_results=1)
        (text,), (metadata,) = (found["documents"] or [[]])[0], (found["metadatas"] or [[]])[0]
        return f"{metadata['path']}:{metadata['line']}: {text}"

    def cleanup(self) -> None:
        self.client.close()  # type: ignore[attr-defined]


def main() -> None:
    folder, database, question = sys.argv[1:]
    chunker = Chunker()
    with LocalEnvironment("index") as env:
        embedder = env.service("embedder", Embedder)
        store = env.service("store", Store, (database,))

        def passages(path: str) -> list[Passage]:
            return chunker.chunks(str(Path(path).relative_to(folder)), read_document(path).text)

        def embed(passage: Passage) -> tuple[Passage, Vector]:
            return passage, embedder.embed_passage(passage.text_with_heading()).tolist()

        def answer(stored: int) -> str:
            return f"{stored} passages\n{store.best(embedder.embed_query(question).tolist())}"

        paths = env.from_batch(documents(folder, ["md", "txt"]))
        embedded = paths.flatmap(passages, on_error="skip").map(embed, parallelism=2)
        embedded.batch(100).map(store.keep).sum().map(answer).print()
        env.submit(autostop=True)


if __name__ == "__main__":
    main()
