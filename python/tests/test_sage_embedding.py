"""SAGE's service that embeds, and RAG outside a job: what is kept, what is refused, and steps as parts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from llm_server import LlmServer

from sage import LocalEnvironment, MapFunction
from sage.common.components.sage_embedding import EmbeddingModel, EmbeddingService
from sage.libs.rag.generator import OpenAIGenerator
from sage.libs.rag.pipeline import RAGPipeline
from sage.libs.rag.profiler import Query_Profiler
from sage.libs.rag.retriever import ChromaRetriever


def service(**config: Any) -> EmbeddingService:
    made = EmbeddingService({"method": "mockembedder", "dimension": 8, **config})
    made.setup()
    return made


def test_vectors_come_in_the_order_of_the_texts_with_the_length_1_unless_told_otherwise() -> None:
    texts = ["a", "b", "a", "c"]
    made = service(batch_size=2).embed(texts)["vectors"]
    assert made[0] == made[2] != made[1] and all(math.hypot(*vector) == pytest.approx(1.0) for vector in made)
    plain = EmbeddingModel("mockembedder", dim=8).embed_batch(texts)
    assert service(normalize=False).embed(texts)["vectors"] == plain
    assert service().embed(texts, normalize=False)["vectors"] == plain
    assert service().embed([]) == {"vectors": [], "dimension": 8, "count": 0, "method": "mockembedder",
                                   "model": "mockembedder"}  # fmt: skip


def test_as_many_texts_are_kept_as_the_cache_takes() -> None:
    embeds = service(cache_enabled=True, cache_size=2)
    assert embeds.embed(["a", "b", "c"], return_stats=True)["stats"]["computed"] == 3
    assert embeds.get_info()["cache_stats"] == {"size": 2, "capacity": 2}
    stats = embeds.embed(["a", "b", "b", "c"], return_stats=True)["stats"]
    assert stats == {"cached": 3, "computed": 1, "cache_hit_rate": 0.75}
    assert service().embed("a", return_stats=True)["stats"]["cached"] == 0


class Embeds(MapFunction):
    def execute(self, text: str) -> Any:
        return self.call_service("embedding", {"inputs": [text, text]})["vectors"]


def test_a_provider_is_asked_once_for_a_text() -> None:
    with LlmServer() as server:
        config = {"method": "openai", "model": "m", "base_url": server.url, "api_key": "k", "cache_enabled": True}
        env = LocalEnvironment("embedded")
        env.register_service("embedding", EmbeddingService, config)
        found = env.from_batch(["tea", "tea"]).map(Embeds).collect()
        env.submit(autostop=True)
        assert found == [[pytest.approx([0.9486833, 0.3162278])] * 2] * 2
        assert [body["input"] for body in server.asked()].count(["tea"]) == 1


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: EmbeddingService({"batch_size": 0}), ValueError, "`batch_size` of `EmbeddingService` is a number"),
        (lambda: EmbeddingService({"cache_enabled": True, "cache_size": 0}), ValueError, "`cache_size` of"),
        (lambda: EmbeddingService("hash"), TypeError, "takes its configuration as a mapping"),
        (lambda: EmbeddingService({"method": "hash"}).embed("a"), RuntimeError, "is not set up"),
        (lambda: service().process({"task": "embed"}), ValueError, "the task `embed` needs its `inputs`"),
        (lambda: service().process({"task": "fly"}), ValueError, "does embed, info, list_methods and get_dimension"),
        (lambda: EmbeddingService({"model": "tiny/none"}).setup(), FileNotFoundError, "tiny/none"),
        (lambda: Query_Profiler().execute("[]"), TypeError, "takes a mapping, or one as JSON"),
        (lambda: Query_Profiler().execute({"complexity": "high"}), ValueError, "`complexity` is Low or High"),
        (lambda: Query_Profiler().execute({"n_info_items": 7}), ValueError, "`n_info_items` is 1 to 6, not 7"),
        (lambda: Query_Profiler().execute({"summarization_length": 9}), ValueError, "`summarization_length` is 30 to"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_steps_are_the_parts_of_a_pipeline(tmp_path: Path) -> None:
    retriever = ChromaRetriever({"chroma": {"collection_name": "notes", "persistence_path": str(tmp_path)}, "top_k": 2})
    retriever.add_documents(["Services stop last.", "Tea is hot."])

    class Last(MapFunction):
        def execute(self, pair: Any) -> Any:
            return [pair[0], pair[1][-1:]]

    with LlmServer() as server:
        generator = OpenAIGenerator({"model_name": "m", "base_url": server.url, "api_key": "k"})
        made = RAGPipeline(retriever, generator, Last()).run("hot tea")
        (asked,) = server.asked()
        generator.teardown(None)
    assert made["response"] == "Question: hot tea Because." and len(made["documents"]) == 1
    assert made["documents"][0] in asked["messages"][0]["content"]
