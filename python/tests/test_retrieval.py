"""The services of ``sage.services``: by themselves, as services of a job, and beside other threads."""

from __future__ import annotations

import array
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
from sage import JobFailed, LocalEnvironment, MapFunction
from sage.services import (
    Answer,
    Chunker,
    DocumentText,
    Embedder,
    Hit,
    Passage,
    StoreFull,
    Vector,
    VectorStore,
    documents,
    read_document,
)

STOPPING = "# Stopping\n\nTasks stop first. Services stop in the reverse order.\n\n# Sinks\n\nSinks write."
NO_RECORD = "a record is a tuple of an id, a vector and a payload, not this"


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
    says = r"((?:^ *///.*\n)+)(?:^ *(?:#\[|signature|text_signature|\)\]).*\n)*^ *(?:pub\(crate\) )?fn (\w+)"
    found = [each for file in folder.glob("*.rs") for each in re.findall(says, file.read_text("utf-8"), re.MULTILINE)]
    return [re.sub(r"^ */// ?", "", text, flags=re.MULTILINE) for text, function in found if function == name]


METHODS = {
    name
    for cls in (Chunker, Embedder, Hit, Passage, Vector, VectorStore, DocumentText)
    for name, method in vars(cls).items()
    if not name.startswith("_") and callable(method)
}


@pytest.mark.parametrize("name", sorted(METHODS | {"documents", "read_document"}))
def test_every_method_has_an_example_that_does_what_it_says(name: str) -> None:
    told: list[str] = []
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for text in documented(name):
        runner.run(parser.get_doctest(text, vars(sage.services).copy(), name, None, None), out=told.append)
    assert runner.tries > 0 and runner.failures == 0, "".join(told)


def test_store() -> None:
    store = VectorStore(2)
    payload = {"any": "object"}
    assert store.upsert("east", [1.0, 0], payload) is False
    assert store.upsert("north", (0.0, 2.0)) is False
    assert store.upsert("north", array.array("f", [0.0, 3.0]), "up") is True
    store.upsert_batch([("west", array.array("d", [-1.0, 0.0]), "left"), ("south", Vector([0.0, -1.0]), "down")])
    hits = store.search([0.1, 1.0], 2)
    assert [(hit.id, round(hit.score, 3)) for hit in hits] == [("north", 0.995), ("east", 0.1)]
    assert hits[1].payload is payload and store.get("east") is payload
    assert store.get("nowhere") is None and store.get("nowhere", 7) == 7
    assert (len(store), store.count(), "west" in store, "nowhere" in store) == (4, 4, True, False)
    assert store.delete("west") == "left" and store.delete("west") is None and len(store) == 3
    assert len(store.search([1.0, 0.0], 2**40)) == 3
    store.clear()
    assert (len(store), store.search([1.0, 0.0], 1)) == (0, [])


def test_payloads_are_released() -> None:
    class Payload: ...

    payload = Payload()
    before = sys.getrefcount(payload)
    store = VectorStore(1)
    for _ in range(2):
        store.upsert("a", [1.0], payload)
    assert sys.getrefcount(payload) == before + 1
    assert [hit.payload for hit in store.search([1.0], 1)] == [payload]
    assert store.delete("a") is payload
    assert sys.getrefcount(payload) == before
    store.upsert_batch([("b", [1.0], payload), ("c", [1.0], payload)])
    store.clear()
    assert sys.getrefcount(payload) == before


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: s.upsert("a", [1.0]), ValueError, "a vector has 1 dimensions where the store has 2"),
        (lambda s: s.upsert("a", [1.0, float("nan")]), ValueError, "coordinate 1 of a vector is not finite"),
        (lambda s: s.upsert("a", [1e300, 0.0]), ValueError, "coordinate 0 of a vector is not finite"),
        (lambda s: s.upsert("a", [0.0, 0.0]), ValueError, "a vector of zeros has no direction"),
        (lambda s: s.upsert("a", [1.0, "2"]), TypeError, "coordinate 1 of a vector is not a number but str"),
        (lambda s: s.upsert("a", [10**400, 1.0]), ValueError, "coordinate 0 of a vector is not finite: it is too"),
        (lambda s: s.upsert("a", "12"), TypeError, "a list or tuple of numbers, or an array of floats, not str"),
        (lambda s: s.upsert("a", None), TypeError, "or an array of floats, not NoneType"),
        (lambda s: s.upsert("a", array.array("i", [1, 2])), TypeError, "an array of floats, not array"),
        (lambda s: s.upsert("a", memoryview(bytes(16)).cast("f", [2, 2])), ValueError, "of one dimension, not of 2"),
        (lambda s: s.upsert("\ud800", [1.0, 0.0]), UnicodeEncodeError, "surrogates not allowed"),
        (lambda s: s.upsert(1, [1.0, 0.0]), TypeError, f"'int' {no_str('id')}"),
        (lambda s: s.search([1.0, 0.0], 0), ValueError, "`k` is at least 1, not 0"),
        (lambda s: s.search([1.0, 0.0], -1), ValueError, "`k` is at least 1, not -1"),
        (lambda s: s.search([1.0, 0.0], 10**30), ValueError, "`k` is at least 1, not 10000"),
        (lambda s: s.search([1.0, 0.0], 2.0), TypeError, "`k` is a whole number, not 2.0"),
        (lambda s: s.search([1.0, 0.0], True), TypeError, "`k` is a whole number, not True"),
        (lambda s: s.search([1.0], 1), ValueError, "a vector has 1 dimensions where the store has 2"),
        (lambda s: s.upsert_batch(7), TypeError, "'int' object is not iterable"),
        (lambda s: s.upsert_batch(["ab"]), TypeError, f"{NO_RECORD} str"),
        (lambda s: s.upsert_batch([("a", [1.0, 0.0])]), TypeError, f"{NO_RECORD} tuple"),
        (lambda s: s.upsert_batch([("a", [1.0, 0.0], 1), ("b", [0.0, 0.0], 2)]), ValueError, "a vector of zeros"),
        (lambda _: VectorStore(0), ValueError, "`dimensions` is 1 to 65536, not 0"),
        (lambda _: VectorStore("2"), TypeError, "`dimensions` is a whole number, not '2'"),
        (lambda _: VectorStore(2, max_records=-1), ValueError, "`max_records` is at least 0, not -1"),
        (lambda _: Embedder(15), ValueError, "`dimensions` is 16 to 65536, not 15"),
        (lambda _: Embedder().embed(" \n"), ValueError, "`text` is empty"),
        (lambda _: Embedder().embed_query(""), ValueError, "`text` is empty"),
        (lambda _: Embedder().embed_passage("\udfff"), UnicodeEncodeError, "surrogates not allowed"),
        (lambda _: Embedder().embed(b"text"), TypeError, f"'bytes' {no_str('text')}"),
        (lambda _: Embedder().rerank("", []), ValueError, "`question` is empty"),
        (lambda _: Embedder().rerank("why", [], 0), ValueError, "`keep` is at least 1, not 0"),
        (lambda _: Embedder().rerank("why", 7), TypeError, "`hits` is a list of hits with passages, not int"),
        (lambda _: Embedder().rerank("why", ["a"]), TypeError, "hits with passages, not of str, as number 0 is"),
        (lambda _: Embedder().answer("why", [Hit("a", 1.0, 5)]), TypeError, "not with int, as number 0 has"),
        (lambda _: Embedder().answer("why", [], float("nan")), ValueError, "`min_coverage` is 0 to 1, not NaN"),
        (lambda _: Embedder().answer("why", [], max_chars=0), ValueError, "`max_chars` is at least 1, not 0"),
        (lambda _: Chunker(10, 5), ValueError, "10, 5 and 120 do not fit"),
        (lambda _: Chunker(0), ValueError, "`target_chars` is at least 1, not 0"),
        (lambda _: Chunker().chunks("a", "text", "pdf"), ValueError, '`format` is markdown, html or text, not "pdf"'),
        (lambda _: Passage("a", "text", 0), ValueError, "there are no lines 0 to 1"),
        (lambda _: documents(".", "md"), TypeError, "`extensions` is a list of extensions"),
        (lambda _: documents(".", ["md"], 5), TypeError, "`on_error` is a function, not int"),
        (lambda _: next(documents("/nowhere/at/all", ["md"])), FileNotFoundError, "/nowhere/at/all"),
        (lambda _: read_document("/nowhere/at/all"), FileNotFoundError, "No such file or directory: '/nowhere/at/all'"),
        (lambda _: read_document("/"), IsADirectoryError, "'/'"),
        (lambda _: read_document("/proc/self/cmdline"), ValueError, "is not text: it holds a zero byte"),
    ],
)
def test_bad_input(call: Callable[[Any], Any], error: type[Exception], words: str) -> None:
    store = VectorStore(2)
    with pytest.raises(error, match=re.escape(words)):
        call(store)
    assert len(store) == 0


def test_a_full_store_says_so() -> None:
    store = VectorStore(1, max_records=1)
    store.upsert("a", [1.0])
    with pytest.raises(StoreFull, match="the store is full: it holds its maximum of 1 records"):
        store.upsert("b", [1.0])
    with pytest.raises(StoreFull):
        store.upsert_batch([("b", [1.0], None)])
    assert store.upsert("a", [2.0]) is True


def test_vectors_passages_and_hits_are_values() -> None:
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
    for value in (vector, passage, Hit("a", 0.5, passage), answer):
        assert pickle.loads(pickle.dumps(value)) == value
    assert len(pickle.dumps(Embedder(1024).embed("stop"))) < 5000
    chunker = pickle.loads(pickle.dumps(Chunker(20, 30, 10)))
    assert chunker.chunks("stop.md", STOPPING) == Chunker(20, 30, 10).chunks("stop.md", STOPPING)
    text = pickle.loads(pickle.dumps(DocumentText("It stops.", False)))
    assert (text.text, text.is_utf8) == ("It stops.", False)
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


def test_as_services_of_a_job() -> None:
    made = VectorStore()

    class Keep(MapFunction):
        def execute(self, passage: Passage) -> int:
            vector = self.call_service("embedder", passage.text_with_heading(), method="embed_passage")
            self.call_service("store", passage.id, vector, passage, method="upsert")
            found = self.call_service("store", vector, 4, method="search")
            assert found[0].payload is passage
            return len(made)

    env = LocalEnvironment("index")
    env.register_service("embedder", Embedder, 1024)
    env.register_service_factory("store", lambda: made)
    counts = env.from_batch(Chunker().chunks("stop.md", STOPPING)).map(Keep).collect()
    job = env.submit(autostop=True)
    assert counts == [1, 2]
    states = {name: service["state"] for name, service in job.report.services.items()}
    assert states == {"embedder": "cleaned", "store": "cleaned"}
    assert len(made) == 0, "`cleanup` was not called"


def test_a_refused_call_fails_the_job() -> None:
    env = LocalEnvironment("wrong")
    store = env.service("store", VectorStore, (2,))
    env.from_batch([[1.0, 2.0], [1.0]]).map(lambda vector: store.search(vector, 1)).collect()
    with pytest.raises(JobFailed, match="a vector has 1 dimensions where the store has 2") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, ValueError)


def test_a_user_class_may_extend_one() -> None:
    class Cleaned(VectorStore):
        hooks: list[str] = []

        def setup(self) -> None:
            self.hooks.append(f"setup of {self.dimensions}")

        def cleanup(self) -> None:
            super().cleanup()
            self.hooks.append(f"cleanup with {len(self)}")

    env = LocalEnvironment("extended")
    store = env.service("store", Cleaned, (2,))
    env.from_batch(["a", "b"]).map(lambda name: store.upsert(name, [1.0, 2.0])).collect()
    env.submit(autostop=True)
    assert Cleaned.hooks == ["setup of 2", "cleanup with 0"]


LONG = "tasks and services stop in the reverse order of their start. " * 4_000


def _long_calls() -> dict[str, Callable[[], Any]]:
    embedder, store, chunker = Embedder(), VectorStore(1024), Chunker()
    vector = embedder.embed_passage(LONG)
    records = [(str(number), vector, Passage("a", LONG[:1_000])) for number in range(500)]
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
