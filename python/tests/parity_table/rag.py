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

from . import run, there


def places(module: str) -> str:
    """The modules that have a class."""
    folders = "sage.libs.rag", "sage.middleware.operators.rag"
    return " ".join(place for folder in folders for place in (f"{folder}.{module}", folder))


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
        (prompt,) = run(lambda env: env.from_batch([record]).map(QAPromptor, {"template": "by:"}))
        assert prompt[1][0]["content"] == "by: one\ntwo"


class Stand(type(sys)):  # type: ignore[misc]
    """Stands for the module `jinja2`."""

    class Template:
        def __init__(self, text: str) -> None:
            self.text = text

        def render(self, external_corpus: str) -> str:
            return f"{self.text} {external_corpus}"


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
