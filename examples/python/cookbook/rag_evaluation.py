"""How good is retrieval? Asks questions whose document is known, and tells how often that document is found.

    python rag_evaluation.py FOLDER QUESTIONS.jsonl

Each line of QUESTIONS.jsonl is {"question": .., "path": ..}; the path is that of the document with the answer, below
FOLDER.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sage import LocalEnvironment
from sage.services import Chunker, Embedder, Passage, VectorStore, documents, read_document

#: A document counts as found if a passage of it is among so many.
FIRST = 3


def ranks(folder: Path, questions: list[dict[str, str]], size: int) -> list[int | None]:
    """For each question, at which place its document comes; `None` if it is not among the first."""
    chunker = Chunker(target_chars=size, max_chars=2 * size, overlap_chars=size // 6)
    # They are used by two jobs, one after the other. Services of a job would be gone when it is over.
    embedder = Embedder()
    store = VectorStore(embedder=embedder)

    def passages(path: str) -> list[Passage]:
        return chunker.chunks(str(Path(path).relative_to(folder)), read_document(path).text)

    def keep(passage: Passage) -> None:
        store.upsert_batch([passage.record(embedder.embed_passage(passage.text_with_heading()))])

    def rank(question: dict[str, str]) -> int | None:
        vector = embedder.embed_query(question["question"])
        # It is all zeros where no passage has a word of the question.
        paths = [] if vector.is_zero() else [hit.passage.path for hit in store.search(vector, FIRST)]
        return paths.index(question["path"]) + 1 if question["path"] in paths else None

    with LocalEnvironment("index") as env:
        env.from_batch(documents(folder, ["md", "txt"])).flatmap(passages).sink(keep, parallelism=2)
        env.submit(autostop=True)
    with LocalEnvironment("ask") as env:
        found: list[int | None] = env.from_batch(questions).map(rank, keep_none=True).collect()
        env.submit(autostop=True)
    return found


def main() -> None:
    folder, file = Path(sys.argv[1]), Path(sys.argv[2])
    questions = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for size in (80, 700):
        found = ranks(folder, questions, size)
        hits = [rank for rank in found if rank is not None]
        reciprocal = sum(1 / rank for rank in hits) / len(found)
        print(f"passages of {size}: {len(hits)} of {len(found)} found, mean reciprocal rank {reciprocal:.2f}")
        for question, rank in zip(questions, found):
            if rank is None:
                print("  not found:", question["question"])


if __name__ == "__main__":
    main()
