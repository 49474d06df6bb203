"""SAGE's memory: collections of texts that are found by vectors, by words and along edges, in both of SAGE's forms."""

from __future__ import annotations

import array
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage.common.components.sage_embedding import EmbeddingModel
from sage.middleware.components.sage_mem import (
    BaseMemoryCollection,
    GraphMemoryCollection,
    KVMemoryCollection,
    MemoryManager,
    SimpleGraphIndex,
    VDBMemoryCollection,
)
from sage.middleware.components.sage_mem.services import ParallelVDBService, parallel_insert_to_vdb
from sage.services import OtherCollection

TEXTS = ["Services stop last.", "Tea is hot.", "Milk is cold."]
TOPICS = [{"topic": "stopping"}, {"topic": "drinks", "is": "hot"}, {"topic": "drinks", "is": "cold"}]


def vectors(name: str = "i", model: str | None = "default", dim: int = 64) -> VDBMemoryCollection:
    collection = VDBMemoryCollection({"name": "notes"})
    assert collection.create_index({"name": name, "embedding_model": model, "dim": dim, "backend_type": "FAISS"})
    return collection


def filled() -> VDBMemoryCollection:
    collection = vectors()
    collection.batch_insert_data(TEXTS, TOPICS)
    assert collection.init_index("i") == 3
    return collection


def test_the_form_of_october_has_the_index_embed_the_texts() -> None:
    collection = filled()
    assert collection.retrieve("When do services stop?", "i", topk=1, threshold=0.1) == [TEXTS[0]]
    (found,) = collection.retrieve(raw_data="hot tea", index_name="i", topk=1, threshold=0.1, with_metadata=True)
    assert found.pop("score") == pytest.approx(1.0, abs=0.4)
    assert found == {"text": TEXTS[1], "metadata": TOPICS[1], "id": collection.get_all_ids()[1]}
    assert collection.retrieve("something else altogether", "i") == [], "0.7 is the threshold unless said"
    id = collection.insert("i", "Cocoa is sweet.", {"topic": "drinks"})
    assert collection.insert(raw_data="Cocoa is sweet.", index_name="i", metadata={"topic": "drinks"}) == id
    assert collection.get_all_ids()[3:] == [id]
    assert collection.retrieve("sweet cocoa", "i", 1, 0.5) == ["Cocoa is sweet."]


def test_the_form_of_december_takes_vectors(tmp_path: Path) -> None:
    east, north, west = [1.0, 0.0], array.array("f", [0.0, 2.0]), (-1.0, 0.0)
    collection = vectors("first", None, 2)
    collection.create_index({"name": "second", "dim": 2})
    first = collection.insert("first", "east", east, metadata={"turns": 0})
    collection.insert(content="north", index_names="first", vector=north, metadata={"turns": 1})
    collection.insert(content="both", index_names=["first", "second"], vector=[0.6, 0.8])
    collection.insert("west", "second", west, {"turns": 2})
    collection.insert(index_name="second", raw_data="late", vector=[0.0, -1.0])
    collection.insert("nowhere")
    assert collection.retrieve(query_vector=[0.0, 1.0], index_name="first", threshold=-1.0) == ["north", "both", "east"]
    assert collection.retrieve([1.0, 0.0], "second", threshold=0.0) == ["both", "late"]
    assert collection.retrieve(query=[-1.0, 0.0], index_name="second", top_k=1) == ["west"]
    assert len(collection.get_all_ids()) == 6
    assert collection.init_index("second", [east], [first]) == 1
    assert collection.retrieve([1.0, 0.0], "second", 1) == ["east"]
    assert collection.init_index("second", vectors=[[0.0, 1.0]], item_ids=[first]) == 1
    assert collection.retrieve([1.0, 0.0], "second", 1, 0.9) == []


def test_each_index_has_an_embedder_of_its_own() -> None:
    collection = vectors("words", "default", 64)
    collection.create_index({"name": "noise", "embedding_model": "mockembedder", "dim": 128, "description": "d"})
    id = collection.insert(content="hot tea", index_names=["words", "noise"])
    assert collection.retrieve("tea that is hot", "words", threshold=0.3) == ["hot tea"]
    assert collection.retrieve("tea that is hot", "noise", threshold=0.3) == []
    assert collection.retrieve(EmbeddingModel("mockembedder").embed("hot tea"), "noise", threshold=0.99) == ["hot tea"]
    assert collection.list_index("noise") == [{"name": "noise", "description": "d"}]
    assert [each["name"] for each in collection.list_index()] == ["words", "noise"]
    assert collection.index_info["noise"]["dim"] == 128
    collection.delete_index("noise")
    assert collection.get_all_ids() == [id] and [each["name"] for each in collection.list_index()] == ["words"]


def test_a_filter_is_a_function_or_a_mapping_and_leaves_no_result_out_that_is_farther_away() -> None:
    collection = vectors(model=None, dim=2)
    texts = [f"text {number}" for number in range(300)]
    ids = collection.batch_insert_data(texts, [{"number": number, "odd": number % 2 == 1} for number in range(300)])
    collection.init_index("i", [[1.0, number / 100] for number in range(300)], ids)

    def found(**asked: Any) -> list[str]:
        found: list[str] = collection.retrieve([1.0, 0.0], "i", threshold=0.0, **asked)
        return found

    assert found(topk=2) == texts[:2]
    assert found(topk=2, metadata_filter_func=lambda m: m["number"] >= 297) == texts[297:299], "the farthest"
    assert found(topk=2, metadata_filter=lambda m: m["odd"]) == [texts[1], texts[3]]
    assert found(metadata_filter={"number": 250}) == found(number=250) == [texts[250]]
    assert found(filter={"number": 251}) == found(filter=lambda m: m["number"] == 251) == [texts[251]]
    assert found(topk=5, metadata_filter=lambda m: m["number"] > 200, odd=True, number=299) == [texts[299]]
    assert found(number=300) == found(metadata_filter=lambda _: False) == []
    assert found(topk=300, odd=True) == texts[1::2]


def test_what_is_stored_can_be_put_into_an_index_later_and_by_a_filter() -> None:
    collection = vectors()
    collection.batch_insert_data(TEXTS, TOPICS)
    assert collection.init_index("i", lambda metadata: metadata["topic"] == "drinks") == 2
    assert collection.retrieve("services stop", "i", threshold=0.2) == []
    assert collection.init_index("i") == 1, "the others are in it"
    assert collection.retrieve("services stop", "i", threshold=0.2) == [TEXTS[0]]
    assert collection.update_index("i", topic="stopping") == 1
    assert collection.retrieve("hot tea", "i", threshold=0.2) == []
    assert collection.get_statistics()["index_stats"]["i"]["vector_count"] == 1


def test_a_text_with_other_metadata_is_another_item_and_delete_takes_all_with_a_text() -> None:
    collection = vectors()
    first = collection.insert("i", "Tea?", {"answer": "hot"})
    second = collection.insert("i", "Tea?", {"answer": "green"})
    assert first != second and collection.insert("i", "Tea?") == first, "without metadata it is the one that is there"
    assert collection.insert("i", "Tea?", {"answer": "green"}) == second
    found = collection.retrieve("tea", "i", threshold=0.1, with_metadata=True)
    assert sorted(each["metadata"]["answer"] for each in found) == ["green", "hot"]
    assert collection.delete(second) == 1 and collection.get_all_ids() == [first]
    collection.insert("i", "Tea?", {"answer": "green"})
    assert collection.delete("Tea?") == 2 and collection.delete("Tea?") == 0
    assert collection.get_all_ids() == collection.retrieve("tea", "i", threshold=0.0) == []
    assert collection.get_statistics()["total_vectors_stored"] == 0


def test_an_update_replaces_a_text_and_its_vector() -> None:
    collection = filled()
    id = collection.update("i", TEXTS[1], "Coffee is hot.", {"topic": "coffee"})
    assert collection.get_all_ids()[2:] == [id] and collection.metadata_storage.get(id) == {"topic": "coffee"}
    assert collection.retrieve("tea", "i", threshold=0.3) == []
    assert collection.retrieve("coffee", "i", threshold=0.3) == ["Coffee is hot."]
    assert collection.metadata_storage.get(collection.update("i", id, "Mocha.")) == {"topic": "coffee"}
    with_vector = vectors(model=None, dim=2)
    with_vector.insert("i", "east", [1.0, 0.0])
    with_vector.update("i", "east", "north", {"turns": 1}, [0.0, 1.0])
    assert with_vector.retrieve([0.0, 1.0], "i", with_metadata=True)[0]["metadata"] == {"turns": 1}
    with pytest.raises(ValueError, match="has no text 'south'"):
        with_vector.update("i", "south", "north", [0.0, 1.0])


def test_texts_and_metadata_are_read_and_changed_by_their_ids() -> None:
    collection = filled()
    id = collection._get_stable_id(TEXTS[1])
    assert id == collection.get_all_ids()[1] and collection.text_storage.has(id)
    collection.text_storage.store(id, "Coffee is hot.")
    collection.add_metadata_field("version")
    collection.metadata_storage.store(id, {"version": 2})
    assert collection.retrieve("coffee", "i", threshold=0.3, with_metadata=True)[0]["metadata"] == {"version": 2}
    assert collection.retrieve("tea", "i", threshold=0.3) == [], "the vector is of the new text"
    assert collection.delete("Tea is hot.") == 0 and collection.delete("Coffee is hot.") == 1
    assert (collection.text_storage.get(id), collection.metadata_storage.get(id)) == ("", {})
    assert collection.filter_ids(collection.get_all_ids(), topic="drinks") == collection.get_all_ids()[1:]
    assert collection.metadata_storage.has_field("topic") and not collection.metadata_storage.has_field("version")
    collection.metadata_storage.delete(collection.get_all_ids()[0])
    assert collection.metadata_storage.get_all_ids() == collection.get_all_ids()[1:]
    given = vectors(model=None, dim=2)
    id = given.insert("i", "east", [1.0, 0.0])
    given.text_storage.store(id, "north")
    assert given.retrieve([1.0, 0.0], "i") == [], "a vector of another text is gone"
    given.clear()
    assert given.get_all_ids() == given.text_storage.get_all_ids() == []


def test_statistics_count_what_was_done() -> None:
    collection = filled()
    collection.insert("i", "Cocoa is sweet.")
    for text in ("tea", "milk"):
        collection.retrieve(text, "i", topk=1, threshold=0.0)
    collection.update_index("i")
    told = collection.get_statistics()
    assert {name: told[name] for name in told if name.endswith("count")} == {
        **{"insert_count": 1, "retrieve_count": 2, "index_create_count": 1, "index_rebuild_count": 1}
    }
    assert told["total_vectors_stored"] == told["index_stats"]["i"]["vector_count"] == 4
    assert [(each["result_count"], each["requested_topk"]) for each in told["retrieve_stats"]] == [(1, 1)] * 2
    retrieved = collection.get_retrieve_stats(last_n=1)
    assert retrieved["total_retrieve_count"] == 2 and len(retrieved["recent_stats"]) == 1
    assert retrieved["avg_duration"] > 0
    assert collection.get_memory_stats()["estimated_memory_mb"] == pytest.approx(4 * 64 * 4 / 1e6)
    rebuilt = collection.get_index_rebuild_stats()
    assert rebuilt["total_rebuild_count"] == 1 and rebuilt["index_details"]["i"]["last_rebuild_time"] > 0
    json.dumps([told, retrieved, rebuilt])
    collection.reset_statistics()
    assert collection.get_statistics()["retrieve_stats"] == [] and collection.get_statistics()["insert_count"] == 0
    assert collection.get_storage_stats() == {"total_items": 4, "index_count": 1}


def test_texts_are_found_by_their_words() -> None:
    collection = KVMemoryCollection({"name": "notes", "default_topk": 2})
    for text, metadata in zip(TEXTS, TOPICS):
        collection.insert(text, metadata)
    assert collection.create_index({"name": "all", "description": "d"}) == 1
    assert collection.create_index({"name": "drinks"}, topic="drinks") == 1
    assert collection.create_index({"name": "all"}) == 0
    assert collection.retrieve("services is", index_name="all")[0] == TEXTS[0]
    assert collection.retrieve("services", index_name="drinks") == []
    assert set(collection.retrieve("hot cold", index_name="drinks")) == set(TEXTS[1:])
    assert collection.retrieve("hot cold", 2, True, "all", {"is": "cold"})[0]["metadata"] == TOPICS[2]
    collection.insert("Cocoa is sweet.", None, "drinks")
    assert collection.retrieve("cocoa", index_name="drinks") == ["Cocoa is sweet."]
    assert collection.retrieve("cocoa", index_name="all") == []
    collection.update("Cocoa is sweet.", "Cocoa is hot.")
    assert collection.retrieve("cocoa", 1, index_name="drinks") == ["Cocoa is hot."]
    assert collection.delete("Cocoa is hot.") == 1 and collection.retrieve("cocoa", index_name="drinks") == []
    collection.delete_index("drinks")
    assert collection.list_index() == [{"name": "all", "description": "d"}] and collection.rebuild_index("all")
    assert list(collection.indexes) == ["all"]
    collection.update("Milk is cold.", "Milk is hot.")
    assert collection.retrieve("milk", index_name="all") == ["Milk is hot."]
    collection.create_index({"name": "drinks"}, lambda _: False)
    assert collection.retrieve("hot cold", index_name="drinks") == [], "nothing is left of the one before"


def test_a_graph_has_nodes_edges_and_ways() -> None:
    collection = GraphMemoryCollection("stops")
    assert collection.create_index({"name": "order"}) and not collection.create_index({"name": "order"})
    for node in "abcd":
        assert collection.add_node(node, f"node {node}", {"is": node}) == node
    for edge in (("a", "b", 0.5), ("a", "c", 0.9), ("c", "d", 1.0), ("d", "a", 0.1)):
        collection.add_edge(*edge)
    near = collection.get_neighbors("a", k=5)
    assert [(each["node_id"], each["data"], each["weight"]) for each in near] == [
        ("c", "node c", 0.9),
        ("b", "node b", 0.5),
    ]
    reached = collection.retrieve_by_graph("a", max_depth=2, max_nodes=10)
    assert [(each["node_id"], each["depth"]) for each in reached] == [("a", 0), ("c", 1), ("b", 1), ("d", 2)]
    assert len(collection.retrieve_by_graph("a", 2, 3)) == 3 and len(collection.retrieve_by_graph("a", 1)) == 3
    assert collection.retrieve_by_graph("nobody") == collection.get_neighbors("nobody") == []
    graph = collection.indexes["order"]
    assert graph.get_neighbors("a", direction="incoming") == [("d", 0.1)]
    assert graph.get_neighbors("d", direction="both") == [("c", 1.0), ("a", 0.1)]
    assert collection.retrieve(with_metadata=True, **{"is": "b"})[0]["text"] == "node b"
    assert collection.retrieve("node c", max_depth=0) == ["node c"]
    assert collection.retrieve(start_node="c", with_metadata=True)[1]["depth"] == 1
    graph.remove_edge("a", "b")
    assert graph.get_neighbors("a") == [("c", 0.9)]
    assert collection.delete("c") == 1 and not graph.has_node("c") and graph.get_neighbors("a") == []
    collection.text_storage.store("a", "new")
    assert graph.get_node_data("a") == "new"
    with pytest.raises(ValueError, match="has no node 'c'"):
        collection.add_edge("a", "c")
    alone = SimpleGraphIndex("alone")
    alone.add_node("a", "one")
    assert alone.nodes == {"a": "one"} and alone.adjacency == {"a": {}}


def test_texts_are_put_into_an_index_on_several_threads() -> None:
    collection = vectors(model=None, dim=128)
    texts = [f"text {number}" for number in range(95)]
    service = ParallelVDBService(collection, {"method": "mockembedder"}, max_workers=3, default_batch_size=10)
    with pytest.raises(RuntimeError, match="is not set up"):
        service.parallel_batch_insert(texts, "i")
    service.setup()
    done = service.parallel_batch_insert(texts, "i", [{"at": number} for number in range(95)])
    assert (done.total_inserted, done.total_failed, len(done.batch_results)) == (95, 0, 10)
    again = service.parallel_batch_insert([*texts[:10], "x" * 2_000_000, "fine"], "i", batch_size=5)
    assert (again.total_inserted, again.total_failed) == (10, 2), "a batch that fails does not end the others"
    assert "bytes" in again.to_dict()["batch_results"][2]["errors"][0]
    assert service.parallel_batch_insert([], "i").throughput_per_second == 0.0
    service.cleanup()
    assert service.get_stats()["collection_name"] == "notes" and service.get_collection() is collection
    assert collection.retrieve(EmbeddingModel("mockembedder").embed("text 94"), "i", 1, at=94) == ["text 94"]
    assert parallel_insert_to_vdb(["one"], collection, "i", {"method": "mockembedder"}, None, 1, 1).total_inserted == 1
    assert len(collection.get_all_ids()) == 96


def broken(**more: Any) -> dict[str, Any]:
    return {"name": "x", "embedding_model": "default", "dim": 8, **more}


WRONG: list[tuple[Callable[[VDBMemoryCollection], Any], type[Exception], str]] = [
    (lambda _: VDBMemoryCollection({}), ValueError, "needs its `name`"),
    (lambda c: c.create_index({"dim": 8}), ValueError, "an index needs its `name`"),
    (lambda c: c.create_index({"name": "x"}), ValueError, "needs an `embedding_model` or the `dim`"),
    (lambda c: c.create_index(broken(dim=0)), ValueError, "`dim` is a whole number from 1 to 65,536"),
    (lambda c: c.create_index(broken(dim="8")), ValueError, "`dim` is a whole number"),
    (lambda c: c.create_index(broken(embedding_model=7)), TypeError, "`embedding_model` is the name of a model"),
    (lambda c: c.insert("nowhere", "a text"), ValueError, "has no index 'nowhere'; it has 'i'"),
    (lambda c: c.insert("i", "a", [1.0]), ValueError, "a vector of index 'i' has 64 numbers, not 1"),
    (lambda c: c.insert("i", "a", [float("nan")] * 64), ValueError, "not finite"),
    (lambda c: c.insert("i", "a", 7), TypeError, "a vector is a list or an array of numbers, not 7"),
    (lambda c: c.insert("i", "a", [0.0], [0.0]), TypeError, "`insert` takes a vector and metadata"),
    (lambda c: c.insert("i", content=7), TypeError, "a collection keeps texts, not 7"),
    (lambda c: c.insert(index_name="i"), TypeError, "`insert` needs a text"),
    (lambda c: c.insert("i", "a", {"x": object()}), TypeError, "metadata is kept as JSON"),
    (lambda c: c.insert("i", "a", {"x": float("nan")}), TypeError, "metadata is kept as JSON"),
    (lambda c: c.insert("i", "a", {1: 2}), TypeError, "metadata is a mapping of names to values"),
    (lambda c: c.insert("i", "a", {"x": "x" * (1 << 20)}), ValueError, "at most 1,048,576 bytes"),
    (lambda c: c.insert("i", "a\udcff"), ValueError, "surrogates not allowed"),
    (lambda c: c.insert("i", "x" * ((1 << 20) + 1)), ValueError, "1048576 are taken"),
    (lambda c: c.batch_insert_data("text"), TypeError, "`data` is a list of texts"),
    (lambda c: c.batch_insert_data(["a"], []), ValueError, "1 texts, and metadata for 0"),
    (lambda c: c.init_index("i", [[0.0]], []), ValueError, "1 vectors for 0 ids"),
    (lambda c: c.init_index("i", [[1.0] * 64], ["nobody"]), ValueError, "has no item 'nobody'"),
    (lambda c: c.init_index("i", vectors=[]), TypeError, "needs the ids"),
    (lambda c: c.init_index("nowhere"), ValueError, "has no index 'nowhere'"),
    (lambda c: c.retrieve("a", "nowhere"), ValueError, "has no index 'nowhere'"),
    (lambda c: c.retrieve("a", "i", topk=0), ValueError, "`topk` is a whole number from 1 to 16,384"),
    (lambda c: c.retrieve(index_name="i"), TypeError, "needs a text or a vector"),
    (lambda c: c.retrieve("a", "i", metadata_filter=7), TypeError, "is a function of metadata, or a mapping"),
    (lambda c: c.retrieve("a", "i", topic=lambda _: True), TypeError, "a filter is `metadata_filter`"),
    (lambda c: c.retrieve("a", "i", threshold=float("nan")), ValueError, "`threshold` is a number"),
    (lambda c: c.delete_index("nowhere"), ValueError, "has no index"),
    (lambda c: c.delete(7), TypeError, "keeps texts, not 7"),
    (lambda c: c.get_retrieve_stats(0), ValueError, "`last_n`"),
    (lambda _: KVMemoryCollection("a").create_index({"name": "x", "index_type": "y"}), ValueError, "is bm25s"),
    (lambda _: KVMemoryCollection("a").insert("text", None, "x"), ValueError, "has no index 'x'; it has none"),
    (lambda _: GraphMemoryCollection("a").add_node("n", "text"), ValueError, "has no index None"),
    (lambda _: SimpleGraphIndex("a").add_node(""), ValueError, "a node has an id"),
    (lambda _: SimpleGraphIndex("a").get_neighbors("a", direction="up"), ValueError, "outgoing, incoming or both"),
    (lambda _: BaseMemoryCollection("a").store("/nowhere"), NotImplementedError, "is not kept in files"),
    (lambda c: ParallelVDBService([], {}), TypeError, "takes a `VDBMemoryCollection`"),
]


@pytest.mark.parametrize(("ask", "error", "words"), WRONG)
def test_what_is_wrong_is_raised_and_changes_nothing(ask: Any, error: type[Exception], words: str) -> None:
    collection = filled()
    with pytest.raises(error, match=words):
        ask(collection)
    assert collection.get_all_ids() == [collection._get_stable_id(text) for text in TEXTS]
    assert collection.get_statistics()["total_vectors_stored"] == 3


def test_an_index_without_a_model_says_that_it_needs_vectors() -> None:
    collection = vectors(model=None, dim=2)
    for ask in (lambda: collection.insert("i", "text"), lambda: collection.retrieve("text", "i")):
        with pytest.raises(ValueError, match="has no `embedding_model`: give a vector"):
            ask()
    assert collection.get_all_ids() == []
    named = vectors("named", "sentence-transformers/nobody-has-it", 2)
    named.insert("named", "east", [1.0, 0.0])
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        named.retrieve("east", "named")


def test_vectors_of_a_model_that_is_another_now_are_refused(tmp_path: Path) -> None:
    manager = MemoryManager(tmp_path)
    collection = manager.create_collection({"name": "notes", "backend_type": "VDB"})
    collection.create_index({"name": "i", "embedding_model": "default", "dim": 16})
    collection.insert("i", TEXTS[0])
    manager.close()
    says = next(tmp_path.rglob("collection.json"))
    says.write_text(says.read_text("utf-8").replace('"embedder": "lexical', '"embedder": "older'), "utf-8")
    collection = manager.get_collection("notes")
    with pytest.raises(OtherCollection, match="`update_index` makes them anew"):
        collection.retrieve("services", "i")
    assert collection.update_index("i") == 1 and collection.retrieve(TEXTS[0], "i") == TEXTS[:1]
    manager.close()


def test_a_text_without_words_is_kept_and_not_found(caplog: pytest.LogCaptureFixture) -> None:
    collection = filled()
    with caplog.at_level(logging.WARNING, "sage.memory"):
        id = collection.insert("i", "?")
    assert "1 have a zero vector" in caplog.text and collection.text_storage.get(id) == "?"
    assert "?" not in collection.retrieve("tea", "i", threshold=-1.0) and collection.retrieve("?", "i") == []
