"""The services of ``sage.services``: by themselves, as services of a job, and beside other threads."""

from __future__ import annotations

import doctest
import errno
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sage.services
from sage import LocalEnvironment
from sage.services import (
    Answer,
    Chunker,
    DocumentText,
    Embedder,
    Field,
    Filter,
    Hit,
    Ingest,
    Passage,
    Plan,
    Row,
    Sources,
    Vector,
    VectorStore,
    documents,
    read_document,
)

STOPPING = "# Stopping\n\nTasks stop first. Services stop in the reverse order.\n\n# Sinks\n\nSinks write."
STOPS = Chunker().chunks("stop.md", STOPPING)


class Other:
    """A store of somebody else."""

    def __init__(self, found: list[Any]) -> None:
        self.found = found

    def get_many(self, ids: list[str]) -> list[Any]:
        return self.found


def no_str(argument: str) -> str:
    """What is said of an argument that is no text. Its name is a note, and an exception has notes since 3.11."""
    note = f"\nwhile processing {argument!r}" if sys.version_info >= (3, 11) else ""
    return f"object is not an instance of 'str'{note}"


def test_the_examples_of_the_documentation() -> None:
    finder = doctest.DocTestFinder()
    runner = doctest.DocTestRunner()
    names = {}
    for name in sage.services.__all__:
        known = {**vars(sage.services), "LocalEnvironment": LocalEnvironment}
        for test in finder.find(getattr(sage.services, name), name, globs=known):
            names[test.name] = runner.run(test).attempted
    for test in finder.find(sage.services, "module"):
        names[test.name] = runner.run(test).attempted
    assert runner.summarize().failed == 0
    assert names["Embedder"] and names["VectorStore"] and names["Chunker"] and names["module"]


def documented(name: str) -> list[str]:
    """What the source says of the functions and methods of a name: it is what `help` shows once it is compiled."""
    folder = Path(__file__).parents[2] / "crates" / "sage-python" / "src" / "retrieval"
    says = r"((?:^ *///.*\n)+)(?:^(?! *///|.*\b(?:fn|struct) ).*\n){0,20}^ *(?:pub\(crate\) )?fn (\w+)"
    found = [each for file in folder.glob("*.rs") for each in re.findall(says, file.read_text("utf-8"), re.MULTILINE)]
    return [re.sub(r"^ */// ?", "", text, flags=re.MULTILINE) for text, function in found if function == name]


FUNCTIONS = {"documents", "exact_match", "field", "ndcg_at", "precision_at", "read_document", "recall_at"} | {
    "reciprocal_rank",
    "rouge_l",
    "token_f1",
}
METHODS = {
    name
    for cls in (Chunker, Embedder, Field, Filter, Hit, Ingest, Passage, Plan, Sources, Vector, VectorStore)
    for name, method in vars(cls).items()
    if not name.startswith("_") and callable(method)
}


@pytest.mark.parametrize("name", sorted(METHODS | FUNCTIONS))
def test_every_method_has_an_example_that_does_what_it_says(name: str) -> None:
    told: list[str] = []
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for text in documented(name):
        runner.run(parser.get_doctest(text, vars(sage.services).copy(), name, None, None), out=told.append)
    assert runner.tries > 0 and runner.failures == 0, "".join(told)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Embedder(15), ValueError, "`dimensions` is 16 to 65536, not 15"),
        (lambda: Embedder().embed(" \n"), ValueError, "`text` is empty"),
        (lambda: Embedder().embed_query(""), ValueError, "`text` is empty"),
        (lambda: Embedder().embed_passage("\udfff"), UnicodeEncodeError, "surrogates not allowed"),
        (lambda: Embedder().embed(b"text"), TypeError, f"'bytes' {no_str('text')}"),
        (lambda: Embedder().embed_passages("text"), TypeError, "`texts` is a list of texts, not one text"),
        (lambda: Embedder().embed_queries(["a", " "]), ValueError, "`texts` is empty"),
        (lambda: Embedder().rerank("", []), ValueError, "`question` is empty"),
        (lambda: Embedder().rerank("why", [], 0), ValueError, "`keep` is at least 1, not 0"),
        (lambda: Embedder().rerank("why", 7), TypeError, "`hits` is a list of hits, not int"),
        (lambda: Embedder().rerank("why", ["a"]), TypeError, "a list of hits, not of str, as number 0 is"),
        (lambda: Embedder().answer("why", [], float("nan")), ValueError, "`min_coverage` is 0 to 1, not NaN"),
        (lambda: Embedder().answer("why", [], max_chars=0), ValueError, "`max_chars` is at least 1, not 0"),
        (lambda: Chunker(10, 5), ValueError, "10, 5 and 120 do not fit"),
        (lambda: Chunker(0), ValueError, "`target_chars` is at least 1, not 0"),
        (lambda: Chunker().chunks("a", "text", "pdf"), ValueError, '`format` is markdown, html or text, not "pdf"'),
        (lambda: Chunker.by_tokens(0), ValueError, "`max_tokens` is at least 1, not 0"),
        (lambda: Chunker.by_sentences(5, 5), ValueError, "`overlap_tokens` is less than `max_tokens`: 5 and 5"),
        (lambda: Chunker().chunk_document("a", "text"), TypeError, "'str' object"),
        (lambda: DocumentText("text", format="pdf"), ValueError, '`format` is markdown, html or text, not "pdf"'),
        (lambda: DocumentText("text", rows=[Row((0, 5))]), ValueError, "the text has no bytes (0, 5)"),
        (lambda: DocumentText("é", rows=[Row((0, 1))]), ValueError, "the text has no bytes (0, 1)"),
        (lambda: DocumentText("text", rows=["row"]), TypeError, "`rows` is a list of Row, unlike row"),
        (lambda: Row((0, 1), 3, 2), ValueError, "there are no lines 3 to 2"),
        (lambda: Passage("a", "text", metadata={"at": object()}), TypeError, "not JSON serializable"),
        (lambda: Passage("a", "text", metadata={"number": float("nan")}), ValueError, "metadata is what JSON has"),
        (lambda: Ingest(7), TypeError, "`embedder` is an id, or an object with an `id` and `dimensions`, not int"),
        (lambda: Ingest("mine").plan(VectorStore(2), ["text"]), TypeError, "a list of its passages, unlike str"),
        (lambda: Ingest("mine").plan(VectorStore(2), [7]), TypeError, "a list of its passages, unlike int"),
        (lambda: Ingest("mine").plan(7, []), AttributeError, "get_many"),
        (lambda: Ingest("mine").plan(Other([]), [STOPS]), ValueError, "`get_many` of the store gave 0 records for 2"),
        (lambda: Ingest("mine").plan(Other([7, 7]), [STOPS]), TypeError, "gave int, not a Record"),
        (lambda: Ingest("mine").plan(VectorStore(2), [STOPS]).records([[1, 2]]), ValueError, "has 1 vectors for 2"),
        (lambda: Sources(["text"]), TypeError, "`passages` is a list of passages or hits, not of str"),
        (lambda: Passage("a", "text", 0), ValueError, "there are no lines 0 to 1"),
        (lambda: documents(".", "md"), TypeError, "`extensions` is a list of extensions"),
        (lambda: documents(".", ["md"], 5), TypeError, "`on_error` is a function, not int"),
        (lambda: next(documents("/nowhere/at/all", ["md"])), FileNotFoundError, "/nowhere/at/all"),
        (lambda: read_document("/nowhere/at/all"), FileNotFoundError, "No such file or directory: '/nowhere/at/all'"),
        (lambda: read_document("/"), IsADirectoryError, "'/'"),
        (lambda: read_document("/proc/self/cmdline"), ValueError, "is not text: it holds a zero byte"),
    ],
)
def test_bad_input(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()


def test_vectors_passages_and_answers_are_values() -> None:
    embedder = Embedder(64)
    vector = embedder.embed("Services stop")
    assert len(vector) == 64 and vector[-1] == 0.0 and list(vector) == vector.tolist()
    assert sum(x * x for x in vector) == pytest.approx(1.0) and not vector.is_zero()
    assert vector == Embedder(64).embed("services STOPS") and vector != embedder.embed("sinks")
    for beyond in (64, -65):
        with pytest.raises(IndexError):
            vector[beyond]
    embedder.embed_passage("Services stop")
    assert embedder.passages() == 1 and embedder.embed_query("elephants").is_zero()
    passage = Chunker().chunks("stop.md", STOPPING)[1]
    assert (passage.path, passage.heading, passage.index) == ("stop.md", "Sinks", 1)
    assert (passage.first_line, passage.last_line, passage.text) == (5, 7, "# Sinks\n\nSinks write.")
    assert passage.id == "stop.md#000001" and passage.text_with_heading() == "Sinks\n# Sinks\n\nSinks write."
    assert [len(Chunker().chunks("x", STOPPING, format)) for format in ("markdown", "text", None)] == [2, 1, 1]
    answer = Answer("They stop.", "stop.md", 1, 1, 0.5, (2, 3))
    assert (answer.pages, Answer("", "", 1, 1, 0.5).pages, str(answer)) == ((2, 3), None, "They stop.\n  stop.md:1")
    for value in (vector, passage, answer):
        assert pickle.loads(pickle.dumps(value)) == value
    assert len(pickle.dumps(Embedder(1024).embed("stop"))) < 5000
    chunker = pickle.loads(pickle.dumps(Chunker(20, 30, 10)))
    assert chunker.chunks("stop.md", STOPPING) == Chunker(20, 30, 10).chunks("stop.md", STOPPING)
    for chunker in (Chunker.by_tokens(4, 1), Chunker.by_sentences(9)):
        assert pickle.loads(pickle.dumps(chunker)).chunks("stop.md", STOPPING) == chunker.chunks("stop.md", STOPPING)
    rows = [Row((0, 2), 2, 2, {"row": 1, "deep": {"a": [None]}}), Row((3, 9))]
    text = DocumentText("It stops.", False, "Stops", [0, 3], "markdown", rows)
    assert (text.text, text.is_utf8, text.title, text.pages) == ("It stops.", False, "Stops", [0, 3])
    assert (text.format, text.rows, text.rows[0].metadata["deep"]) == ("markdown", rows, {"a": [None]})
    rowed = Passage("a", "text", metadata={"row": 1})
    for value in (text, rowed, Sources([passage])):
        assert pickle.loads(pickle.dumps(value)) == value
    assert rowed.metadata == {"row": 1} and rowed != Passage("a", "text")
    assert len({passage, pickle.loads(pickle.dumps(passage))}) == 1


def test_documents(tmp_path: Path) -> None:
    files = {"b.md": b"b", "a/z.MD": b"z", "a/c.txt": b"caf\xe9", ".d.md": b"", "target/e.md": b""}
    for name, contents in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(contents)
    found = list(documents(tmp_path, [".md", "txt"]))
    assert found == [str(tmp_path / name) for name in ("a/c.txt", "a/z.MD", "b.md")]
    read = read_document(found[0])
    assert (read.text, read.is_utf8) == ("caf\ufffd", False)
    errors: list[OSError] = []
    assert list(documents(tmp_path / "none", ["md"], on_error=errors.append)) == []
    assert [(error.errno, error.filename) for error in errors] == [(errno.ENOENT, str(tmp_path / "none"))]


def test_documents_with_rows_and_pages_are_cut_by_them(tmp_path: Path) -> None:
    (tmp_path / "stops.csv").write_text("name,order\nsink,first\nservice,last\n", "utf-8")
    (tmp_path / "notes.jsonl").write_text('{"text": "It stops.", "by": "anna"}\n"It starts."\n', "utf-8")
    (tmp_path / "plain.md").write_text("# Stops\n\nIn order.", "utf-8")
    cut = {}
    for name in ("stops.csv", "notes.jsonl", "plain.md"):
        passages = Chunker().chunk_document(name, read_document(tmp_path / name))
        cut[name] = [(passage.text, passage.first_line, passage.metadata) for passage in passages]
    assert cut == {
        "stops.csv": [("name: sink\norder: first", 2, {"row": 1}), ("name: service\norder: last", 3, {"row": 2})],
        "notes.jsonl": [("It stops.", 1, {"by": "anna"}), ("It starts.", 2, {})],
        "plain.md": [("# Stops\n\nIn order.", 1, {})],
    }
    paged = DocumentText("It stops.\nIt starts.", pages=[0, 10])
    assert [each.pages for each in Chunker.by_tokens(2).chunk_document("a.pdf", paged)] == [(1, 1), (2, 2)]
    sources = Sources([Hit("a", 1.0, "It stops."), *Chunker.by_tokens(4).chunk_document("a.pdf", paged)])
    known = sources.cited_in("It stops [2], and starts [1-3].").known
    assert [(str(each), each.number, each.pages) for each in known] == [
        ("a.pdf:1-2 (pages 1-2)", 2, (1, 2)),
        ("a:1", 1, None),
    ]


def run_of(store: Any, embedder: Any, texts: dict[str, str | None]) -> tuple[list[str], int]:
    """Brings the store to what these documents say, of which one may not be readable. Says what was embedded and how
    many passages were deleted."""
    ingest, documents = Ingest(embedder), []
    for path, text in texts.items():
        if text is None:
            ingest.keep(path)
        else:
            documents.append(Chunker().chunks(path, text))
    plan = ingest.plan(store, documents)
    store.upsert_batch(plan.records(embedder.embed_passages(plan.texts)))
    return plan.texts, ingest.sweep(store)


def test_only_what_changed_is_embedded() -> None:
    embedder = Embedder()
    store = VectorStore(embedder=embedder)
    assert run_of(store, embedder, {"stop.md": STOPPING, "tea.md": "Tea is hot."})[1] == 0 and len(store) == 3
    assert run_of(store, embedder, {"stop.md": STOPPING, "tea.md": "Tea is cold."}) == (["Tea is cold."], 0)
    # What stands elsewhere only is stored anew, and not embedded.
    assert run_of(store, embedder, {"stop.md": "\n\n" + STOPPING, "tea.md": None}) == ([], 0)
    assert [hit.passage.first_line for hit in store.search(embedder.embed_query("sinks"), 1)] == [7]
    assert run_of(store, embedder, {"stop.md": "# Stopping\n\nTasks stop first."})[1] == 2 and len(store) == 1
    assert run_of(store, Embedder(512), {}) == ([], 1)
    plan = Ingest(embedder).plan(store, [Chunker().chunks("stop.md", "Tea."), STOPS])
    assert plan.unchanged == [] and repr(plan) == "<Plan: 2 texts to embed, 0 passages unchanged>"
    zero = Vector([0.0] * 1024)
    # A plan may be used again, and what has no direction is left out.
    assert [len(plan.records([vector, zero])) for vector in (zero, embedder.embed("tasks"))] == [0, 1]


def test_ingest_asks_a_store_that_is_a_service() -> None:
    env = LocalEnvironment("ingest")
    embedder = env.service("embedder", Embedder)
    store = env.service("store", VectorStore, kwargs={"embedder": Embedder().id})
    ingest, embedded = Ingest(Embedder().id), []

    def keep(path: str) -> str:
        plan = ingest.plan(store, [Chunker().chunks(path, STOPPING)])
        embedded.append(len(plan.texts))
        if plan.texts:
            store.upsert_batch(plan.records(embedder.embed_passages(plan.texts)))
        return path

    swept = env.from_batch(["a.md", "b.md", "a.md"]).map(keep).count().map(lambda _: ingest.sweep(store)).collect()
    env.submit(autostop=True)
    assert (embedded, swept) == ([2, 2, 0], [0])


LONG = "tasks and services stop in the reverse order of their start. " * 4_000


def _long_calls() -> dict[str, Callable[[], Any]]:
    embedder, store, chunker = Embedder(), VectorStore(1024), Chunker()
    vector = embedder.embed_passage(LONG)
    records = [(str(number), vector, LONG[:1_000]) for number in range(500)]
    store.upsert_batch(records)
    hits = store.search(vector, 200)
    text, ingest = LONG.replace(". ", ".\n"), Ingest(embedder)
    passages = chunker.chunks("a.md", text)
    plan = ingest.plan(store, [passages])
    return {
        "chunk_document": lambda: chunker.chunk_document("a.md", DocumentText(text)),
        "plan": lambda: ingest.plan(store, [passages]),
        "records": lambda: plan.records([vector] * len(passages)),
        "embed": lambda: embedder.embed(LONG),
        "embed_passage": lambda: embedder.embed_passage(LONG),
        "embed_query": lambda: embedder.embed_query(LONG),
        "rerank": lambda: embedder.rerank("when do services stop", hits),
        "answer": lambda: embedder.answer("when do services stop", hits),
        "search": lambda: store.search(vector, 1),
        "upsert_batch": lambda: store.upsert_batch(records),
        "chunks": lambda: chunker.chunks("a.md", LONG.replace(". ", ".\n")),
    }


LONG_CALLS = ["answer", "chunk_document", "chunks", "embed", "embed_passage", "embed_query", "plan", "records"] + [
    "rerank",
    "search",
    "upsert_batch",
]


@pytest.mark.parametrize("name", LONG_CALLS)
def test_other_threads_run_during_a_call(name: str) -> None:
    call = _long_calls()[name]
    wanted = threading.Semaphore(0)
    steps = 0
    over = False

    def beside() -> None:
        nonlocal steps
        while not over:
            wanted.acquire()
            steps += 1

    thread = threading.Thread(target=beside)
    thread.start()
    before = sys.getswitchinterval()
    # From here on no thread is made to give the interpreter up: it changes hands only where one lets it go by itself.
    sys.setswitchinterval(1_000)
    try:
        for _ in range(200):
            wanted.release()
            seen = steps
            call()
            if steps > seen:
                break
        else:
            pytest.fail(f"no other thread ran while `{name}` did")
    finally:
        sys.setswitchinterval(before)
        over = True
        wanted.release()
        thread.join()


def test_other_threads_run_while_a_file_is_read(tmp_path: Path) -> None:
    # The file is a pipe that has no contents until another thread of the same program writes them.
    program = """
import os, sys, threading
from sage.services import read_document
os.mkfifo(sys.argv[1])
def write():
    with open(sys.argv[1], "w") as pipe:
        pipe.write("written meanwhile")
thread = threading.Thread(target=write)
thread.start()
print(read_document(sys.argv[1]).text)
thread.join()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "pipe")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("written meanwhile\n", "")
