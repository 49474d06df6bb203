"""Haystack with its converter, splitter and store in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from haystack import Document, Pipeline, component
from haystack.components.converters import TextFileToDocument
from haystack.components.preprocessors import DocumentSplitter
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore

from rag.documents import Wordllama


@component
class DocumentEmbedder:
    def __init__(self, model: Wordllama) -> None:
        self.model = model

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        vectors = self.model.embed([(document.content or "").strip() for document in documents])
        return {"documents": [replace(d, embedding=v) for d, v in zip(documents, vectors.tolist())]}


@component
class TextEmbedder:
    def __init__(self, model: Wordllama) -> None:
        self.model = model

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        return {"embedding": self.model.embed([text])[0].tolist()}


def found(folder: Path, questions: list[str], embedder: Wordllama) -> list[str]:
    store = InMemoryDocumentStore(embedding_similarity_function="dot_product")
    indexing = Pipeline()
    indexing.add_component("converter", TextFileToDocument())
    indexing.add_component("splitter", DocumentSplitter(split_by="passage", split_length=1, split_overlap=0))
    indexing.add_component("embedder", DocumentEmbedder(embedder))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("converter", "splitter")
    indexing.connect("splitter", "embedder")
    indexing.connect("embedder", "writer")
    indexing.run({"converter": {"sources": sorted(folder.glob("*.txt"))}})
    asking = Pipeline()
    asking.add_component("embedder", TextEmbedder(embedder))
    asking.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=5))
    asking.connect("embedder", "retriever")
    answers = (asking.run({"embedder": {"text": question}}) for question in questions)
    return [(answer["retriever"]["documents"][0].content or "").strip() for answer in answers]
