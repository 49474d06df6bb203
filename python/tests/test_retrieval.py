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
    Passage,
    Vector,
    VectorStore,
    documents,
    read_document,
)

STOPPING = "# Stopping\n\nTasks stop first. Services stop in the reverse order.\n\n# Sinks\n\nSinks write."


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
    for cls in (Chunker, Embedder, Field, Filter, Hit, Passage, Vector, VectorStore, DocumentText)
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
    answer = Answer("They stop.", "stop.md", 1, 1, 0.5)
    for value in (vector, passage, answer):
        assert pickle.loads(pickle.dumps(value)) == value
    assert len(pickle.dumps(Embedder(1024).embed("stop"))) < 5000
    chunker = pickle.loads(pickle.dumps(Chunker(20, 30, 10)))
    assert chunker.chunks("stop.md", STOPPING) == Chunker(20, 30, 10).chunks("stop.md", STOPPING)
    text = pickle.loads(pickle.dumps(DocumentText("It stops.", False, "Stops", [0, 3])))
    assert (text.text, text.is_utf8, text.title, text.pages) == ("It stops.", False, "Stops", [0, 3])
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


LONG = "tasks and services stop in the reverse order of their start. " * 4_000


def _long_calls() -> dict[str, Callable[[], Any]]:
    embedder, store, chunker = Embedder(), VectorStore(1024), Chunker()
    vector = embedder.embed_passage(LONG)
    records = [(str(number), vector, LONG[:1_000]) for number in range(500)]
    store.upsert_batch(records)
    hits = store.search(vector, 200)
    return {
        "embed": lambda: embedder.embed(LONG),
        "embed_passage": lambda: embedder.embed_passage(LONG),
        "embed_query": lambda: embedder.embed_query(LONG),
        "rerank": lambda: embedder.rerank("when do services stop", hits),
        "answer": lambda: embedder.answer("when do services stop", hits),
        "search": lambda: store.search(vector, 1),
        "upsert_batch": lambda: store.upsert_batch(records),
        "chunks": lambda: chunker.chunks("a.md", LONG.replace(". ", ".\n")),
    }


@pytest.mark.parametrize(
    "name", ["answer", "chunks", "embed", "embed_passage", "embed_query", "rerank", "search", "upsert_batch"]
)
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
