"""Stores of vectors: what they keep, find and refuse; in memory, in a file, and as services of a job."""

from __future__ import annotations

import array
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from sage import JobFailed, LocalEnvironment, MapFunction
from sage.services import (
    Chunker,
    Embedder,
    Field,
    Filter,
    Hit,
    OtherCollection,
    Passage,
    Record,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    UnknownCollection,
    Vector,
    VectorStore,
    field,
)

STOPPING = "# Stopping\n\nTasks stop first. Services stop in the reverse order.\n\n# Sinks\n\nSinks write."
NOON = datetime(2026, 11, 28, 12, 0, 0, 250, tzinfo=timezone(timedelta(hours=2)))


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def test_a_store_finds_what_is_close() -> None:
    store = VectorStore(2)
    store.upsert("east", [1.0, 0])
    store.upsert("north", (0.0, 2.0), "old")
    store.upsert("north", array.array("f", [0.0, 3.0]), "up", {"turns": 0})
    store.upsert_batch(
        [
            ("west", array.array("d", [-1.0, 0.0])),
            ("south", Vector([0.0, -1.0]), "down"),
            ("north-east", [1.0, 1.0], "", {"turns": 1}),
            Record("center", [1.0, 0.001], "here"),
        ]
    )
    hits = store.search([0.1, 1.0], 2)
    assert [(hit.id, round(hit.score, 3), hit.text, hit.metadata) for hit in hits] == [
        ("north", 0.995, "up", {"turns": 0}),
        ("north-east", 0.774, "", {"turns": 1}),
    ]
    assert ids(store.search([1.0, 0.0])) == ["east", "center", "north-east", "north", "south"]
    assert ids(store.search([1.0, 0.0], 6, min_score=0.5)) == ["east", "center", "north-east"]
    found = store.get("north")
    assert found == Record("north", [0.0, 3.0], "up", {"turns": 0}) and found.vector == Vector([0.0, 3.0])
    assert store.get_many(["nowhere", "east"]) == [None, Record("east", [1.0, 0.0])]
    assert (len(store), store.count(), store.get("nowhere")) == (6, 6, None)
    assert (store.delete("west"), store.delete(["west", "south", "nowhere"]), store.delete([])) == (1, 1, 0)
    assert (store.delete_where({}), len(store), store.search([1.0, 0.0])) == (4, 0, [])


def test_each_metric_puts_the_better_first() -> None:
    found = {}
    for metric in ("cosine", "inner_product", "euclidean"):
        store = VectorStore(2, metric=metric)  # type: ignore[arg-type]
        store.upsert_batch([("long", [4.0, 4.0]), ("near", [1.0, 0.5])])
        assert store.metric == metric
        found[metric] = [(hit.id, round(hit.score, 3)) for hit in store.search([1.0, 0.0])]
    assert found == {
        "cosine": [("near", 0.894), ("long", 0.707)],
        "inner_product": [("long", 4.0), ("near", 1.0)],
        "euclidean": [("near", -0.5), ("long", -5.0)],
    }


def test_words_and_vectors_are_searched_together() -> None:
    store = VectorStore(2, text_search=True)
    texts = {"a": "the job manager", "b": "a manager of one job", "c": "tea is hot"}
    store.upsert_batch((id, [1.0, number], text) for number, (id, text) in enumerate(texts.items()))
    assert ids(store.search(text="job manager")) == ["a", "b"]
    assert ids(store.search([1.0, 2.0], text="hot tea", filter=~(field("year") == 1)))[0] == "c"
    assert ids(store.search([1.0, 0.0], 1, text="tea", weights=(1, 0))) == ["a"]
    assert ids(store.search([1.0, 0.0], 1, text="tea", weights=(0, 1))) == ["c"]


def test_values_come_back_as_they_were() -> None:
    metadata = {
        "text": "naïve",
        "whole": -(2**63),
        "number": 0.1,
        "truth": True,
        "moment": NOON,
        "before": datetime(1, 1, 1, tzinfo=timezone.utc),
        "tags": ["a", "b"],
        "none": [],
        "moments": [NOON],
    }
    store = VectorStore(1)
    store.upsert("a", [1.0], metadata=metadata)
    found = store.get("a")
    assert found is not None and found.metadata == metadata
    assert {name: type(value) for name, value in found.metadata.items()} == {
        name: type(value) for name, value in metadata.items()
    }
    assert found.metadata["moment"].tzinfo is timezone.utc
    store.upsert("b", [1.0], metadata={"pair": (1, 2)})
    assert store.search([1.0], filter=field("pair") == [1, 2])[0].metadata == {"pair": [1, 2]}


def test_filters_are_as_python_writes_them() -> None:
    store = VectorStore(1)
    years = {"old": 1999, "new": 2024}
    store.upsert_batch((id, [1.0], "", {"year": year, "tags": [id, "all"], "at": NOON}) for id, year in years.items())
    store.upsert("none", [1.0])
    year, tags = field("year"), field("tags")
    met: list[tuple[Any, list[str]]] = [
        (year == 2024, ["new"]),
        (year != 2024, ["none", "old"]),
        (year < 2024, ["old"]),
        (2024 <= year, ["new"]),
        (2000 > year, ["old"]),
        (year.is_in([1999, 2024.0, 5]), ["new", "old"]),
        (tags.contains("new"), ["new"]),
        (tags.contains("all") & (year > 2000), ["new"]),
        ((year == 1) | ~tags.contains("new"), ["none", "old"]),
        (~~tags.contains("new"), ["new"]),
        (field("at") >= NOON, ["new", "old"]),
        (field("at") > NOON, []),
        ({"year": 1999, "tags": ["old", "all"]}, ["old"]),
        ({}, ["new", "none", "old"]),
        (year == "2024", []),
    ]
    for each, expected in met:
        assert ids(store.search([1.0], filter=each)) == expected, each
        assert store.count(each) == len(expected)
        whole = each if isinstance(each, Filter) else Filter(each)
        assert pickle.loads(pickle.dumps(whole)) == whole
        assert eval(repr(whole), {"field": field, "Filter": Filter, "datetime": __import__("datetime")}) == whole
    assert store.delete_where(year != 2024) == 2 and len(store) == 1
    assert pickle.loads(pickle.dumps(year)).is_in([1]) == year.is_in([1])
    assert (year > 1).is_met_by({"year": 2}) and not (year > 1).is_met_by({})


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: s.upsert("a", [1.0]), ValueError, 'vector of "a" has 1 dimensions where collection `passages` has'),
        (lambda s: s.upsert("a", [1.0, float("nan")]), ValueError, 'coordinate 1 of the vector of "a" is not finite'),
        (lambda s: s.upsert("a", [1e300, 0.0]), ValueError, 'coordinate 0 of the vector of "a" is not finite'),
        (lambda s: s.upsert("a", [0.0, 0.0]), ValueError, 'the vector of "a" is zero'),
        (lambda s: s.upsert("a", [1.0, "2"]), TypeError, "coordinate 1 of a vector is not a number but str"),
        (lambda s: s.upsert("a", [10**400, 1.0]), ValueError, "coordinate 0 of a vector is not finite: it is too"),
        (lambda s: s.upsert("a", "12"), TypeError, "a list or tuple of numbers, or an array of floats, not str"),
        (lambda s: s.upsert("a", None), TypeError, "or an array of floats, not NoneType"),
        (lambda s: s.upsert("a", array.array("i", [1, 2])), TypeError, "an array of floats, not array"),
        (lambda s: s.upsert("a", memoryview(bytes(16)).cast("f", [2, 2])), ValueError, "of one dimension, not of 2"),
        (lambda s: s.upsert("\ud800", [1.0, 0.0]), UnicodeEncodeError, "surrogates not allowed"),
        (lambda s: s.upsert(1, [1.0, 0.0]), TypeError, "'int' object is not an instance of 'str'"),
        (lambda s: s.upsert("", [1.0, 0.0]), ValueError, "as an id, it is empty"),
        (lambda s: s.upsert("a", [1.0, 0.0], "a" * 2**20 + "b"), ValueError, "its text has 1048577 bytes"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", {"a": None}), TypeError, "`a` is NoneType: a value is a str, int"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", {"a": {}}), TypeError, "`a` is dict"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", {"a": [[1]]}), TypeError, "`a` is list"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", {"a": date(2026, 1, 1)}), TypeError, "`a` is date"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", {"a": datetime(2026, 1, 1)}), ValueError, "tzinfo=timezone.utc"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", {"a": [1, "b"]}), ValueError, "holds a string beside a integer"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", {"a": 2**63}), ValueError, "`a` has more than 64 bits"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", {"a": float("inf")}), ValueError, "not a finite number, in `a`"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", {1: 2}), TypeError, "the name of a value is a text, not int"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", {"a b": 2}), ValueError, "the name of a value has 1 to 128 bytes"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", {"sage_a": 2}), ValueError, "are the store's own"),
        (lambda s: s.upsert("a", [1.0, 0.0], "", [1]), TypeError, "metadata is a mapping of names to values, not list"),
        (lambda s: s.search([1.0, 0.0], 0), ValueError, "`k` is 1 to 16384, not 0"),
        (lambda s: s.search([1.0, 0.0], 10**30), ValueError, "`k` is 1 to 16384, not 10000"),
        (lambda s: s.search([1.0, 0.0], 2.0), TypeError, "`k` is a whole number, not 2.0"),
        (lambda s: s.search([1.0, 0.0], True), TypeError, "`k` is a whole number, not True"),
        (lambda s: s.search([1.0], 1), ValueError, 'the vector of "the query" has 1 dimensions'),
        (lambda s: s.search(), TypeError, "a search takes a `vector`, a `text`, or both"),
        (lambda s: s.search(text="a"), ValueError, "its collection has no text search"),
        (lambda s: s.search([1.0, 0.0], weights=(0, 0)), ValueError, "weights are 0 or more, and not both 0"),
        (lambda s: s.search([1.0, 0.0], filter=7), TypeError, "or is a mapping of names to values, not int"),
        (lambda s: s.count(field("a") < [1]), ValueError, "a list has no order, for `a`"),
        (lambda _: field("a") == None, TypeError, "`a` is NoneType"),  # noqa: E711
        (lambda _: field("a") == 1 and field("b") == 2, TypeError, "join filters by `&`, `|` and `~`"),
        (lambda _: field("a").is_in("abc"), TypeError, "`values` is a list of values, not one text"),
        (lambda s: s.upsert_batch(7), TypeError, "'int' object is not iterable"),
        (lambda s: s.upsert_batch(["ab"]), TypeError, "and perhaps a text and metadata, not this str"),
        (lambda s: s.upsert_batch([("a",)]), TypeError, "and perhaps a text and metadata, not this tuple"),
        (lambda s: s.upsert_batch([("a", [1.0, 0.0]), ("b", [0.0, 0.0])]), ValueError, 'the vector of "b" is zero'),
        (lambda s: s.upsert_batch([("a", [1.0, 0.0])] * 2), ValueError, 'a batch has the id "a" twice'),
        (lambda s: s.get_many("a"), TypeError, "`ids` is a list of texts, not one text"),
        (lambda s: s.delete([1]), TypeError, "'int' object is not an instance of 'str'"),
        (lambda _: VectorStore(0), ValueError, "`dimensions` is 1 to 65536, not 0"),
        (lambda _: VectorStore("2"), TypeError, "`dimensions` is a whole number, not '2'"),
        (lambda _: VectorStore(2, max_records=0), ValueError, "`max_records` is 1 to 4000000000, not 0"),
        (lambda _: VectorStore(2, name="a"), ValueError, '"a" is no name of a collection'),
        (lambda _: VectorStore(2, metric="l2"), ValueError, "`metric` is cosine, inner_product or euclidean"),
        (lambda _: VectorStore(2, embedder=Embedder(64)), ValueError, "`dimensions` is 2, but those of lexical"),
        (lambda _: VectorStore(2, embedder=7), TypeError, "an object with an `id` and `dimensions`, not int"),
        (lambda _: VectorStore(2, must_exist=True), UnknownCollection, "memory, where a store is always new"),
        (lambda _: VectorStore.chroma("nowhere", 2), StoreUnavailable, "Chroma at nowhere"),
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
    for full in (lambda: store.upsert("b", [1.0]), lambda: store.upsert_batch([("b", [1.0])])):
        with pytest.raises(StoreFull, match="the store is full: it holds its maximum of 1 records"):
            full()
    store.upsert("a", [2.0])


def test_records_and_hits_are_values() -> None:
    record = Record("a", [1.0, 2.0], "text " * 20, {"moment": NOON})
    hit = Hit("a", 0.5, "text", {"n": 1})
    for value in (record, hit):
        assert pickle.loads(pickle.dumps(value)) == value
    assert record != Record("a", [1.0, 2.0]) and hit != Hit("a", 0.5) and hit != 5
    assert repr(hit) == "Hit('a', 0.500, 'text', {'n': 1})"
    assert repr(Record("a", [1.0], "b" * 50)) == f"Record('a', <Vector of 1: 1>, '{'b' * 40}…', {{}})"
    (passage, _) = Chunker().chunks("stop.md", STOPPING)
    kept = passage.record([1.0])
    assert (kept.id, kept.text, kept.metadata["path"]) == (passage.id, passage.text, "stop.md")
    assert Hit(kept.id, 1.0, kept.text, kept.metadata).passage == passage
    assert Hit("b.md", 1.0, "One.\nTwo.").passage == Passage("b.md", "One.\nTwo.", 1, 2)
    assert isinstance(field("a"), Field)


def test_a_file_keeps_the_store(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.sage"
    embedder = Embedder(64)
    with VectorStore(path=path, embedder=embedder, text_search=True) as store:
        assert (store.path, store.dimensions, store.embedder) == (path, 64, embedder.id)
        store.upsert("a", embedder.embed_passage("Services stop."), "Services stop.")
        store.upsert("b", embedder.embed_passage("Tea."), "Tea.")
        store.delete("b")
        store.persist()
        store.compact()
        store.snapshot(tmp_path / "copy.sage")
        with pytest.raises(StoreError, match=r"copy.sage` cannot be .*exists") as refused:
            store.snapshot(tmp_path / "copy.sage")
        assert isinstance(refused.value.__cause__, FileExistsError)
        assert repr(store) == f"<VectorStore `passages` of 64 dimensions in `{path}`>"
    with pytest.raises(StoreClosed, match="the store of collection `passages` is closed"):
        store.count()
    store.close()
    for file in (path, tmp_path / "copy.sage"):
        with VectorStore(path=file, embedder=embedder, text_search=True, must_exist=True) as again:
            assert ids(again.search(text="stop")) == ["a"] and again.get("b") is None


def test_a_file_of_another_collection_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sage"
    VectorStore(2, path=path, embedder="mini").close()
    for other, words in (
        (lambda: VectorStore(3, path=path), "made with other dimensions: 2 of mini, not 3"),
        (lambda: VectorStore(2, path=path, embedder="large"), "made with other embedder: mini, not large"),
        (lambda: VectorStore(2, path=path, metric="euclidean"), "made with other metric: cosine, not euclidean"),
        (lambda: VectorStore(2, path=path, name="other"), "made with other name: passages, not other"),
    ):
        with pytest.raises(OtherCollection, match=words):
            other()
    with pytest.raises(UnknownCollection, match="there is no collection `passages` in `.*none`"):
        VectorStore(2, path=tmp_path / "none", must_exist=True)
    path.write_bytes(b"This is no store at all, but a text of some length.\n" * 9)
    with pytest.raises(StoreDamaged, match="is damaged at byte 0"):
        VectorStore(2, path=path)
    with pytest.raises(StoreError, match="cannot be") as refused:
        VectorStore(2, path=tmp_path)
    assert isinstance(refused.value.__cause__, OSError)


HOLDS = """
import os, sys
from sage.services import VectorStore
store = VectorStore(2, path=sys.argv[1])
for number in range(1000):
    store.upsert(str(number), [1.0, number])
    print(number, flush=True)
    if number == 20:
        sys.stdin.readline()
        os.kill(os.getpid(), 9)
"""


def test_one_process_at_a_time_has_a_file_and_what_it_wrote_is_there_when_it_is_killed(tmp_path: Path) -> None:
    path = str(tmp_path / "store.sage")
    command = [sys.executable, "-c", HOLDS, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdin is not None
        while other.stdout.readline() != "20\n":
            pass
        with pytest.raises(StoreLocked, match="another process has `.*store.sage` open"):
            VectorStore(2, path=path)
        print(file=other.stdin, flush=True)
    with VectorStore(2, path=path) as store:
        assert len(store) == 21


def test_as_services_of_a_job(tmp_path: Path) -> None:
    made = VectorStore()

    class Keep(MapFunction):
        def execute(self, passage: Passage) -> int:
            vector = self.call_service("embedder", passage.text_with_heading(), method="embed_passage")
            for name in ("store", "kept"):
                self.call_service(name, [passage.record(vector)], method="upsert_batch")
            found = self.call_service("store", vector, 4, filter={"path": "stop.md"}, method="search")
            assert found[0].passage == passage
            return len(made)

    env = LocalEnvironment("index")
    env.register_service("embedder", Embedder, 1024)
    env.register_service_factory("store", lambda: made)
    env.service("kept", VectorStore, kwargs={"path": tmp_path / "store.sage"})
    counts = env.from_batch(Chunker().chunks("stop.md", STOPPING)).map(Keep).collect()
    job = env.submit(autostop=True)
    assert counts == [1, 2]
    states = {name: service["state"] for name, service in job.report.services.items()}
    assert states == {"embedder": "cleaned", "store": "cleaned", "kept": "cleaned"}
    with pytest.raises(StoreClosed):
        len(made)
    assert VectorStore(path=tmp_path / "store.sage").count() == 2


def test_a_store_with_a_policy() -> None:
    env = LocalEnvironment("policy")
    store = env.service("store", VectorStore, (2,), timeout=20, retry=3)
    store_of = env.from_batch(["a", "b"]).map(lambda id: (store.upsert(id, [1.0, 2.0]), store.get(id))[1]).collect()
    job = env.submit(autostop=True)
    assert [record.id for record in store_of] == ["a", "b"]
    assert job.report.services["store"]["calls"] == 4


def test_a_refused_call_fails_the_job() -> None:
    env = LocalEnvironment("wrong")
    store = env.service("store", VectorStore, (2,))
    env.from_batch([[1.0, 2.0], [1.0]]).map(lambda vector: store.search(vector, 1)).collect()
    with pytest.raises(JobFailed, match='the vector of "the query" has 1 dimensions') as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, ValueError)


def test_a_user_class_may_extend_one() -> None:
    class Counted(VectorStore):
        hooks: list[str] = []

        def setup(self) -> None:
            self.hooks.append(f"setup of {self.dimensions}")

        def close(self) -> None:
            self.hooks.append(f"closed with {len(self)}")
            super().close()

    env = LocalEnvironment("extended")
    store = env.service("store", Counted, (2,))
    env.from_batch(["a", "b"]).sink(lambda name: store.upsert(name, [1.0, 2.0]))
    env.submit(autostop=True)
    assert Counted.hooks == ["setup of 2", "closed with 2"]


def test_threads_share_a_store(tmp_path: Path) -> None:
    with VectorStore(2, path=tmp_path / "store.sage") as store:
        failures: list[BaseException] = []

        def write(thread: int) -> None:
            try:
                for number in range(100):
                    id = f"{thread}-{number}"
                    store.upsert(id, [1.0, number], "", {"thread": thread})
                    assert store.get(id) is not None
                    assert store.count({"thread": thread}) == number + 1
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert failures == [] and len(store) == 400


def test_a_server_that_is_not_there_is_an_outage() -> None:
    with pytest.raises(StoreUnavailable, match="Chroma at http://127.0.0.1:9") as refused:
        VectorStore.chroma("http://127.0.0.1:9", 2)
    assert (refused.value.verdict, refused.value.retry_after) == ("outage", None)
