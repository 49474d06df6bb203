"""What the demo ``rag.py`` asks: where passages are kept, what makes vectors of them, and a model that answers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sage import Concurrency, Keep, LocalEnvironment, Rate, RemoteEnvironment, Retry, Service
from sage.services import (
    Answer,
    Embedder,
    Hit,
    Ingest,
    Llm,
    LlmEmbedder,
    MiniLmEmbedder,
    Plan,
    Record,
    Sources,
    StaticEmbedder,
    VectorStore,
)

#: Passages the store is asked for; reranking chooses among them.
RETRIEVED = 50
#: What the model is told; answers that are kept belong to it.
PROMPT = (
    "Answer the question in one or two sentences, from the passages alone. If they do not answer it, say that you do "
    f"not know. {Sources.INSTRUCTION}"
)


class Finder(Service):
    """Finds the passages that a question is about. One that is asked again is not looked up."""

    def __init__(self, words: Embedder, model: Any, store: VectorStore, passages: int) -> None:
        self.words = words
        self.model = model
        self.store = store
        self.passages = passages

    def setup(self) -> None:
        self.found: dict[str, list[Hit]] = {}

    def find(self, question: str) -> list[Hit]:
        """The best passages; none if no word of the question is in any."""
        key = " ".join(question.split())
        if key in self.found:
            self.logger.info("asked before: %s", key)
        else:
            vector = self.model.embed_queries([question])[0]
            hits = [] if vector.is_zero() else self.store.search(vector, RETRIEVED)
            self.found[key] = self.words.rerank(question, hits, self.passages)
        return self.found[key]

    def cleanup(self) -> None:
        self.found.clear()


@dataclass
class Services:
    """Handles of the services."""

    #: Knows how rare words are, which reranking and quoting go by; makes vectors, unless there is a model.
    words: Embedder
    #: Makes vectors.
    model: Any
    store: VectorStore
    ingest: Ingest
    finder: Finder

    def embed(self, plan: Plan) -> tuple[list[Record], int, int]:
        """Records of the passages that changed, and how many passages these make with the others, and how many were
        embedded. The words of all are counted."""
        texts = plan.texts
        known = [passage.text_with_heading() for passage in plan.unchanged]
        for text in known if self.model is self.words else known + texts:
            self.words.learn(text)
        vectors = self.model.embed_passages(texts) if texts else []
        # A passage without a single word has no vector, and cannot be found.
        found = sum(not vector.is_zero() for vector in vectors)
        return plan.records(vectors), len(known) + found, len(texts)


@dataclass
class Answered:
    """The answer of a model, and where that stands: what it cites first, or else the best passage that it was shown."""

    text: str
    path: str
    first_line: int
    last_line: int
    coverage: float | None = None
    #: What else it cites.
    notes: list[str] = field(default_factory=list)


#: What a question is answered with; ``None`` if no document answers it.
Told = tuple[str, Answer | Answered | None]


def services(env: LocalEnvironment | RemoteEnvironment, arguments: argparse.Namespace) -> Services:
    """Declares the services. Raises ``OSError`` or ``ValueError`` for files of a model that cannot be used."""
    make: Callable[..., Any]
    settings: dict[str, Any] = {}
    if arguments.embedder == "lexical":
        make = Embedder
    elif arguments.embedder == "openai":
        make = LlmEmbedder
        settings = {"model": arguments.embedder_model, "dimensions": arguments.dimensions}
        settings |= {"base_url": arguments.embedder_url, "api_key": os.environ.get("OPENAI_API_KEY")}
    else:
        make = StaticEmbedder if arguments.embedder == "static" else MiniLmEmbedder
        settings = {"folder": arguments.weights}
    # Made here as well, so that what is wrong with it is told before anything starts.
    made = make(**settings)
    model: Any = env.service("embedder", make, kwargs=settings)
    words = model if make is Embedder else env.service("words", Embedder)

    collection = {"dimensions": made.dimensions, "embedder": made.id, "name": arguments.collection}
    if arguments.store == "embedded":
        store = env.service("store", VectorStore, kwargs={"path": arguments.at, **collection})
    elif arguments.store == "chroma":
        store = env.service("store", VectorStore.chroma, [arguments.at or "http://127.0.0.1:8000"], collection)
    else:
        store = env.service("store", VectorStore.milvus, [arguments.at or "http://127.0.0.1:19530"], collection)
    ingest = env.service("ingest", Ingest, [made.id], after=[store])
    finder = env.service("finder", Finder, [words, model, store, arguments.passages], after=[words, model, store])
    return Services(words, model, store, ingest, finder)


def answering(
    env: LocalEnvironment | RemoteEnvironment, arguments: argparse.Namespace, words: Embedder
) -> Callable[[tuple[str, list[Hit]]], Any]:
    """A function that answers from passages: by a model, if one is to, or in their own words."""
    if arguments.llm == "none":
        return lambda asked: (asked[0], words.answer(*asked))
    llm = env.service(
        "llm",
        Llm,
        [arguments.model],
        {"base_url": arguments.base_url, "api_key": os.environ.get(arguments.key_from)},
        timeout=arguments.timeout,
        retry=Retry(8, first=0.5, longest=8),
        concurrency=Concurrency(arguments.in_flight, adaptive=1),
        pause_on_outage=600,
        rate=Rate(calls=arguments.rpm, per=60) if arguments.rpm else None,
        version=f"{arguments.model}, {PROMPT}",
        journal=arguments.journal,
        keep={"chat": Keep(journal=True, codec="pickle")} if arguments.journal else None,
    )

    async def ask(asked: tuple[str, list[Hit]]) -> Told:
        question, hits = asked
        if not hits:
            return question, None
        sources = Sources(hits)
        messages = [
            {"role": "system", "content": PROMPT},
            {"role": "user", "content": f"{sources.prompt()}Question: {question}"},
        ]
        text = (await llm.chat(messages, temperature=0.0, max_tokens=200)).text
        cited = sources.cited_in(text)
        at = cited.known[0] if cited.known else sources.passages[0]
        notes = [str(citation) for citation in cited.known[1:]]
        notes += [f"[{number}] stands for none of the passages" for number in cited.unknown]
        return question, Answered(text, at.path, at.first_line, at.last_line, notes=notes)

    return ask


def number(most: int) -> Callable[[str], int]:
    """Reads a number from 1 on."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"`{text}` is not a number from 1 to {most}")
        return int(text)

    return read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which services there are."""
    add = parser.add_argument_group("where passages are kept, and what makes vectors of them").add_argument
    openai = "https://api.openai.com/v1"
    add("--store", choices=["embedded", "chroma", "milvus"], default="embedded", help="embedded (in this process)")
    add("--at", metavar="FILE|URL", help="the store's file, which a second run goes on with; or the server's address")
    add("--collection", metavar="NAME", default="passages", help="belongs to one folder of documents (passages)")
    add("--embedder", choices=["lexical", "static", "minilm", "openai"], default="lexical", help="lexical: no model")
    add("--weights", type=Path, metavar="FOLDER", help="the model's files, for static and minilm")
    add("--embedder-url", metavar="URL", default=openai, help="the provider of vectors")
    add("--embedder-model", metavar="NAME", default="text-embedding-3-small", help="the provider's name for it")
    add("--dimensions", type=number(65_536), default=1536, metavar="N", help="of the provider's vectors (1536)")
    add = parser.add_argument_group("answers by a language model").add_argument
    add("--llm", choices=["none", "openai"], default="none", help="have a model answer, by OpenAI's protocol")
    add("--base-url", metavar="URL", default=openai, help="address of the provider")
    add("--model", metavar="NAME", default="gpt-4o-mini", help="the provider's name for the model (gpt-4o-mini)")
    add("--key-from", metavar="VARIABLE", default="OPENAI_API_KEY", help="has the key; if it is not set, none is sent")
    add("--journal", metavar="FOLDER", help="keep answers: the same run makes no call again whose answer it had")
    add("--in-flight", type=number(256), default=8, metavar="CALLS", help="calls at once, 1 to 256 (8)")
    add("--rpm", type=number(1_000_000), metavar="CALLS", help="calls a minute; no limit unless given")
    add("--timeout", type=number(3_600), default=60, metavar="SECONDS", help="what an attempt may take (60)")


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the program if the options do not fit together."""
    if arguments.embedder in ("static", "minilm") and arguments.weights is None:
        parser.error(f"--embedder {arguments.embedder} needs the folder of the model's files: --weights FOLDER")
