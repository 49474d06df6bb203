"""SAGE's memory: the manager, its collections, and what puts many texts into one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from . import of, there

OLD, NEW = "sage.middleware.components.neuromem", "sage.middleware.components.sage_mem"


def places(module: str, *folders: str) -> str:
    """The modules that have a class: its own in both eras, and those above it."""
    own = [f"{era}.{module}" for era in (OLD, f"{NEW}.neuromem")]
    return " ".join([*own, *(f"{era}{folder}" for era in (OLD, f"{NEW}.neuromem") for folder in folders), NEW])


def collection(name: str) -> str:
    """The modules that have a collection."""
    return places(f"memory_collection.{name}_collection", ".memory_collection", "")


TEXTS = ["Services stop last.", "Tea is hot."]
INDEX = {"name": "i", "embedding_model": "default", "dim": 64}


@there("MemoryManager", "data_dir=None", places("memory_manager", ""))
def memory_manager(MemoryManager: Any) -> None:
    folder = tempfile.mkdtemp()
    with MemoryManager(folder) as manager:
        assert manager.data_dir == folder and manager.create_collection({"name": "a", "backend_type": "VDB"})
    with MemoryManager(folder) as manager:
        assert manager.get_collection("a").get_all_ids() == []


def managed(MemoryManager: Any, kind: str = "VDB") -> Any:
    manager = MemoryManager(tempfile.mkdtemp())
    manager.create_collection({"name": "a", "backend_type": kind, "description": "d"})
    return manager


@of("MemoryManager", "create_collection", "config")
def create_collection(MemoryManager: Any) -> None:
    with managed(MemoryManager) as manager:
        assert manager.create_collection({"name": "a", "backend_type": "KV"}) is None
        kinds = {
            kind: manager.create_collection({"name": kind, "backend_type": kind}) for kind in ("VDB", "kv", "Graph")
        }
        assert [type(made).kind for made in kinds.values()] == ["vdb", "kv", "graph"]


@of("MemoryManager", "has_collection", "name")
def has_collection(MemoryManager: Any) -> None:
    with managed(MemoryManager) as manager:
        assert manager.has_collection("a") and not manager.has_collection("b")


@of("MemoryManager", "get_collection", "name")
def get_collection(MemoryManager: Any) -> None:
    with managed(MemoryManager) as manager:
        assert manager.get_collection("b") is None
        assert manager.get_collection("a") is manager.get_collection("a")


@of("MemoryManager", "delete_collection", "name")
def delete_collection(MemoryManager: Any) -> None:
    with managed(MemoryManager) as manager:
        manager.delete_collection("a")
        assert not manager.has_collection("a")
        assert not [file for file in Path(manager.data_dir).rglob("*") if file.is_file()]


@of("MemoryManager", "list_collection", "name=None")
def list_collection(MemoryManager: Any) -> None:
    with managed(MemoryManager, "KV") as manager:
        told = {"name": "a", "status": "loaded", "description": "d", "backend_type": "kv"}
        assert manager.list_collection("a") == told and manager.list_collection() == [told]


@of("MemoryManager", "rename", "former_name, new_name, new_description=None")
def rename(MemoryManager: Any) -> None:
    with managed(MemoryManager) as manager:
        assert manager.rename("a", "b", "other") is True and manager.rename("a", "c") is False
        assert manager.list_collection("b")["description"] == "other" and not manager.has_collection("a")


@of("MemoryManager", "store_collection", "name=None")
def store_collection(MemoryManager: Any) -> None:
    with managed(MemoryManager) as manager:
        manager.store_collection("a")
        manager.store_collection()
        assert manager.has_collection("a")


@there("BaseMemoryCollection", "config", places("memory_collection.base_collection", ".memory_collection", ""))
def base_memory_collection(BaseMemoryCollection: Any) -> None:
    made = BaseMemoryCollection("a")
    id = made.insert(TEXTS[0], {"topic": "stopping"})
    made.insert(TEXTS[1])
    assert made.retrieve(topic="stopping") == [TEXTS[0]] and made.filter_ids([id], topic="tea") == []
    assert made.text_storage.get(id) == TEXTS[0] and made.metadata_storage.get(id) == {"topic": "stopping"}


@there("VDBMemoryCollection", "config", collection("vdb"))
def vdb_memory_collection(VDBMemoryCollection: Any) -> None:
    assert VDBMemoryCollection({"name": "a"}).name == VDBMemoryCollection(config={"name": "a"}).name == "a"


def filled(VDBMemoryCollection: Any) -> Any:
    made = VDBMemoryCollection({"name": "a"})
    made.create_index(INDEX)
    made.batch_insert_data(TEXTS, [{"n": 0}, {"n": 1}])
    return made


@of("VDBMemoryCollection", "create_index", "config")
def create_index(VDBMemoryCollection: Any) -> None:
    made = filled(VDBMemoryCollection)
    assert made.create_index(INDEX) is None and made.create_index({"name": "j", "dim": 2}) is True


@of("VDBMemoryCollection", "batch_insert_data", "data, metadatas=None")
def batch_insert_data(VDBMemoryCollection: Any) -> None:
    assert len(filled(VDBMemoryCollection).get_all_ids()) == 2


@of("VDBMemoryCollection", "init_index", "index_name, metadata_filter_func=None, item_ids=None, **conditions")
def init_index(VDBMemoryCollection: Any) -> None:
    made = filled(VDBMemoryCollection)
    assert made.init_index("i", n=1) == 1 and made.init_index("i") == 1
    made.create_index({"name": "j", "dim": 2})
    assert made.init_index("j", [[1.0, 0.0], [0.0, 1.0]], made.get_all_ids()) == 2


@of("VDBMemoryCollection", "insert", "*args, index_name, raw_data, vector, metadata, content, index_names")
def insert(VDBMemoryCollection: Any) -> None:
    made = filled(VDBMemoryCollection)
    made.create_index({"name": "j", "dim": 2})
    ids = [made.insert("i", "Milk is cold.", {"n": 2}), made.insert("j", "east", [1.0, 0.0], metadata={"n": 3})]
    ids.append(made.insert(content="north", index_names="j", vector=[0.0, 1.0]))
    assert made.get_all_ids()[2:] == ids


@of(
    "VDBMemoryCollection",
    "retrieve",
    "query=None, index_name=None, topk=None, threshold=None, with_metadata=False, metadata_filter_func=None, *, "
    "raw_data=None, query_vector=None, top_k=None, metadata_filter=None, filter=None, **conditions",
)
def retrieve(VDBMemoryCollection: Any) -> None:
    made = filled(VDBMemoryCollection)
    made.init_index("i")
    assert made.retrieve("hot tea", "i", topk=1, threshold=0.1) == [TEXTS[1]]
    (found,) = made.retrieve(raw_data=TEXTS[0], index_name="i", threshold=0.5, with_metadata=True)
    assert (found["text"], found["metadata"]) == (TEXTS[0], {"n": 0}) and found["score"] > 0.99
    assert made.retrieve("tea", "i", threshold=-1.0, metadata_filter=lambda metadata: metadata["n"] == 0) == TEXTS[:1]


@of("VDBMemoryCollection", "update", "index_name, old_data, new_data, *args, new_metadata, new_vector")
def update(VDBMemoryCollection: Any) -> None:
    made = filled(VDBMemoryCollection)
    id = made.update("i", TEXTS[1], "Milk is cold.", {"n": 5})
    assert made.text_storage.get(id) == "Milk is cold." and made.delete(TEXTS[1]) == 0


@of("VDBMemoryCollection", "delete", "raw_text")
def delete(VDBMemoryCollection: Any) -> None:
    made = filled(VDBMemoryCollection)
    made.delete(TEXTS[0])
    assert [made.text_storage.get(id) for id in made.get_all_ids()] == TEXTS[1:]


@of("VDBMemoryCollection", "get_statistics", "")
def get_statistics(VDBMemoryCollection: Any) -> None:
    told = filled(VDBMemoryCollection).get_statistics()
    assert (told["index_create_count"], told["insert_count"], told["total_vectors_stored"]) == (1, 0, 0)


@there("KVMemoryCollection", "config", collection("kv"))
def kv_memory_collection(KVMemoryCollection: Any) -> None:
    made = KVMemoryCollection({"name": "a", "default_topk": 1})
    for text in TEXTS:
        made.insert(text)
    made.create_index({"name": "words"})
    assert made.retrieve("services", index_name="words") == [TEXTS[0]]


@there("GraphMemoryCollection", "config", collection("graph"))
def graph_memory_collection(GraphMemoryCollection: Any) -> None:
    made = GraphMemoryCollection({"name": "a"})
    made.create_index({"name": "i"})
    for node in "ab":
        made.add_node(node, node.upper())
    made.add_edge("a", "b", weight=0.5)
    assert [(each["node_id"], each["depth"]) for each in made.retrieve_by_graph("a")] == [("a", 0), ("b", 1)]


@there("SimpleGraphIndex", "name", places("memory_collection.graph_collection", ".memory_collection", ""))
def simple_graph_index(SimpleGraphIndex: Any) -> None:
    made = SimpleGraphIndex("a")
    made.add_node("a", "A")
    assert made.get_node_data("a") == "A" and made.has_node("a") and made.get_neighbors("a") == []


SERVICES = f"{NEW}.services"


@there("ParallelVDBService", "collection, embedding_config, max_workers=4, default_batch_size=500", SERVICES)
def parallel_vdb_service(ParallelVDBService: Any) -> None:
    from sage.middleware.components.sage_mem import VDBMemoryCollection

    made = filled(VDBMemoryCollection)
    service = ParallelVDBService(made, {"method": "default", "dimension": 64}, max_workers=2)
    service.setup()
    try:
        assert service.parallel_batch_insert(["a", "b", "c"], "i", batch_size=2).total_inserted == 3
    finally:
        service.cleanup()


@there("ParallelInsertResult", None, SERVICES)
def parallel_insert_result(ParallelInsertResult: Any) -> None:
    assert ParallelInsertResult(2, 1, 1, 0.5, 4.0).to_dict()["total_failed"] == 1


@there(
    "parallel_insert_to_vdb",
    "texts, collection, index_name, embedding_config, metadatas=None, max_workers=4, batch_size=500",
    SERVICES,
)
def insert_to_vdb(parallel_insert_to_vdb: Any) -> None:
    from sage.middleware.components.sage_mem import VDBMemoryCollection

    made = filled(VDBMemoryCollection)
    told = parallel_insert_to_vdb(["a"], made, "i", {"method": "default", "dimension": 64})
    assert (told.total_texts, told.total_inserted) == (1, 1)


@there("get_default_data_dir", "", f"{OLD}.utils.path_utils {NEW}.neuromem.utils.path_utils")
def get_default_data_dir(get_default_data_dir: Any) -> None:
    before = os.getcwd()
    os.chdir(tempfile.mkdtemp())
    try:
        assert get_default_data_dir() == os.path.join(os.getcwd(), "data", "neuromem_data")
    finally:
        os.chdir(before)
