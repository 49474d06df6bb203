"""Stores that are servers, through the public API: of Chroma and Milvus, which `make test-stores` installs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from servers import COMMANDS, ROOT, Server, free_port

from sage import JobFailed, LocalEnvironment
from sage.services import (
    DocumentIndex,
    Embedder,
    OtherCollection,
    Record,
    StoreClosed,
    StoreError,
    StoreUnavailable,
    UnknownCollection,
    VectorStore,
    documents,
    field,
)

NAMES = (f"collection{number}" for number in count())


@pytest.fixture(scope="module", params=list(COMMANDS))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as server:
        yield server


@pytest.fixture(params=list(COMMANDS))
def mortal(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One that a test may kill."""
    with Server(request.param) as server:
        yield server


@pytest.fixture
def name() -> str:
    return next(NAMES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "bees.md").write_text("# Bees\n\nBees keep the hive warm.\n", "utf-8")
    (folder / "clocks.md").write_text("# Clocks\n\nClocks are wound at noon.\n\n# Watches\n\nAre not.\n", "utf-8")
    (folder / "ships.csv").write_text("ship,sails\nAurora,at dawn\n", "utf-8")
    return folder


def ids(hits: Any) -> list[str]:
    return [hit.id for hit in hits]


def test_what_is_stored_is_found_filtered_and_deleted(server: Server, name: str) -> None:
    noon = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)
    values = {"whole": -5, "number": 0.5, "truth": True, "tags": ["a", "b"], "moment": noon, "text": "naïve"}
    records = [
        Record("east", [1.0, 0.0], "to the right", {"turns": 1, **values}),
        Record("north", [0.0, 2.0], "up", {"turns": 0}),
        Record("west", [-1.0, 0.0], metadata={"turns": 3}),
    ]
    with server.open(2, name=name) as store:
        assert (store.count(), store.search([1.0, 0.0]), store.get("east")) == (0, [], None)
        store.upsert_batch(records)
        store.upsert("north-east", [1.0, 1.0], "between")
        assert [(hit.id, round(hit.score, 3)) for hit in store.search([0.1, 1.0], 2)] == [
            ("north", 0.995),
            ("north-east", 0.774),
        ]
        turns = field("turns")
        assert ids(store.search([1.0, 0.0], filter=turns >= 1)) == ["east", "west"]
        assert ids(store.search([1.0, 0.0], 1, filter={"turns": 0})) == ["north"]
        assert ids(store.search([1.0, 0.0], filter=field("tags").contains("b") & (field("moment") == noon))) == ["east"]
        assert ids(store.search([1.0, 0.0], min_score=0.5)) == ["east", "north-east"]
        assert (len(store), store.count(turns.is_in([0, 3])), store.count({"turns": 7})) == (4, 2, 0)
        assert store.get_many(["west", "nowhere", "east"]) == [records[2], None, records[0]]
        store.upsert("north", [0.0, 1.0], "replaced")
        found = store.get("north")
        assert found is not None and (found.text, found.metadata) == ("replaced", {})
        assert (store.delete("west"), store.delete(["west", "nowhere"])) == (1, 0)
        assert (store.delete_where(turns == 1), store.count()) == (1, 2)
        store.persist()
    with server.open(2, name=name, must_exist=True) as store:
        assert sorted(ids(store.search([1.0, 1.0]))) == ["north", "north-east"]
        assert (store.delete_where({}), store.count()) == (2, 0)


def test_what_does_not_fit_is_refused(server: Server, name: str) -> None:
    with server.open(2, name=name, embedder="mine") as store:
        for vector, words in (
            ([1.0], "has 1 dimensions where collection `.*`, made with mine, has 2"),
            ([0.0, 0.0], "zero"),
            ([1.0, float("inf")], "finite"),
        ):
            with pytest.raises(ValueError, match=words):
                store.upsert_batch([("good", [1.0, 0.0]), ("bad", vector)])
            with pytest.raises(ValueError, match=words):
                store.search(vector)
        with pytest.raises(ValueError, match="twice"):
            store.upsert_batch([("a", [1.0, 0.0]), ("a", [0.0, 1.0])])
        assert store.count() == 0
        with pytest.raises(ValueError, match="has no text search"):
            store.search(text="words")
        with pytest.raises(StoreError, match="write a copy; the embedded store does"):
            store.snapshot("copy.sage")
    for settings, words in (
        ({"dimensions": 3, "embedder": "mine"}, "dimensions"),
        ({"dimensions": 2, "embedder": "other"}, "mine"),
        ({"dimensions": 2, "embedder": "mine", "metric": "euclidean"}, "metric"),
    ):
        with pytest.raises(OtherCollection, match=words):
            server.open(name=name, **settings)
    with pytest.raises(UnknownCollection, match=f"no_{name}"):
        server.open(2, name=f"no_{name}", must_exist=True)


@pytest.mark.parametrize("kind", list(COMMANDS))
def test_a_server_that_is_not_there_is_an_outage(kind: str) -> None:
    opens, url = getattr(VectorStore, kind), f"http://127.0.0.1:{free_port()}"
    with pytest.raises(StoreUnavailable, match=f"(?i){kind} at {url}") as raised:
        opens(url, 2)
    assert raised.value.verdict == "outage"
    env = LocalEnvironment("none")
    store = env.service("store", opens, [url, 2])
    env.from_batch([[1.0, 0.0]]).map(store.search).collect()
    with pytest.raises(JobFailed, match="StoreUnavailable"):
        env.submit(autostop=True)


def test_a_store_goes_on_when_its_server_is_there_again(mortal: Server) -> None:
    with mortal.open(2) as store:
        store.upsert("before", [1.0, 0.0])
        mortal.kill()
        for ask in (lambda: store.upsert("lost", [1.0, 0.0]), lambda: store.search([1.0, 0.0]), store.count):
            with pytest.raises(StoreUnavailable) as raised:
                ask()
            assert raised.value.verdict == "outage"
        mortal.restart()
        store.upsert("after", [1.0, 1.0])
        assert ids(store.search([1.0, 0.0])) == ["before", "after"]


def test_a_job_waits_for_a_server_that_was_killed_and_loses_nothing(mortal: Server) -> None:
    half = threading.Event()
    env = LocalEnvironment("stored")
    store = env.service("store", mortal.opens, [mortal.url, 2], retry=3, pause_on_outage=60, concurrency=4)

    def keep(number: int) -> int:
        if number == 40:
            half.set()
        store.upsert(f"{number}", [1.0, float(number)])
        return number

    kept = env.from_batch(range(80)).map(keep, parallelism=2).count()
    counted = kept.map(lambda kept: (kept, store.count())).collect()
    job = env.submit()
    assert half.wait(60)
    mortal.kill()
    mortal.restart()
    job.wait()
    assert counted == [(80, 80)] and job.report.services["store"]["state"] == "cleaned"


def test_the_engine_closes_a_store_once(server: Server, name: str) -> None:
    before = server.connections()
    opened: list[VectorStore] = []

    def make() -> VectorStore:
        opened.append(server.open(2, name=name))
        return opened[-1]

    env = LocalEnvironment("closed")
    store = env.service("store", make)

    def keep(number: int) -> int:
        store.upsert(f"{number}", [1.0, number])
        return server.connections()

    seen = env.from_batch(range(8)).map(keep, parallelism=2).collect()
    job = env.submit(autostop=True)
    assert max(seen) > before and len(opened) == 1
    assert (job.report.data["cleanliness"], job.report.services["store"]["state"]) == ("clean", "cleaned")
    assert server.connections() == before
    with pytest.raises(StoreClosed):
        opened[0].count()
    opened[0].close()


def test_four_writers_lose_nothing(server: Server, name: str) -> None:
    with server.open(2, name=name) as store, ThreadPoolExecutor(4) as pool:

        def write(writer: int) -> None:
            for number in range(10):
                store.upsert_batch((f"{writer}-{number}-{n}", [1.0, float(n)]) for n in range(5))

        list(pool.map(write, range(4)))
        assert store.count() == 200


def test_an_index_of_documents(server: Server, name: str, folder: Path) -> None:
    opens = partial(server.opens, server.url, name=name)
    ran: list[tuple[Any, ...]] = []
    for change in (
        lambda: None,
        lambda: None,
        lambda: (folder / "clocks.md").write_text("# Clocks\n\nClocks are wound at midnight.\n", "utf-8"),
        (folder / "ships.csv").unlink,
    ):
        change()
        with LocalEnvironment("rag") as env:
            index = env.service("index", DocumentIndex, kwargs={"store": opens, "root": folder})
            added = env.from_batch(documents(folder, ["md", "csv"])).map(index.add)
            changed, end = added.collect(), added.count()
            told = end.map(lambda _: (index.sweep(), index.count(), index.answer("When are clocks wound?"))).collect()
            job = env.submit(autostop=True)
        [(swept, passages, answer)] = told
        ran.append((sum(changed), swept, passages, answer and answer.text))
        assert job.report.data["cleanliness"] == "clean"
    assert ran == [
        (4, 0, 4, "Clocks are wound at noon."),
        (0, 0, 4, "Clocks are wound at noon."),
        (1, 1, 3, "Clocks are wound at midnight."),
        (0, 1, 2, "Clocks are wound at midnight."),
    ]
    with DocumentIndex(store=opens, root=folder) as remote, DocumentIndex(root=folder) as here:
        for index in (remote, here):
            index.add(documents(folder, ["md"]))
        for question in ("bees and clocks", "hive", "elephants"):
            assert ids(remote.search(question)) == ids(here.search(question))
        assert ids(remote.search("bees and clocks", 2, {"heading": "Bees"})) == ["bees.md#000000"]
    with pytest.raises(OtherCollection, match=re.escape("lexical-1 (512 dimensions)")):
        DocumentIndex(store=opens, embedder=Embedder(512)).setup()


def test_the_demo_answers_from_it(server: Server, name: str, folder: Path, tmp_path: Path) -> None:
    demo = [sys.executable, str(ROOT / "examples" / "python" / "rag.py"), str(folder), "--collection", name]
    demo += ["-q", "When are clocks wound?", "-q", "When does Aurora sail?", "--report", str(tmp_path / "report.json")]
    ran = []
    for options in ([], *([["--store", server.kind, "--at", server.url]] * 2)):
        subprocess.run([*demo, *options], check=True, capture_output=True, timeout=120)
        told = json.loads((tmp_path / "report.json").read_text("utf-8"))
        ran.append((told["embedded"], told["deleted"], told["answers"]))
    [embedded, first, second] = ran
    assert embedded == first == (4, 0, second[2]) and second[:2] == (0, 0)
