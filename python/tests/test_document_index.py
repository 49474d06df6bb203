"""``DocumentIndex``: what it embeds, keeps, finds and refuses; by itself and as a service."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sage import JobFailed, LocalEnvironment
from sage.services import (
    Chunker,
    DocumentIndex,
    Embedder,
    OtherCollection,
    StoreClosed,
    VectorStore,
    documents,
    field,
)

STOPS = "# Stops\n\nServices stop in the reverse order of their start."
SINKS = "# Sinks\n\nSinks write files."


class Letters:
    """An embedder of somebody else: it counts three letters."""

    id, dimensions = "letters", 3

    def __init__(self) -> None:
        self.passages: list[str] = []

    def embed_passages(self, texts: list[str]) -> list[list[float]]:
        self.passages += texts
        return self.embed_queries(texts)

    def embed_queries(self, texts: list[str]) -> list[list[float]]:
        return [[float(text.lower().count(letter)) for letter in "skz"] for text in texts]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "stop.md").write_text(STOPS, "utf-8")
    (folder / "sink.md").write_text(SINKS, "utf-8")
    return folder


def test_the_program_of_the_first_screen(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LocalEnvironment("rag") as env:
        index = env.service("index", DocumentIndex, [tmp_path / "docs.sage"])
        stored = env.from_batch(documents(folder, ["md"])).map(index.add).count()
        stored.map(lambda _: index.answer("What is the reverse order?")).print()
        job = env.submit(autostop=True)
    path = folder / "stop.md"
    assert capsys.readouterr().out == f"Services stop in the reverse order of their start.\n  {path}:3\n"
    assert (job.report.services["index"]["state"], job.report.data["cleanliness"]) == ("cleaned", "clean")


def test_only_what_changed_is_embedded(folder: Path, tmp_path: Path) -> None:
    path, embedder = tmp_path / "docs.sage", Letters()
    counts = []
    for change in (
        lambda: None,
        lambda: None,
        lambda: (folder / "stop.md").write_text(STOPS + "\n\n# More\n\nAsk.", "utf-8"),
        lambda: (folder / "stop.md").write_text("\n\n" + STOPS, "utf-8"),
        lambda: os.remove(folder / "sink.md"),
    ):
        change()
        with DocumentIndex(path, embedder=embedder, root=folder) as index:
            counts.append((index.add(documents(folder, ["md"])), index.sweep(), index.count()))
    assert counts == [(2, 0, 2), (0, 0, 2), (1, 0, 3), (0, 1, 2), (0, 1, 1)]
    # Where nothing was added, as in a folder that is not the one meant, nothing is gone.
    with DocumentIndex(path, embedder=embedder, root=folder) as index:
        assert (index.add([]), index.sweep(), index.count()) == (0, 0, 1)
    assert embedder.passages == ["Sinks\n" + SINKS, "Stops\n" + STOPS, "More\n# More\n\nAsk."]


def test_what_cannot_be_read_is_kept_and_the_others_are_stored(folder: Path, tmp_path: Path) -> None:
    path, gone = tmp_path / "docs.sage", folder / "gone.md"
    gone.write_text("# Gone\n\nIt goes.", "utf-8")
    with DocumentIndex(path) as index:
        assert index.add(documents(folder, ["md"])) == 3
    gone.unlink()
    (folder / "new.md").write_text("# New\n\nIt comes.", "utf-8")
    (folder / "zero.md").write_bytes(b"\0")
    with DocumentIndex(path) as index:
        with pytest.raises(FileNotFoundError, match="gone.md"):
            index.add([gone, *documents(folder, ["md"])])
        assert (index.count(), index.sweep()) == (4, 0)
        with pytest.raises(ValueError, match="not text"):
            index.add(folder / "zero.md")
    with DocumentIndex(path) as index:
        assert index.add(folder / "new.md") == 0
        assert (index.sweep(), index.count()) == (3, 1)


def test_an_index_that_is_opened_again_knows_rare_words(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "docs.sage"
    for name in "abc":
        (folder / f"{name}.md").write_text(f"Services and sinks and {name}{name}{name}.", "utf-8")
    found = []
    for _ in range(2):
        with DocumentIndex(path, root=folder) as index:
            index.add(documents(folder, ["md"]))
            hits = index.search("services aaa")
            found.append([(hit.id, hit.score) for hit in hits])
            assert index.answer("elephants?") is None and index.search("elephants?") == []
    # Nothing was embedded, but the words of what is stored were counted.
    assert found[0] == found[1] and found[0][0][0] == "a.md#000000"
    with DocumentIndex(path) as index:
        assert index.search("services aaa", 1)[0].id == "a.md#000000"


def test_a_search_is_filtered(folder: Path) -> None:
    with DocumentIndex(root=folder) as index:
        index.add(documents(folder, ["md"]))
        assert [hit.id for hit in index.search("services and sinks", 1)] == ["sink.md#000000"]
        for filter in (field("path") == "stop.md", {"heading": "Stops"}):
            assert [hit.id for hit in index.search("services and sinks", 2, filter)] == ["stop.md#000000"]


def test_a_path_that_is_given_twice_is_one_document(folder: Path) -> None:
    with DocumentIndex(root=folder) as index:
        assert (index.add([folder / "stop.md", folder / "stop.md"]), index.sweep(), index.count()) == (1, 0, 1)


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.md"
    with open(path, "wb") as file:
        file.write(b"It stops.")
    with DocumentIndex(root=tmp_path) as index:
        assert index.add(os.fsdecode(path)) == 1
        assert index.search("stops")[0].passage.path == "caf\ufffd.md"


def test_rows_and_another_chunker(tmp_path: Path) -> None:
    (tmp_path / "stops.csv").write_text("name,order\nsink,first\nservice,last\n", "utf-8")
    with DocumentIndex(root=tmp_path, chunker=Chunker.by_tokens(2)) as index:
        assert index.add(tmp_path / "stops.csv") == 4
        assert [(hit.text, hit.metadata["row"]) for hit in index.search("last", 1)] == [("order: last", 2)]


def test_answers_of_another_embedder_know_the_words_of_documents(folder: Path) -> None:
    with DocumentIndex(embedder=Letters(), root=folder) as index:
        index.add(documents(folder, ["md"]))
        answer = index.answer("What is the order of services?")
        assert answer is not None and (answer.path, answer.first_line) == ("stop.md", 3)
        assert index.search("ooo") == []


def test_a_store_that_was_given_stays_open(folder: Path) -> None:
    store = VectorStore(embedder=Embedder())
    with DocumentIndex(store=store) as index:
        index.add(folder / "stop.md")
    assert store.count() == 1
    opened: list[VectorStore] = []

    def make(embedder: Any) -> VectorStore:
        opened.append(VectorStore(embedder=embedder))
        return opened[-1]

    with DocumentIndex(store=make) as index:
        index.add(folder / "stop.md")
        assert opened[0].count() == 1
    index.cleanup()
    with pytest.raises(StoreClosed):
        opened[0].count()
    with pytest.raises(ValueError, match="vectors of other"):
        DocumentIndex(store=lambda embedder: VectorStore(embedder="other")).setup()


def test_a_store_that_is_a_service(folder: Path) -> None:
    with LocalEnvironment("rag") as env:
        store = env.service("store", VectorStore, kwargs={"embedder": Embedder().id})
        index = env.service("index", DocumentIndex, kwargs={"store": store}, after=[store])
        stored = env.from_batch(documents(folder, ["md"])).map(index.add).count()
        counts = stored.map(lambda _: (index.sweep(), index.count(), store.count())).collect()
        job = env.submit(autostop=True)
    assert counts == [(0, 2, 2)]
    assert {name: service["state"] for name, service in job.report.services.items()} == {
        "store": "cleaned",
        "index": "cleaned",
    }


def test_threads_share_an_index(folder: Path, tmp_path: Path) -> None:
    paths = [folder / f"{number}.md" for number in range(60)]
    for number, path in enumerate(paths):
        path.write_text(f"# Number {number}\n\nServices stop in reverse order.", "utf-8")
    with DocumentIndex(tmp_path / "docs.sage") as index, ThreadPoolExecutor(4) as pool:
        begun = threading.Barrier(4)

        def ask(number: int) -> list[int]:
            begun.wait()
            return [len(index.search(f"number {number} of services")) for number in range(20)]

        asked = pool.submit(ask, 0)
        changed = [pool.submit(lambda part: (begun.wait(), index.add(part))[1], paths[part::3]) for part in range(3)]
        assert sum(each.result() for each in changed) == 60 and len(asked.result()) == 20
        assert (index.sweep(), index.count()) == (0, 60)


NO_EMBEDDER = "`embedder` is an object with an `id`, `dimensions`, `embed_passages` and `embed_queries`"


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: DocumentIndex("docs.sage", store=VectorStore()), TypeError, "give one of them"),
        (lambda: DocumentIndex(store="docs.sage"), TypeError, "`store` is a VectorStore, or a function that opens one"),
        (lambda: DocumentIndex(embedder="lexical"), TypeError, NO_EMBEDDER),
        (lambda: DocumentIndex(embedder=Embedder), TypeError, NO_EMBEDDER),
        (
            lambda: DocumentIndex(embedder=LocalEnvironment().service("embedder", Embedder)),
            TypeError,
            "no handle of a service, which has methods only",
        ),
        (
            lambda: DocumentIndex(store=VectorStore(embedder=Embedder(512))),
            ValueError,
            "the store has vectors of lexical-1 (512 dimensions), and cannot have those of lexical-1 (1024 dimensions)",
        ),
        (
            lambda: DocumentIndex(store=VectorStore(7), embedder=Letters()),
            ValueError,
            "the vectors of the store have 7 coordinates, and those of letters 3",
        ),
        (lambda: DocumentIndex().add("a.md"), RuntimeError, "the index is not open"),
        (lambda: DocumentIndex().count(), RuntimeError, "the index is not open"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        make()


def test_a_file_of_another_embedder_is_refused(folder: Path, tmp_path: Path) -> None:
    with DocumentIndex(tmp_path / "docs.sage") as index:
        index.add(folder / "stop.md")
    with pytest.raises(OtherCollection, match="letters"), DocumentIndex(tmp_path / "docs.sage", embedder=Letters()):
        pass
    env = LocalEnvironment("other")
    index = env.service("index", DocumentIndex, [tmp_path / "docs.sage"], {"embedder": Letters()})
    env.from_batch(["a"]).map(index.search).collect()
    with pytest.raises(JobFailed, match="letters"):
        env.submit(autostop=True)


def test_an_embedder_that_gives_too_few_vectors_stores_nothing(folder: Path) -> None:
    class Few(Letters):
        def embed_passages(self, texts: list[str]) -> list[list[float]]:
            return []

    with DocumentIndex(embedder=Few()) as index:
        with pytest.raises(ValueError, match="`vectors` has 0 vectors for 1 texts"):
            index.add(folder / "stop.md")
        assert index.count() == 0


def test_a_question_is_not_blank() -> None:
    with DocumentIndex() as index:
        for ask in (index.search, index.answer):
            with pytest.raises(ValueError, match="empty"):
                ask(" ")
        with pytest.raises(ValueError, match="`keep` is at least 1"):
            index.answer("why", 0)
