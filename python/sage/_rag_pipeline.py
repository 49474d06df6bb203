"""Retrieval and generation outside a job, and what sizes them for a question, as SAGE programs use them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ._arguments import said
from ._functions import MapFunction
from ._rag import QAPromptor


class RAGPipeline:
    """Finds texts for a question and has it answered, without a job. Its parts are steps, such as ``ChromaRetriever``,
    ``BGEReranker`` and ``OpenAIGenerator``, or objects of one's own with ``retrieve(query)``, which gives texts,
    ``rerank(query, texts)``, ``refine(query, texts)``, which gives both, and ``generate(query, texts)``, which gives
    the answer. Each may be left out.

    >>> import tempfile
    >>> from sage.libs.rag.pipeline import RAGPipeline
    >>> from sage.libs.rag.retriever import ChromaRetriever
    >>> config = {"chroma": {"collection_name": "notes", "persistence_path": tempfile.mkdtemp()}, "top_k": 1}
    >>> retriever = ChromaRetriever(config)
    >>> ids = retriever.add_documents(["Services stop last.", "Tea is hot."])
    >>> RAGPipeline(retriever).run("When do services stop?")["documents"]
    ['Services stop last.']
    """

    def __init__(self, retriever: Any = None, generator: Any = None, reranker: Any = None, refiner: Any = None) -> None:
        self.retriever, self.generator, self.reranker, self.refiner = retriever, generator, reranker, refiner

    def run(self, query: str, **options: Any) -> dict[str, Any]:
        """Gives the ``query``, the ``documents`` and the ``response``, ``None`` without a generator. ``options`` go to
        each part that is no step."""
        documents = [] if self.retriever is None else self._found(query, options)
        if self.reranker is not None and documents:
            documents = self._ranked(query, documents, options)
        if self.refiner is not None:
            query, documents = self.refiner.refine(query, documents, **options)
        response = None if self.generator is None else self._answered(query, documents, options)
        return {"query": query, "documents": documents, "response": response}

    def _found(self, query: str, options: dict[str, Any]) -> Any:
        if hasattr(self.retriever, "retrieve"):
            return self.retriever.retrieve(query, **options)
        return self.retriever.execute({"query": query})["retrieved_docs"]

    def _ranked(self, query: str, documents: Any, options: dict[str, Any]) -> Any:
        if hasattr(self.reranker, "rerank"):
            return self.reranker.rerank(query, documents, **options)
        return self.reranker.execute((query, documents))[1]

    def _answered(self, query: str, documents: Any, options: dict[str, Any]) -> Any:
        if hasattr(self.generator, "generate"):
            return self.generator.generate(query, documents, **options)
        return self.generator.execute(QAPromptor().execute((query, documents)))[1]


class Query_Profiler(MapFunction):  # noqa: N801 - SAGE's name
    """Chooses how a question is to be answered, by what a model has said of it: a text of JSON with
    ``need_joint_reasoning`` (false), ``complexity`` (``"Low"`` or ``"High"``), ``n_info_items``, how many facts it
    needs, 1 to 6 (1), and ``summarization_length``, in words, 30 to 200 (30).

    It gives how to make the answer, ``"map_rerank"``, ``"stuff"`` or ``"map_reduce"``, how many texts to find at least
    and at most, and the length.

    >>> from sage.libs.rag.profiler import Query_Profiler
    >>> Query_Profiler().execute('{"need_joint_reasoning": true, "complexity": "High", "n_info_items": 2}')
    ['map_reduce', [2, 6], 30]
    """

    def __init__(self, config: Mapping[str, Any] | None = None, enable_profile: bool = False) -> None:
        super().__init__()

    def execute(self, data: Any) -> list[Any]:
        """Chooses."""
        profile = json.loads(data) if isinstance(data, (str, bytes)) else data
        if not isinstance(profile, Mapping):
            raise TypeError(f"`Query_Profiler` takes a mapping, or one as JSON, not {said(profile)}")
        complexity = profile.get("complexity", "Low")
        if complexity not in ("Low", "High"):
            raise ValueError(f"`complexity` is Low or High, not {said(complexity)}")
        facts = _within(profile, "n_info_items", 1, 1, 6)
        length = _within(profile, "summarization_length", 30, 30, 200)
        is_joint = profile.get("need_joint_reasoning", False)
        method = ("stuff" if complexity == "Low" else "map_reduce") if is_joint else "map_rerank"
        return [method, [facts, 3 * facts], length]


def _within(profile: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = profile.get(name, default)
    if not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"`{name}` is {least} to {most}, not {said(value)}")
    return value
