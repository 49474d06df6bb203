"""Where SAGE's memory is kept: in files, after the end of a process however it ends, by one process at a time."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sage import BatchFunction, LocalEnvironment, MapFunction
from sage.middleware.components.neuromem.memory_manager import MemoryManager
from sage.middleware.components.neuromem.utils.path_utils import get_default_data_dir
from sage.middleware.components.sage_mem import GraphMemoryCollection, KVMemoryCollection, VDBMemoryCollection
from sage.runtime import BaseService
from sage.services import OtherCollection, StoreClosed, StoreDamaged, StoreError, StoreLocked

INDEX = {"name": "i", "embedding_model": "default", "dim": 64, "description": "words"}
NOTES = {"name": "notes", "backend_type": "VDB", "description": "what was said"}

BEGINS = """
import os, sys, json
from sage.middleware.components.neuromem.memory_manager import MemoryManager
folder = sys.argv[1]
manager = MemoryManager(folder)
"""


def command(program: str, folder: Path) -> list[str]:
    return [sys.executable, "-c", BEGINS + program, str(folder)]


def ran(program: str, folder: Path) -> Any:
    """What a program in another process prints, as JSON."""
    done = subprocess.run(command(program, folder), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def running(program: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command(program, folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def notes(manager: MemoryManager) -> Any:
    collection = manager.create_collection(NOTES)
    collection.create_index(INDEX)
    collection.insert("i", "Services stop last.", {"topic": "stopping", "deep": {"er": [1, "a", None]}})
    return collection


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_another_process_finds_everything_of_all_kinds(tmp_path: Path) -> None:
    with MemoryManager(tmp_path) as manager:
        notes(manager).batch_insert_data(["Tea is hot.", "Milk is cold."], [{"n": 1}, None])
        words = manager.create_collection({"name": "words", "backend_type": "kv"})
        words.create_index({"name": "w"})
        words.insert("Tea is hot.", None, "w")
        graph = manager.create_collection({"name": "graph", "backend_type": "Graph"})
        graph.create_index({"name": "g"})
        for node in "abc":
            graph.add_node(node, f"node {node}")
        graph.add_edge("a", "b", 0.5)
        graph.add_edge("a", "c", 0.25)
        graph.indexes["g"].remove_node("c")
    told = ran(
        """
notes, words, graph = map(manager.get_collection, ["notes", "words", "graph"])
(found,) = notes.retrieve("services stop", "i", threshold=0.3, with_metadata=True)
later = notes.init_index("i")
print(json.dumps([
    [found["text"], found["metadata"]], later, [notes.text_storage.get(id) for id in notes.get_all_ids()],
    words.retrieve("tea", index_name="w"), graph.retrieve_by_graph("a"), manager.list_collection(),
]))
""",
        tmp_path,
    )
    found, later, texts, by_words, reached, listed = told
    assert found == ["Services stop last.", {"topic": "stopping", "deep": {"er": [1, "a", None]}}]
    assert later == 2 and texts == ["Services stop last.", "Tea is hot.", "Milk is cold."]
    assert by_words == ["Tea is hot."] and [(each["node_id"], each["depth"]) for each in reached] == [
        ("a", 0),
        ("b", 1),
    ]
    assert [(each["name"], each["backend_type"], each["status"]) for each in listed] == [
        ("graph", "graph", "loaded"),
        ("notes", "vdb", "loaded"),
        ("words", "kv", "loaded"),
    ]
    assert listed[1]["description"] == "what was said"
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.rglob("*") if path.is_file())


KILLED = """
import itertools
collection = manager.create_collection({"name": "notes", "backend_type": "VDB"})
collection.create_index({"name": "i", "embedding_model": "mockembedder", "dim": 16})
for number in itertools.count():
    id = collection.insert("i", f"text {number}", {"number": number})
    if number % 3 == 2:
        collection.delete(f"text {number - 1}")
    print(number, id, flush=True)
"""


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    told = []
    with running(KILLED, tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line.split())
            if len(told) == 100:
                process.send_signal(signal.SIGKILL)
    assert len(told) >= 100 and process.returncode == -signal.SIGKILL
    with MemoryManager(tmp_path) as manager:
        collection = manager.get_collection("notes")
        there = {collection.metadata_storage.get(id)["number"]: id for id in collection.get_all_ids()}
        kept = {int(number): id for number, id in told if int(number) % 3 != 1}
        assert kept.items() <= there.items()
        gone = {number for number in range(len(told) - 1) if number % 3 == 1 and number < int(told[-1][0])}
        assert not gone & there.keys()
        for number, id in kept.items():
            (found,) = collection.retrieve(f"text {number}", "i", 1, 0.99, with_metadata=True)
            assert (found["id"], found["metadata"]) == (id, {"number": number})


def test_one_process_at_a_time_has_a_collection_and_the_others_are_told(tmp_path: Path) -> None:
    program = (
        'c = manager.create_collection({"name": "notes", "backend_type": "VDB"})\nprint("has it", flush=True)\ninput()'
    )
    with MemoryManager(tmp_path) as manager, running(program, tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline() == "has it\n"
        for ask in (
            lambda: manager.get_collection("notes"),
            lambda: manager.delete_collection("notes"),
            lambda: manager.rename("notes", "other"),
        ):
            with pytest.raises(StoreLocked, match="notes"):
                ask()
        assert manager.has_collection("notes") and not manager.has_collection("other")
        assert manager.list_collection("notes")["status"] == "on_disk"
        assert notes(MemoryManager(tmp_path / "elsewhere")).get_all_ids()
        process.communicate("\n")
        assert process.returncode == 0
        assert manager.get_collection("notes").get_all_ids() == []


def test_managers_of_a_folder_share_its_collections_and_the_last_lets_go(tmp_path: Path) -> None:
    first, second = MemoryManager(tmp_path), MemoryManager(str(tmp_path))
    collection = notes(first)
    assert second.get_collection("notes") is first.get_collection("notes") is collection
    first.close()
    first.close()
    assert collection.insert("i", "Tea is hot.") and collection.is_open
    second.close()
    assert not collection.is_open
    with pytest.raises(StoreError):
        collection.insert("i", "Milk is cold.")
    with pytest.raises(StoreClosed):
        collection.create_index({"name": "j", "dim": 2})
    assert ran('print(len(manager.get_collection("notes").get_all_ids()))', tmp_path) == 2
    with first:
        assert len(first.get_collection("notes").get_all_ids()) == 2


def test_a_manager_that_nobody_has_lets_go_and_a_collection_needs_no_manager(tmp_path: Path) -> None:
    collection = notes(MemoryManager(tmp_path))
    assert collection.insert("i", "Tea is hot.")
    with running('manager.get_collection("notes")', tmp_path) as process:
        assert process.wait(60) == 1, "it is still open here"
    del collection
    assert ran('print(len(manager.get_collection("notes").get_all_ids()))', tmp_path) == 2


class Memory(BaseService):
    """As SAGE programs wrap their memory: it is never closed by them."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.manager = MemoryManager(folder)
        there = self.manager.has_collection("notes")
        self.collection = self.manager.get_collection("notes") if there else notes(self.manager)

    def insert(self, text: str, metadata: dict[str, Any]) -> None:
        self.collection.insert("i", text, metadata)

    def retrieve(self, text: str) -> Any:
        return self.collection.retrieve(text, "i", topk=1, threshold=0.3, with_metadata=True)


class Asks(MapFunction):
    def execute(self, question: str) -> Any:
        found = self.call_service("memory", question, method="retrieve")
        self.call_service("memory", question, {"answer": f"answer to {question}"}, method="insert")
        return [each["metadata"]["answer"] for each in found]


class Questions(BatchFunction):
    def __init__(self) -> None:
        super().__init__()
        self.left = ["hot tea", "cold milk", "hot tea"]

    def execute(self) -> Any:
        return self.left.pop(0) if self.left else None


def test_a_service_of_a_job_keeps_no_lock_when_the_job_is_over(tmp_path: Path) -> None:
    for round in range(2):
        env = LocalEnvironment("memory")
        env.register_service("memory", Memory, str(tmp_path))
        answers = env.from_batch(Questions).map(Asks).collect()
        env.submit(autostop=True)
        first = [] if round == 0 else ["answer to hot tea"]
        assert answers == [first, first and ["answer to cold milk"], ["answer to hot tea"]]
        assert ran('print(len(manager.get_collection("notes").get_all_ids()))', tmp_path) == 3


def test_a_collection_is_renamed_and_deleted_wholly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with MemoryManager(tmp_path) as manager:
        collection = notes(manager)
        assert manager.rename("notes", "笔记/../2", "renamed")
        assert not manager.has_collection("notes") and manager.get_collection("笔记/../2") is collection
        assert collection.name == "笔记/../2" and collection.insert("i", "Tea is hot.")
        notes(manager)
        with caplog.at_level(logging.WARNING, "sage.memory"):
            assert manager.create_collection(NOTES) is None
            assert manager.create_collection({**NOTES, "backend_type": "KV"}) is None, "the kinds share their names"
            assert not manager.rename("notes", "笔记/../2") and not manager.rename("nobody", "x")
            assert manager.get_collection("nobody") is None and manager.list_collection("nobody") is None
            assert manager.delete_collection("nobody") is False
        assert len(caplog.records) == 7
        assert {each["name"]: each["description"] for each in manager.list_collection()} == {
            "notes": "what was said",
            "笔记/../2": "renamed",
        }
        manager.close()
        assert len(manager.get_collection("笔记/../2").get_all_ids()) == 2, "it was kept under its new name"
        assert manager.rename("notes", "never opened") and manager.delete_collection("never opened")
        assert manager.delete_collection("笔记/../2") and manager.list_collection() == []
        with pytest.raises(StoreError):
            collection.insert("i", "Milk is cold.")
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["../out", "..", ".", "/etc/x", "a/b", ".hidden", "a\0b", "%2E", "a b-c_d.e", "ä"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    with MemoryManager(folder) as manager:
        assert manager.create_collection({**NOTES, "name": name}) is not None
        assert [each["name"] for each in manager.list_collection()] == [name]
    assert os.listdir(tmp_path) == ["inside"] and len(os.listdir(folder / "vdb_collection")) == 1
    with MemoryManager(folder) as manager:
        assert manager.get_collection(name).name == name and manager.delete_collection(name)


@pytest.mark.parametrize("name", ["", None, 7, "x" * 201, "\n" * 67])
def test_what_is_no_name_is_refused(name: Any, tmp_path: Path) -> None:
    with MemoryManager(tmp_path / "new") as manager:
        for ask in (manager.has_collection, manager.get_collection, manager.delete_collection):
            with pytest.raises(ValueError, match="name of a collection"):
                ask(name)
        with pytest.raises(ValueError, match="name of a collection"):
            manager.create_collection({**NOTES, "name": name})
    assert os.listdir(tmp_path) == []


def test_a_configuration_that_is_none_is_refused(tmp_path: Path) -> None:
    with MemoryManager(tmp_path) as manager:
        with pytest.raises(ValueError, match="VDB, KV or graph, not 'SQL'"):
            manager.create_collection({"name": "a", "backend_type": "SQL"})
        with pytest.raises(TypeError, match="takes its configuration as a mapping"):
            manager.create_collection([])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="has no collection 'nobody'"):
            manager.store_collection("nobody")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        MemoryManager(tmp_path / "file")


def test_what_was_deleted_is_in_no_file_when_the_collection_is_stored(tmp_path: Path) -> None:
    with MemoryManager(tmp_path) as manager:
        collection = notes(manager)
        id = collection.insert("i", "It is a secret.", {"who": "somebody"})
        collection.delete("It is a secret.")
        manager.store_collection("notes")
        for path in tmp_path.rglob("*.sage"):
            for word in (b"secret", b"somebody", id.encode()):
                assert word not in path.read_bytes(), path
        manager.delete_collection("notes")
        manager.store_collection()


def test_what_another_process_deleted_is_in_no_file_either(tmp_path: Path) -> None:
    ran(
        'c = manager.create_collection({"name": "a", "backend_type": "KV"})\nc.insert("secret")\nc.delete("secret")\n'
        'g = manager.create_collection({"name": "g", "backend_type": "graph"})\ng.create_index({"name": "i"})\n'
        'g.add_node("n", "secret")\ng.add_node("n", "told")\nprint(0)',
        tmp_path,
    )
    with MemoryManager(tmp_path) as manager:
        assert any(b"secret" in path.read_bytes() for path in tmp_path.rglob("*.sage"))
        for name in ("a", "g"):
            manager.store_collection(name)
        assert not any(b"secret" in path.read_bytes() for path in tmp_path.rglob("*.sage"))
        graph = manager.get_collection("g").indexes["i"]
        graph.add_node("n", "secret")
        graph.remove_node("n")
        manager.store_collection("g")
        assert not any(b"secret" in path.read_bytes() for path in tmp_path.rglob("index*.sage"))


def test_a_folder_with_two_paths_is_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with MemoryManager(tmp_path / "real") as manager, MemoryManager(tmp_path / "link") as other:
        collection = notes(manager)
        assert other.get_collection("notes") is collection
        other.store_collection()
        assert other.rename("notes", "renamed") and manager.get_collection("renamed") is collection
    (tmp_path / "real" / "manager.json").write_text("{}", encoding="utf-8")
    with caplog.at_level(logging.WARNING, "sage.memory"), MemoryManager(tmp_path / "real") as manager:
        assert "SAGE's own memory, which are not read" in caplog.text and manager.has_collection("renamed")


def test_damage_is_told_and_hides_no_other_collection(tmp_path: Path) -> None:
    with MemoryManager(tmp_path) as manager:
        notes(manager)
        manager.create_collection({"name": "other", "backend_type": "KV"})
    says = tmp_path / "vdb_collection" / "notes" / "collection.json"
    says.write_text("{", encoding="utf-8")
    with MemoryManager(tmp_path) as manager:
        with pytest.raises(StoreDamaged, match="collection.json"):
            manager.get_collection("notes")
        assert [each["status"] for each in manager.list_collection()] == ["damaged", "on_disk"]
        assert manager.create_collection(NOTES) is None, "it is not made anew over what may be saved"
        os.unlink(tmp_path / "kv_collection" / "other" / "items.sage")
        with pytest.raises(StoreError):
            manager.get_collection("other")
        assert manager.delete_collection("notes")


def test_what_a_killed_process_had_begun_is_ended(tmp_path: Path) -> None:
    with MemoryManager(tmp_path) as manager:
        notes(manager)
    folder = tmp_path / "vdb_collection" / "notes"
    (tmp_path / ".deleted-1").mkdir()
    (tmp_path / ".deleted-1" / "items.sage").write_text("secret", encoding="utf-8")
    (folder / "index-7.sage").write_text("of an index that was not made", encoding="utf-8")
    half = tmp_path / "kv_collection" / "half"
    half.mkdir(parents=True)
    with MemoryManager(tmp_path) as manager:
        assert manager.get_collection("notes").get_all_ids() and not manager.has_collection("half")
        assert manager.create_collection({"name": "half", "backend_type": "KV"}).get_all_ids() == []
    assert files(tmp_path) == [
        "kv_collection/half/collection.json",
        "kv_collection/half/items.sage",
        *(f"vdb_collection/notes/{name}" for name in ("collection.json", "index-1.sage", "items.sage")),
    ]
    os.rename(folder, tmp_path / ".new-vdb_collection-notes")
    with MemoryManager(tmp_path) as manager:
        assert manager.get_collection("notes").get_all_ids(), "a whole copy gets its place"


def test_a_folder_that_was_removed_behind_its_back_is_no_collection(tmp_path: Path) -> None:
    manager = MemoryManager(tmp_path)
    collection = notes(manager)
    os.rename(tmp_path / "vdb_collection", tmp_path / "away")
    assert not manager.has_collection("notes")
    assert manager.create_collection(NOTES).get_all_ids() == []
    assert not collection.is_open
    manager.close()


def test_a_collection_without_a_manager_is_stored_and_loaded(tmp_path: Path) -> None:
    collection = VDBMemoryCollection({"name": "notes"})
    collection.create_index(INDEX)
    collection.insert("i", "Services stop last.", {"topic": "stopping"})
    for text in ("Tea is hot.", "Milk is cold."):
        collection.insert("i", text)
        path = collection.store(tmp_path)["collection_path"]
        assert path == str(tmp_path / "vdb_collection" / "notes")
        loaded = VDBMemoryCollection.load("notes", path)
        assert loaded.retrieve(text, "i", threshold=0.9) == [text]
        assert loaded.get_all_ids() == collection.get_all_ids()
        loaded.close()
    with MemoryManager(tmp_path) as manager:
        kept = manager.get_collection("notes")
        kept.insert("i", "Cocoa is sweet.")
        kept.store(tmp_path / "copy")
        assert kept.store(tmp_path)["collection_path"] == path
    with VDBMemoryCollection.load("notes", tmp_path / "copy" / "vdb_collection" / "notes") as copy:
        assert len(copy.get_all_ids()) == 4
    with pytest.raises(OtherCollection, match="of the kind 'vdb', not 'kv'"):
        KVMemoryCollection.load("notes", path)
    with pytest.raises(FileNotFoundError, match="there is no collection in"):
        GraphMemoryCollection.load("notes", tmp_path / "nowhere")


def test_the_default_folder_is_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert get_default_data_dir() == str(tmp_path / "data" / "neuromem_data") == MemoryManager().data_dir
    graph = GraphMemoryCollection({"name": "g"})
    graph.create_index({"name": "i"})
    graph.add_node("a", "text")
    graph.store()
    with GraphMemoryCollection.load("g") as loaded:
        assert loaded.indexes["i"].nodes == {"a": "text"}
    with MemoryManager() as manager:
        assert manager.has_collection("g")
