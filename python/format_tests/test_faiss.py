"""The step that searches an index of FAISS, on an index that FAISS has made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faiss
import numpy
import pytest

from sage import JobFailed, LocalEnvironment
from sage.common.components.sage_embedding import EmbeddingModel
from sage.libs.rag.retriever import Wiki18FAISSRetriever

TEXTS = ["Services stop in the reverse order.", "Tasks stop first.", "Tea is hot."]


def indexed(folder: Path, texts: list[str] = TEXTS, **more: Any) -> dict[str, Any]:
    """A configuration, with an index of texts and the file of them. An empty line is no text."""
    vectors = numpy.asarray(EmbeddingModel("default").embed_batch(texts), dtype="float32")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / "texts.index"))
    lines = [json.dumps({"id": number, "contents": text}) for number, text in enumerate(texts)]
    (folder / "texts.jsonl").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    place = {"index_path": str(folder / "texts.index"), "documents_path": str(folder / "texts.jsonl")}
    return {"top_k": 2, "faiss": place, **more}


def test_an_index_is_searched_by_replicas_for_every_shape_of_a_question(tmp_path: Path) -> None:
    env = LocalEnvironment("found")
    asked = [{"query": "hot tea", "n": 1}, {"question": "hot tea"}, ("hot tea", 2), "hot tea"]
    found = env.from_batch(asked).map(Wiki18FAISSRetriever, indexed(tmp_path), parallelism=2).collect()
    env.submit(autostop=True)
    assert [each["retrieved_docs"][0] for each in found] == ["Tea is hot."] * 4
    assert [len(each["results"]) for each in found] == [2] * 4
    assert all(each["results"] == each["retrieval_results"] for each in found)
    assert [each.get("n") for each in found].count(1) == 1 and {"hot tea", ("hot tea", 2)} <= {
        each["input"] for each in found if "input" in each
    }


def test_no_more_is_found_than_there_is(tmp_path: Path) -> None:
    retriever = Wiki18FAISSRetriever(indexed(tmp_path, ["Tea is h\u00f6t."], top_k=5))
    assert retriever.execute("tea")["retrieved_docs"] == ["Tea is h\u00f6t."]


def test_an_index_of_another_model_or_of_other_texts_is_refused(tmp_path: Path) -> None:
    config = indexed(tmp_path, embedding={"method": "mockembedder"})
    with pytest.raises(ValueError, match=r"has vectors of 384 dimensions, and is not of mockembedder \(128"):
        Wiki18FAISSRetriever(config)
    config = indexed(tmp_path)
    (tmp_path / "texts.jsonl").write_text('"one"\n"two"\n', encoding="utf-8")
    with pytest.raises(ValueError, match="texts.index has 3 vectors, and .*texts.jsonl 2 texts"):
        Wiki18FAISSRetriever(config)


def test_a_broken_index_fails_the_job_by_its_name(tmp_path: Path) -> None:
    config = indexed(tmp_path)
    (tmp_path / "texts.index").write_bytes(b"no index")
    env = LocalEnvironment("broken")
    env.from_batch(["tea"]).map(Wiki18FAISSRetriever, config).collect()
    with pytest.raises(JobFailed, match="texts.index"):
        env.submit(autostop=True)
