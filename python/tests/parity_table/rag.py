"""Steps of retrieval: loaders, retrievers, prompts, language models and measures."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from llm_server import LlmServer

from . import later, run, there


def places(module: str, is_above: bool = True) -> str:
    """The modules that have a class; it is in those above as well, or not."""
    folders = "sage.libs.rag", "sage.middleware.operators.rag"
    return " ".join(place for folder in folders for place in (f"{folder}.{module}", *[folder] * is_above))


@there("QAPromptor", "config=None, enable_profile=False", places("promptor"))
def qa_promptor(QAPromptor: Any) -> None:
    record = {"query": "Why?", "results": [{"text": "one"}, "two"]}
    asked = [record, ("How?", ["three"]), "When?"]
    prompts = run(lambda env: env.from_batch(asked).map(QAPromptor, {"use_short_answer": True}))
    assert [prompt[0] for prompt in prompts] == [record, "How?", "When?"]
    assert [[each["role"] for each in prompt[1]] for prompt in prompts] == [["system", "user"]] * 3
    assert [prompt[1][1]["content"] for prompt in prompts] == [f"Question: {word}?" for word in ("Why", "How", "When")]
    assert "one\ntwo" in prompts[0][1][0]["content"] and "three" in prompts[1][1][0]["content"]
    with patch.dict(sys.modules, jinja2=Stand("jinja2")):
        (prompt,) = run(lambda env: env.from_batch([record]).map(QAPromptor, {"template": "{{ jinja }}"}))
        assert prompt[1][0]["content"] == "{{ jinja }} one\ntwo"


class Stand(type(sys)):  # type: ignore[misc]
    """Stands for the module `jinja2`."""

    class Template:
        def __init__(self, text: str) -> None:
            self.text = text

        def render(self, named: dict[str, str]) -> str:
            return f"{self.text} {named['external_corpus']}"


@there("OpenAIGenerator", "config, enable_profile=False", places("generator"))
def openai_generator(OpenAIGenerator: Any) -> None:
    with LlmServer() as server:
        config = {"model_name": "m", "base_url": server.url, "api_key": "k", "seed": 7, "temperature": 0.5}
        messages = [{"role": "user", "content": "Why?"}]
        asked = [[{"query": "Why?"}, messages], ["Why?", "Why?"], [messages]]
        record, *pairs = run(lambda env: env.from_batch(asked).map(OpenAIGenerator, config))
        assert record.pop("generate_time") > 0
        assert record == {"query": "Why?", "question": "Why?", "generated": "Why? Because."}
        assert pairs == [("Why?", "Why? Because."), (None, "Why? Because.")]
        sent = {"model": "m", "messages": messages, "seed": 7, "temperature": 0.5}
        assert server.asked() == [sent] * 3


@there("HFGenerator", "config, enable_profile=False", places("generator"))
def hf_generator(HFGenerator: Any) -> None:
    with LlmServer() as server:
        config = {"model_name": "m", "base_url": server.url}
        assert run(lambda env: env.from_batch([["Why?", "Why?"]]).map(HFGenerator, config)) == [
            ("Why?", "Why? Because.")
        ]


@there("HuggingFaceGenerator", "config, enable_profile=False", "sage.libs.rag.generator")
def hugging_face_generator(HuggingFaceGenerator: Any) -> None:
    hf_generator(HuggingFaceGenerator)


TEXTS = ["Services stop in the reverse order.", "Tasks stop first.", "Tea is hot."]


def finds(retriever: Any, section: str, **more: Any) -> None:
    """Raises unless what was added is found, by a question in each of its shapes and after the file is opened again."""
    place = {"collection_name": "notes", "persistence_path": tempfile.mkdtemp(), **more}
    config = {"top_k": 1, section: place}
    assert len(set(retriever(config).add_documents(TEXTS))) == 3
    assert retriever(config).add_documents(["Tea is hot."], ["tea"]) == ["tea"]
    asked = [{"query": "hot tea", "n": 1}, ("hot tea", 2), "hot tea"]
    by_mapping, by_pair, alone = run(lambda env: env.from_batch(asked).map(retriever, config))
    for found in (by_mapping, by_pair, alone):
        assert found["retrieved_docs"] == ["Tea is hot."] and found["query"] == "hot tea"
        assert found["results"] == found["retrieval_results"] == [{"text": "Tea is hot."}]
    assert (by_mapping["n"], by_pair["input"], alone["input"]) == (1, ("hot tea", 2), "hot tea")
    info = retriever(config).get_collection_info()
    assert info["backend"] == section.partition("_")[0] and info["document_count"] == 4
    assert info["collection_name"] == "notes" and place["persistence_path"] in info["persistence_path"]


@there("ChromaRetriever", "config, enable_profile=False", places("retriever"))
def chroma_retriever(ChromaRetriever: Any) -> None:
    finds(ChromaRetriever, "chroma")


MILVUS = f"{places('retriever')} sage.libs.rag.milvusRetriever"


@there("MilvusDenseRetriever", "config, enable_profile=False", MILVUS)
def milvus_dense_retriever(MilvusDenseRetriever: Any) -> None:
    finds(MilvusDenseRetriever, "milvus_dense")


@there("MilvusSparseRetriever", "config, enable_profile=False", MILVUS)
def milvus_sparse_retriever(MilvusSparseRetriever: Any) -> None:
    finds(MilvusSparseRetriever, "milvus_sparse", method="bm25")


@there("Wiki18FAISSRetriever", "config, enable_profile=False", places("retriever"))
def wiki18_faiss_retriever(Wiki18FAISSRetriever: Any) -> None:
    refuses(lambda: Wiki18FAISSRetriever({"faiss": {"index_path": "a", "documents_path": "b"}}), "get the index")


@there("BGEReranker", "config, enable_profile=False", places("reranker"))
def bge_reranker(BGEReranker: Any) -> None:
    refuses(lambda: BGEReranker({"model_name": "BAAI/bge-reranker-base"}), "get the weights of a cross-encoder")


def refuses(make: Callable[[], Any], words: str) -> None:
    try:
        make()
    except FileNotFoundError as error:
        assert words in str(error), error
    else:
        raise AssertionError("it was made")


@there("CharacterSplitter", "config=None, enable_profile=False", places("chunk"))
def character_splitter(CharacterSplitter: Any) -> None:
    config = {"chunk_size": 4, "overlap": 1}
    texts = [{"content": "abcdefg"}, {"content": ""}]
    pieces = run(lambda env: env.from_batch(texts).map(CharacterSplitter, config))
    assert pieces == [["abcd", "defg"], [""]]


def loads(loader: Any, name: str, kind: str) -> None:
    path = Path(tempfile.mkdtemp(), name)
    path.write_text("Tea is h\u00f6t.", encoding="utf-8")
    loaded = {"content": "Tea is h\u00f6t.", "metadata": {"source": str(path), "type": kind}}
    assert loader(str(path)) == loaded and loader(path) == loaded


@there("TextLoader", 'filepath, encoding="utf-8"', places("document_loaders"))
def text_loader(TextLoader: Any) -> None:
    loads(lambda path: TextLoader(path).load(), "a.txt", "txt")


@there("MarkdownLoader", "filepath", places("document_loaders"))
def markdown_loader(MarkdownLoader: Any) -> None:
    loads(lambda path: MarkdownLoader(path).load(), "a.md", "md")


@there("PDFLoader", "filepath", places("document_loaders"))
def pdf_loader(PDFLoader: Any) -> None:
    refuses(lambda: PDFLoader("/nowhere/a.pdf").load(), "/nowhere/a.pdf")


@there("DocxLoader", "filepath", places("document_loaders"))
def docx_loader(DocxLoader: Any) -> None:
    refuses(lambda: DocxLoader("/nowhere/a.docx").load(), "/nowhere/a.docx")


@there("LoaderFactory", None, places("document_loaders"))
def loader_factory(LoaderFactory: Any) -> None:
    for name, kind in (("a.txt", "txt"), ("a.MD", "md"), ("a.markdown", "md")):
        loads(LoaderFactory.load, name, kind)


def prints(evaluate: Any, told: str, **record: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(lambda env: env.from_batch([record]).map(evaluate, {})) == [record]
    assert out.getvalue() == told + "\n"


def evaluates(name: str, told: str, **record: Any) -> None:
    """Adds the row of a measure."""
    there(name, "config=None, enable_profile=False", places("evaluate"))(lambda found: prints(found, told, **record))


ANSWER = {"generated": "It is in reverse order.", "references": ["tea", "reverse order"]}
evaluates("F1Evaluate", "[F1] : 0.5714", **ANSWER)
evaluates("RecallEvaluate", "[Recall] : 0.5000", **ANSWER)
evaluates("RougeLEvaluate", "[ROUGE-L] : 0.5714", **ANSWER)
evaluates("BRSEvaluate", "[BRS] : 1.0000", pred="abc", golds=["ab"])
evaluates("AccuracyEvaluate", "[Acc] : 1.0000", **ANSWER)
evaluates("ContextRecallEvaluate", "[Context Recall] : 0.5000", **ANSWER)
evaluates("TokenCountEvaluate", "[Token Count] : 3", retrieval_results=[{"text": "tea is hot"}])
REFINED = {"results": ["tea is hot"], "refining_results": ["hot tea"]}
evaluates("CompressionRateEvaluate", "[Compression Rate] : 1.50\u00d7", **REFINED)
evaluates(
    "LatencyEvaluate",
    "[Retrieve Time] : 1.00s\n[Refine Time]   : 0.00s\n[Generate Time] : 2.00s\n[Total Latency] : 3.00s",
    retrieve_time=1,
    generate_time=2,
)


@there("BertRecallEvaluate", "config=None, enable_profile=False", places("evaluate"))
def bert_recall_evaluate(BertRecallEvaluate: Any) -> None:
    refuses(lambda: BertRecallEvaluate({"model": "bert-base-uncased"}), "nothing is downloaded: get a folder with")


def embedding_places(module: str) -> str:
    return f"sage.common.components.sage_embedding sage.common.components.sage_embedding.{module} " + (
        f"sage.middleware.utils.embedding.{module}"
    )


@there("EmbeddingModel", 'method="default", model=None, **options', embedding_places("embedding_model"))
def embedding_model(EmbeddingModel: Any) -> None:
    mock = EmbeddingModel(method="mockembedder")
    assert (mock.get_dim(), len(mock.embed("a")), mock.encode("a") == mock.embed("a")) == (128, 128, True)
    assert (EmbeddingModel("default").get_dim(), len(EmbeddingModel().embed("tea"))) == (384, 384)
    refuses(lambda: EmbeddingModel("hf", model="sentence-transformers/all-MiniLM-L6-v2"), "nothing is downloaded")
    with LlmServer() as server:
        asked = EmbeddingModel("openai", model="m", base_url=server.url, api_key="k")
        assert asked.get_dim() == len(asked.embed("tea"))
        asked.close()


@there("apply_embedding_model", 'name="default", **options', embedding_places("embedding_api"))
def apply_embedding_model(apply: Any) -> None:
    assert apply("mockembedder").get_dim() == 128 and apply(name="default").get_dim() == 384


EMBEDDING = "sage.common.components.sage_embedding"


@there("get_embedding_model", "method, **options", f"{EMBEDDING} {EMBEDDING}.factory")
def get_embedding_model(get: Any) -> None:
    assert get("hash", dim=256).get_dim() == 256 and len(get(method="mockembedder", dim=8).embed_batch(["a", "b"])) == 2


@there("list_embedding_models", "", f"{EMBEDDING} {EMBEDDING}.factory")
def list_embedding_models(models: Any) -> None:
    names = {"hash", "hf", "openai", "mockembedder", "jina", "zhipu", "cohere", "bedrock", "ollama", "siliconcloud"}
    assert {*names, "nvidia_openai"} <= set(models())
    for row in models().values():
        assert isinstance(row["display_name"], str) and isinstance(row["examples"], list)
        assert isinstance(row["requires_api_key"], bool) and isinstance(row["requires_download"], bool)


@there("check_model_availability", "method, **options", f"{EMBEDDING} {EMBEDDING}.factory")
def check_model_availability(check: Any) -> None:
    assert set(check("hash")) == {"status", "message", "action"}
    with patch.dict("os.environ", {}, clear=True):
        told = {name: check(name)["status"] for name in ("hash", "hf", "openai", "ollama", "word2vec")}
    assert list(told.values()) == ["available", "needs_download", "needs_api_key", "available", "unavailable"]
    assert check("jina", api_key="k")["status"] == "available"
    assert check("hf", model=tempfile.mkdtemp())["status"] == "cached"


@there("EmbeddingService", "config", f"{EMBEDDING} {EMBEDDING}.service")
def embedding_service(EmbeddingService: Any) -> None:
    service = EmbeddingService({"method": "mockembedder", "dimension": 8, "cache_enabled": True})
    service.setup()
    asked = {"task": "embed", "inputs": ["a", "b"], "options": {"return_stats": True}}
    first, again = service.process(asked), service.process(asked)
    assert (first["count"], first["dimension"], first["vectors"]) == (2, 8, again["vectors"])
    assert first["stats"] == {"cached": 0, "computed": 2, "cache_hit_rate": 0.0}
    assert again["stats"] == {"cached": 2, "computed": 0, "cache_hit_rate": 1.0}
    info = service.process({"task": "info"})
    assert (info["method"], info["model"], info["dimension"], info["cache_enabled"]) == ("mockembedder", None, 8, True)
    assert service.process({"task": "get_dimension"}) == {"dimension": 8}
    assert "hash" in [row["name"] for row in service.process({"task": "list_methods"})]
    service.cleanup()


@there("RAGPipeline", "retriever=None, generator=None, reranker=None, refiner=None", places("pipeline", False))
def rag_pipeline(RAGPipeline: Any) -> None:
    class Part:
        def retrieve(self, query: str, n: int) -> list[str]:
            return [query] * n

        def rerank(self, query: str, texts: list[str], n: int) -> list[str]:
            return [*texts, "ranked"]

        def refine(self, query: str, texts: list[str], n: int) -> tuple[str, list[str]]:
            return query.upper(), texts[1:]

        def generate(self, query: str, texts: list[str], n: int) -> str:
            return f"{query} {len(texts)}"

    part = Part()
    result = {"query": "A", "documents": ["a", "ranked"], "response": "A 2"}
    assert RAGPipeline(part, part, part, part).run("a", n=2) == result
    assert RAGPipeline().run("a") == {"query": "a", "documents": [], "response": None}


@there("Query_Profiler", "config=None, enable_profile=False", places("profiler", False))
def query_profiler(QueryProfiler: Any) -> None:
    asked = ["{}", '{"need_joint_reasoning": true, "n_info_items": 2}']
    made = run(lambda env: env.from_batch(asked).map(QueryProfiler, {}))
    assert made == [["map_rerank", [1, 3], 30], ["stuff", [2, 6], 30]]


REFINER = "models of language, which run on a GPU"
later("LongRefinerAdapter", "sage.libs.rag.longrefiner.longrefiner_adapter", REFINER)
