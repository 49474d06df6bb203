"""SAGE's classes of retrieval, over the stores: what SAGE documents, and what it gets wrong done right."""

from __future__ import annotations

import array
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sage import LocalEnvironment
from sage.common.components.sage_embedding import EmbeddingModel
from sage.libs.rag.chunk import CharacterSplitter
from sage.libs.rag.document_loaders import DocxLoader, LoaderFactory, PDFLoader, TextLoader
from sage.libs.rag.evaluate import AccuracyEvaluate, F1Evaluate, TokenCountEvaluate
from sage.libs.rag.promptor import QAPromptor
from sage.libs.rag.reranker import BGEReranker
from sage.libs.rag.retriever import ChromaRetriever
from sage.middleware.operators.rag import MilvusDenseRetriever, MilvusSparseRetriever, Wiki18FAISSRetriever
from sage.services import CrossEncoder, Hit, LlmEmbedder, MiniLmEmbedder, StoreUnavailable, VectorStore

TEXTS = ["Services stop in the reverse order.", "Tasks stop first.", "Tea is hot."]
CASES = json.loads(
    (Path(__file__).parents[2] / "crates/sage-services/tests/embed/fixtures/bert.json").read_text("utf-8")
)


def chroma(folder: Path, **more: Any) -> dict[str, Any]:
    return {"top_k": 2, "chroma": {"collection_name": "notes-1", "persistence_path": str(folder), **more}}


def found(retriever: Any, question: str) -> list[str]:
    texts: list[str] = retriever.execute(question)["retrieved_docs"]
    return texts


def test_a_text_that_is_added_again_is_there_once_and_one_with_its_id_is_replaced(tmp_path: Path) -> None:
    retriever = ChromaRetriever(chroma(tmp_path))
    assert retriever.add_documents(TEXTS) == retriever.add_documents(TEXTS)
    assert found(retriever, "When do services stop?")[0] == TEXTS[0]
    retriever.add_documents(["Coffee is hot.", {"text": "Milk is cold."}], ["a", "b"])
    assert retriever.add_documents(["Cocoa is hot."], ["a"]) == ["a"]
    assert set(found(retriever, "hot")) == {"Tea is hot.", "Cocoa is hot."}
    assert found(retriever, "milk") == ["Milk is cold."] + found(retriever, "milk")[1:]
    assert found(retriever, " ") == found(retriever, "?") == []


def test_replicas_and_a_program_share_the_file_and_another_process_finds_it_later(tmp_path: Path) -> None:
    config = chroma(tmp_path)
    filled = ChromaRetriever(config)
    filled.add_documents(TEXTS)
    env = LocalEnvironment("shared")
    results = env.from_batch(["hot tea"] * 8).map(ChromaRetriever, config, parallelism=2).collect()
    env.submit(autostop=True)
    assert [result["retrieved_docs"][0] for result in results] == ["Tea is hot."] * 8
    del filled
    program = "import sys, json; from sage.libs.rag.retriever import ChromaRetriever as R\n"
    program += "print(R(json.loads(sys.argv[1])).execute('hot tea')['retrieved_docs'][0])"
    command = [sys.executable, "-c", program, json.dumps(config)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("Tea is hot.\n", "")


def test_a_file_of_knowledge_is_cut_at_blank_lines_once(tmp_path: Path) -> None:
    file = tmp_path / "knowledge.txt"
    file.write_text("Services stop\nlast.\n\n\n \nTea is hot.\n", encoding="utf-8")
    for _ in range(2):
        retriever = ChromaRetriever(chroma(tmp_path, knowledge_file=str(file)))
        assert found(retriever, "services tea") == ["Tea is hot.", "Services stop\nlast."]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ChromaRetriever(chroma(tmp_path, knowledge_file="/nowhere"))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda _: ChromaRetriever([]), TypeError, "takes its configuration as a mapping"),
        (lambda _: ChromaRetriever({}), ValueError, "`chroma` of `ChromaRetriever` needs a `collection_name`"),
        (lambda p: ChromaRetriever(chroma(p, metadata={"hnsw:space": "dot"})), ValueError, "is cosine, l2 or ip"),
        (lambda p: ChromaRetriever(chroma(p, host="localhost", port=9, force_http=True)), ValueError, "no name of a"),
        (lambda p: ChromaRetriever(chroma(p)).execute({"n": 1}), TypeError, "takes a question"),
        (lambda p: ChromaRetriever(chroma(p)).execute(7), TypeError, "takes a question"),
        (lambda p: ChromaRetriever(chroma(p)).add_documents("one"), TypeError, "`documents` is a list of texts"),
        (lambda p: ChromaRetriever(chroma(p)).add_documents(["a"], []), ValueError, "there are 1 documents, and 0 ids"),
        (lambda _: MilvusDenseRetriever({"milvus_dense": {"metric_type": "X"}}), ValueError, "COSINE, IP or L2"),
        (lambda _: MilvusSparseRetriever({"milvus_sparse": {"collection_name": "a"}}), NotImplementedError, "BGE-M3"),
        (lambda _: Wiki18FAISSRetriever({}), ValueError, "needs an `index_path` and a `documents_path`"),
        (lambda _: EmbeddingModel("word2vec"), ValueError, "knows the methods default, hash, hf, mockembedder, openai"),
        (lambda _: EmbeddingModel("hf"), ValueError, "the method `hf` needs its `model`: a folder with"),
        (lambda _: EmbeddingModel("jina", "m"), ValueError, "needs the `base_url` of a server"),
        (lambda _: BGEReranker({}), FileNotFoundError, "`BAAI/bge-reranker-v2-m3` is no folder here"),
        (lambda _: CharacterSplitter({"chunk_size": 4, "overlap": 4}), ValueError, "less than it, not 4 and 4"),
        (lambda _: CharacterSplitter().execute({"text": "a"}), TypeError, "a text as its `content`"),
        (lambda _: F1Evaluate().execute("text"), TypeError, "`F1Evaluate` takes a mapping"),
        (lambda _: LoaderFactory.load("a.xyz"), ValueError, "ends in .xyz has no loader"),
        (lambda _: TextLoader("/nowhere").load(), FileNotFoundError, "/nowhere"),
    ],
)
def test_errors_are_raised(make: Any, error: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        make(tmp_path)


def test_servers_are_asked_where_the_configuration_says_so(tmp_path: Path) -> None:
    place = {"collection_name": "notes", "host": "127.0.0.1", "port": 9}
    for make in (
        lambda: ChromaRetriever({"chroma": {**place}}),
        lambda: ChromaRetriever({"chroma": {**place, "persistence_path": str(tmp_path), "force_http": True}}),
        lambda: MilvusDenseRetriever({"milvus_dense": {**place}}),
    ):
        with pytest.raises(StoreUnavailable, match="127.0.0.1:9"):
            make()
    ChromaRetriever({"chroma": {**place, "persistence_path": str(tmp_path)}})


def test_vectors_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    first = ChromaRetriever(chroma(tmp_path))
    with pytest.raises(ValueError, match="is open with vectors of lexical-1 .* those of mockembedder"):
        ChromaRetriever({**chroma(tmp_path), "embedding": {"method": "mockembedder"}})
    del first


def test_a_splitter_has_every_character_and_no_piece_within_another() -> None:
    text = "".join(chr(97 + number % 26) for number in range(100))
    for size, overlap in ((10, 0), (10, 3), (7, 6), (100, 5), (200, 5)):
        pieces = CharacterSplitter({"chunk_size": size, "overlap": overlap}).execute({"content": text})
        assert pieces[0] + "".join(piece[overlap:] for piece in pieces[1:]) == text
        assert all(len(piece) == size for piece in pieces[:-1])
        assert len(pieces[-1]) > (overlap if len(pieces) > 1 else 0)
    by_line = CharacterSplitter({"separator": "\n", "chunk_size": 3, "overlap": 0})
    assert by_line.execute("ab\n\ncdef\n") == ["ab", "cde", "f"]
    assert by_line.execute("") == [""]


def test_loaders_read_word_and_pdf_files(tmp_path: Path) -> None:
    names = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as file:
        body = "<w:body><w:p><w:r><w:t>Services stop last.</w:t></w:r></w:p></w:body>"
        file.writestr("word/document.xml", f'<w:document xmlns:w="{names}">{body}</w:document>')
    loaded = LoaderFactory.load(tmp_path / "a.docx")
    assert "Services stop last." in loaded["content"]
    assert loaded["metadata"] == {"source": str(tmp_path / "a.docx"), "type": "docx"}
    (tmp_path / "a.pdf").write_bytes(pdf("Services stop last."))
    loaded = LoaderFactory.load(tmp_path / "a.pdf")
    assert loaded["content"].strip() == "Services stop last."
    assert loaded["metadata"] == {"source": str(tmp_path / "a.pdf"), "type": "pdf", "pages": 1}
    (tmp_path / "a.doc").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(ValueError, match="a Word file of before 2007: save it as .docx"):
        LoaderFactory.load(tmp_path / "a.doc")
    for damaged in ("b.docx", "b.pdf"):
        (tmp_path / damaged).write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match=damaged):
            LoaderFactory.load(tmp_path / damaged)
    with pytest.raises(ValueError, match="`PDFLoader` reads files that end in .pdf"):
        PDFLoader(tmp_path / "a.docx").load()
    with pytest.raises(ValueError, match="`DocxLoader` reads files that end in .docx"):
        DocxLoader(tmp_path / "a.pdf").load()


def pdf(line: str) -> bytes:
    """A file of one page with this line."""
    drawn = f"BT /F1 12 Tf 72 720 Td ({line}) Tj ET".encode()
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn),
    ]
    file, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    rows = b"".join(b"%010d 00000 n \n" % place for place in places)
    table = b"xref\n0 5\n0000000000 65535 f \n" + rows
    return file + table + b"trailer << /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(file)


def test_measures_take_both_names_and_know_nothing_of_case(capsys: pytest.CaptureFixture[str]) -> None:
    F1Evaluate().execute({"pred": "THE order!", "golds": ["order"]})
    F1Evaluate().execute({"generated": "", "references": []})
    TokenCountEvaluate().execute({"compressed_context": "a b", "results": ["c"]})
    pairs = (("It is Paris, France.", "Paris"), ("Parisian", "Paris"), ("of the three", "three ways of it"))
    for answer, reference in pairs:
        AccuracyEvaluate().execute({"generated": answer, "references": [reference]})
    told = capsys.readouterr().out.splitlines()
    assert told == ["[F1] : 1.0000", "[F1] : 0.0000", "[Token Count] : 2"] + [f"[Acc] : {n}.0000" for n in (1, 0, 0)]


def model(folder: Path, name: str) -> dict[str, Any]:
    """Writes the model of a case into a folder, and gives the case."""
    (case,) = [case for case in CASES["cases"] if case["name"] == name]
    header: dict[str, Any] = {}
    data = b""
    for tensor in case["tensors"]:
        values = array.array("f", tensor["values"]).tobytes()
        header[tensor["name"]] = {
            "dtype": "F32",
            "shape": tensor["shape"],
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    told = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(told).to_bytes(8, "little") + told + data)
    for file in ("config", "tokenizer"):
        (folder / f"{file}.json").write_text(json.dumps(case[file]), encoding="utf-8")
    if "max_seq_length" in case:
        told_most = json.dumps({"max_seq_length": case["max_seq_length"]})
        (folder / "sentence_bert_config.json").write_text(told_most, encoding="utf-8")
    return dict(case)


def test_models_in_folders_are_run(tmp_path: Path) -> None:
    (tmp_path / "embeds").mkdir()
    (tmp_path / "scores").mkdir()
    case = model(tmp_path / "embeds", "mean")
    texts = [text for text in CASES["texts"] if text.strip()]
    expected = [row for text, row in zip(CASES["texts"], case["results"]) if text.strip()]
    embedder = MiniLmEmbedder(tmp_path / "embeds", "tiny")
    assert embedder.id.startswith("tiny (12 dimensions, weights ") and embedder.dimensions == 12
    for made, wanted in zip(embedder.embed_passages(texts), expected):
        assert made.tolist() == pytest.approx(wanted, abs=1e-5)
    store = VectorStore(embedder=embedder)
    assert (store.dimensions, store.embedder) == (12, embedder.id)
    named = EmbeddingModel("hf", tmp_path / "embeds")
    assert named.embed(texts[0]) == pytest.approx(expected[0], abs=1e-5) and named.get_dim() == 12

    case = model(tmp_path / "scores", "scores")
    scored = dict(zip(CASES["texts"], [row[0] for row in case["results"]]))
    best = sorted(texts, key=lambda text: -scored[text])
    encoder = CrossEncoder(tmp_path / "scores")
    assert encoder.scores(case["question"], texts) == pytest.approx([scored[text] for text in texts], abs=1e-5)
    hits = encoder.rerank(case["question"], [Hit(text, 0.0, text) for text in texts], 2)
    assert [hit.id for hit in hits] == best[:2]
    reranker = BGEReranker({"model_name": str(tmp_path / "scores"), "top_k": 2})
    assert reranker.execute((case["question"], texts)) == [case["question"], best[:2]]
    record = reranker.execute({"query": case["question"], "results": [{"text": text} for text in texts]})
    assert record == {"query": case["question"], "results": [{"text": text} for text in best[:2]]}


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_models_that_were_downloaded_before_are_found_by_their_names(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"]:
        monkeypatch.delenv(name, raising=False)
    below = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
    below["HOME"] = ".cache/huggingface/hub"
    monkeypatch.setenv(variable, str(tmp_path))
    for name, kind in [("models--tiny--embeds", "mean"), ("models--scores", "scores")]:
        kept = tmp_path / below[variable] / name
        (kept / "snapshots" / "abc").mkdir(parents=True)
        (kept / "refs").mkdir()
        (kept / "refs" / "main").write_text("abc", encoding="utf-8")
        model(kept / "snapshots" / "abc", kind)
    embedder = EmbeddingModel("hf", "tiny/embeds")
    assert embedder.get_dim() == 12 and embedder.id.startswith("embeds (12 dimensions, weights ")
    assert BGEReranker({"model_name": "scores"}).execute(("tea", ["coffee"])) == ["tea", ["coffee"]]
    for missing in ["tiny/other", "../tiny/embeds", "tiny"]:
        with pytest.raises(FileNotFoundError, match=f"the model '{missing}' is no folder here and was not downloaded"):
            EmbeddingModel("hf", missing)


def test_a_collection_may_be_named_beside_the_configuration(tmp_path: Path) -> None:
    place = {"persistence_path": str(tmp_path)}
    retriever = MilvusDenseRetriever({"milvus_dense": place}, collection_name="mine")
    retriever.add_documents(TEXTS)
    info = retriever.get_collection_info()
    assert info == {
        "backend": "milvus", "collection_name": "mine", "document_count": 3,
        "persistence_path": str(tmp_path / "mine.sage"),
    }  # fmt: skip


def test_a_template_has_names_in_braces_and_leaves_others_as_they_are() -> None:
    record = {"original_query": "Why?", "retrieved_context": "Tea is hot.", 7: "seven", "n": 1}
    template = "By {retrieved_context} {n} {7} {unknown} {} {external_corpus} answer {query}{user_query}"
    found, messages = QAPromptor({"template": template}).execute(record)
    assert found is record
    assert messages[0]["content"] == "By Tea is hot. 1 {7} {unknown} {} Tea is hot. answer Why?Why?"
    assert messages[1]["content"] == "Question: Why?"
    pair = QAPromptor({"template": "{context}: {question}"}).execute(("Why?", ["one", "two"]))
    assert pair[1][0]["content"] == "one\ntwo: Why?"
    alone = QAPromptor({"template": "{context}: {question}"}).execute("Why?")
    assert alone[1][0]["content"] == ": Why?"
    with pytest.raises(ValueError, match="needs a `query` or a `question`; the record has"):
        QAPromptor({"template": ""}).execute({"text": "Tea"})


def test_an_embedder_of_a_provider() -> None:
    from llm_server import LlmServer

    with LlmServer((429, {"retry-after": "3"}, {"error": {"message": "slow down"}})) as server:
        embedder = LlmEmbedder("m", 2, server.url, "k")
        with pytest.raises(RuntimeError, match="m has made no vectors: .*429.*slow down") as refused:
            embedder.embed_queries(["tea"])
        assert (refused.value.verdict, refused.value.retry_after) == ("throttled", 3.0)  # type: ignore[attr-defined]
        server.asked()
        (vector,) = embedder.embed_passages(["tea"])
        assert vector.tolist() == pytest.approx([0.9486833, 0.3162278])
        assert server.asked() == [{"model": "m", "input": ["tea"]}]
        embedder.close()
        with pytest.raises(RuntimeError, match="the embedder m .* is closed"):
            embedder.embed_passages(["tea"])
    with LlmServer() as server:
        embedder = LlmEmbedder("m", 3, server.url)
        with pytest.raises(RuntimeError, match="has made a vector of 2 dimensions"):
            embedder.embed_passages(["tea"])
        embedder.close()
