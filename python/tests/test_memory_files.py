"""The file of a ``Memory``: what is in it after an erasure, a kill and an export, and who may open it."""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from sage.services import (
    Embedder,
    Memory,
    MemoryDamaged,
    MemoryFailed,
    MemoryLocked,
    NewTurn,
    OtherEmbedder,
    OtherText,
    Scope,
    UnknownScope,
    VectorStore,
)

SCOPE = Scope("acme", user="u1", session="s1")
NOON = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)


def texts(memory: Memory, scope: Scope = SCOPE) -> list[str]:
    return [turn.text for turn in memory.window(scope, 99)]


def nowhere(folder: Path, traces: list[bytes]) -> bool:
    """Whether none of these is in any file of a folder."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return bool(files) and not any(trace in file for trace in traces for file in files)


def test_a_file_keeps_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "new" / "memory.sage"
    with Memory(path, embedder=Embedder(64)) as memory:
        [id] = memory.append(SCOPE, [NewTurn("user", "Basel", said=NOON, metadata={"n": 1})])
        before = memory.moment()
        memory.update(SCOPE, id, "Bern")
        found = memory.recall(SCOPE, "Bern")
        assert path.stat().st_mode & 0o777 == 0o600
    with Memory(str(path), embedder=Embedder(64)) as memory:
        assert texts(memory) == ["Bern"] and [version.text for version in memory.history(SCOPE, id)] == [
            "Basel",
            "Bern",
        ]
        [old] = memory.window(SCOPE, 9, at=before)
        assert (old.text, old.said, old.metadata) == ("Basel", NOON, {"n": 1})
        assert [each.turn for each in memory.recall(SCOPE, "Bern")] == [each.turn for each in found]
    for other, made_by in ((Memory(path), "no embedder"), (Memory(path, embedder=Embedder(32)), "lexical-1 (32")):
        with pytest.raises(OtherEmbedder) as refused:
            other.open()
        assert "were made by lexical-1 (64 dimensions), not by " + made_by in str(refused.value)
    # Also for vectors that somebody else brings, by the same name.
    with Memory(path, vectors_made_by=(Embedder(64).id, 64)) as memory:
        assert texts(memory) == ["Bern"]


def test_one_at_a_time_has_a_file_open(tmp_path: Path) -> None:
    path = tmp_path / "memory.sage"
    with Memory(path) as memory:
        with pytest.raises(MemoryLocked, match="another process has `.*memory.sage` open") as locked:
            Memory(path).open()
        assert locked.value.verdict == "passing"
        other = [sys.executable, "-c", "import sys; from sage.services import Memory; Memory(sys.argv[1]).open()", path]
        ran = subprocess.run(other, capture_output=True, text=True, check=False)
        assert ran.returncode == 1 and "sage.services.MemoryLocked: another process has `" in ran.stderr
        memory.append(SCOPE, [("user", "x")])
    assert subprocess.run(other, check=False).returncode == 0
    # One that is let go is closed, too.
    memory = Memory(path)
    memory.open()
    del memory
    with Memory(path) as memory:
        assert texts(memory) == ["x"]


def test_what_is_no_memory_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.sage"
    VectorStore(2, path=path).close()
    for bytes in (path.read_bytes(), b"my own notes\n" * 9):
        path.write_bytes(bytes)
        with pytest.raises(MemoryDamaged, match="store.sage` is damaged at byte "):
            Memory(path).open()
        assert path.read_bytes() == bytes
    for place in (tmp_path, "/proc/none/memory.sage"):
        with pytest.raises(MemoryFailed, match="cannot be ") as refused:
            Memory(place).open()
        assert isinstance(refused.value.__cause__, OSError) and type(refused.value) is MemoryFailed


def test_a_torn_end_is_cut_off_and_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "memory.sage"
    ends = []
    with Memory(path) as memory:
        for number in range(3):
            memory.append(SCOPE, [("user", f"turn {number}")])
            ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for cut in (ends[2] - 1, ends[1] + 3, ends[1], 5):
        path.write_bytes(whole[:cut])
        with Memory(path) as memory:
            kept = sum(end <= cut for end in ends)
            assert texts(memory) == [f"turn {number}" for number in range(kept)]
            memory.append(SCOPE, [("user", "next")])
        with Memory(path) as memory:
            assert memory.count(SCOPE) == kept + 1
    path.write_bytes(whole.replace(b"turn 0", b"turn X"))
    with pytest.raises(MemoryDamaged):
        Memory(path).open()


def test_nothing_of_what_is_erased_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "memory.sage"
    texts_of = ["My number is 555-0100.", "My number is 555-0199.", "I am allergic to penicillin."]

    class Seen(Embedder):
        vectors: list[bytes] = []

        def embed_passages(self, texts: Any) -> Any:
            made = super().embed_passages(texts)
            self.vectors += [struct.pack(f"<{len(vector)}f", *vector) for vector in made]
            return made

    seen = Seen(128)
    gone, stays = Scope("acme", user="grace-4711"), Scope("acme", user="ada")
    with Memory(path, embedder=seen) as memory:
        memory.append(gone, [NewTurn("user", texts_of[0], id="a", metadata={"where": "kitchen-4711"})])
        memory.update(gone, "a", texts_of[1])
        memory.append(Scope("acme", user="grace-4711", agent="helper"), [NewTurn("user", texts_of[2], id="b-4711")])
        memory.delete(Scope("acme", user="grace-4711", agent="helper"), "b-4711")
        traces = [b"4711", b"555-01", b"penicillin", *seen.vectors]
        assert len(seen.vectors) == 3 and all(trace in path.read_bytes() for trace in traces)
        memory.append(stays, [("user", "I like tea.")])
        receipt = memory.erase(gone)
        assert (receipt.turns, receipt.versions) == (2, 4) and receipt.bytes > 3 * 4 * 128
        assert nowhere(tmp_path, traces)
        memory.append(stays, [NewTurn("user", "secret one", id="c"), ("user", "plain")])
        memory.update(stays, "c", "secret two")
        assert memory.erase_turn(stays, "c").versions == 2 and nowhere(tmp_path, [b"secret"])
        summary = memory.compact(stays, 1, lambda turns: "a summary")
        assert summary is not None and nowhere(tmp_path, [b"like tea"])
    with Memory(path, embedder=seen) as memory:
        assert texts(memory, Scope("acme")) == ["a summary", "plain"] and memory.scopes(gone) == []
    assert nowhere(tmp_path, traces)


def test_what_expires_is_erased_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "memory.sage"
    with Memory(path) as memory:
        memory.append(SCOPE, [NewTurn("user", "for a moment", ttl=0.01), NewTurn("user", "for an hour", ttl=3600)])
        while b"moment" in path.read_bytes():
            os.sched_yield()
        assert texts(memory) == ["for an hour"] and b"hour" in path.read_bytes()


def test_a_full_disk_fails_the_write_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "memory.sage"
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Memory(path) as memory:
        memory.append(SCOPE, [("user", f"secret {number}") for number in range(10)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 300, limits[1]))
        try:
            with pytest.raises(MemoryFailed, match="memory.sage` cannot be written") as full:
                memory.append(SCOPE, [("user", f"secret {number}") for number in range(100)])
            with pytest.raises(MemoryFailed, match="export` cannot be written"):
                memory.export(SCOPE, tmp_path / "export")
            assert not (tmp_path / "export").exists() and memory.count(SCOPE) == 10
            # What is erased takes no room.
            assert memory.erase(SCOPE).turns == 10
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert full.value.verdict == "passing" and isinstance(full.value.__cause__, OSError)
        memory.append(SCOPE, [("user", "again")])
    with Memory(path) as memory:
        assert texts(memory) == ["again"]


#: Says what was acknowledged, until it is killed.
KILLED = """
import os, sys
from threading import Thread
from sage.services import Memory, NewTurn, Scope

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def work(writer):
    for number in range(100_000):
        scope = Scope("acme", user=f"w{writer}n{number}")
        text = f"<secret {writer} of {number}>"
        memory.append(scope, [NewTurn("user", f"{text} {id}", id=str(id)) for id in range(20)])
        memory.update(scope, "3", f"{text} again")
        say("appended", writer, number)
        if number % 2 == 0:
            say("erases", writer, number)
            memory.erase(scope)
            say("erased", writer, number)

memory = Memory(sys.argv[1])
memory.open()
[Thread(target=work, args=(writer,)).start() for writer in range(2)]
"""

#: More of them by command.
ROUNDS = int(os.environ.get("SAGE_TEST_KILLS", "4"))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_kill_loses_nothing_and_leaves_nothing_half_erased(number: int, tmp_path: Path) -> None:
    path = tmp_path / "memory.sage"
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(1 + number * 37 % 100)]
        child.kill()
        lines += child.stdout.readlines()
    told: dict[str, set[tuple[str, str]]] = {"appended": set(), "erases": set(), "erased": set()}
    for line in lines:
        if line.endswith("\n"):
            what, writer, of = line.split()
            told[what].add((writer, of))
    assert told["appended"]
    with Memory(path) as memory:
        file = path.read_bytes()
        for writer, of in told["appended"]:
            scope = Scope("acme", user=f"w{writer}n{of}")
            there = (memory.count(scope), len(memory.history(scope, "3")))
            assert there == (20, 2) or there == (0, 0) and (writer, of) in told["erases"]
            assert there == (0, 0) or (writer, of) not in told["erased"]
            assert (f"<secret {writer} of {of}>".encode() in file) == (there == (20, 2))
    assert [file.name for file in tmp_path.iterdir()] == ["memory.sage"]


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def moment(text: str) -> datetime:
    """A moment of RFC 3339, as Python before 3.11 reads it."""
    seconds, _, part = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}+00:00").replace(microsecond=int(part.ljust(6, "0") or 0))


def test_another_program_reads_an_export_and_writes_one(tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    embedder = Embedder(16)
    with Memory(embedder=embedder) as memory:
        values = {"text": 'naïve\n"quoted"', "n": -3, "x": 0.5, "yes": True, "at": NOON, "tags": ["a", "b"]}
        turn = NewTurn("user", "I live in Basel.", id="a", said=NOON, importance=0.25, metadata=values, ttl=3600)
        memory.append(SCOPE, [turn])
        memory.append(Scope("acme", agent="helper"), [NewTurn("assistant", "Hello!", id="b")])
        memory.append(Scope("other"), [("user", "not exported")])
        memory.update(SCOPE, "a", "I live in Bern.")
        memory.delete(Scope("acme", agent="helper"), "b")
        assert memory.export(Scope("acme"), path) == 2 and path.stat().st_mode & 0o777 == 0o600
        history = memory.history(SCOPE, "a")
        head, first, second = lines_of(path)
        assert head == {"sage_memory": 1, "embedder": embedder.id, "dimensions": 16}
        assert {name: first[name] for name in ("tenant", "user", "session", "id", "role")} == {
            **{"tenant": "acme", "user": "u1", "session": "s1"},
            **{"id": "a", "role": "user"},
        }
        assert "agent" not in first and moment(first["said"]) == NOON
        assert [moment(version["recorded"]) for version in first["versions"]] == [each.recorded for each in history]
        lives = moment(first["expires"]) - history[0].recorded
        assert lives.total_seconds() == pytest.approx(3600, abs=1)
        assert [version["text"] for version in first["versions"]] == ["I live in Basel.", "I live in Bern."]
        assert first["versions"][0]["importance"] == 0.25
        dated = first["versions"][0]["metadata"].pop("at")
        assert list(dated) == ["date"] and moment(dated["date"]) == NOON
        assert first["versions"][0]["metadata"] == {name: value for name, value in values.items() if name != "at"}
        vector = struct.unpack("<16f", base64.b64decode(first["versions"][1]["vector"]))
        assert list(vector) == pytest.approx(list(embedder.embed("user: I live in Bern.")), abs=1.0) and any(vector)
        assert [version["text"] for version in second["versions"]] == ["Hello!", None] and "user" not in second
    written = {
        **{"tenant": "acme", "session": "new", "id": "c", "role": "user", "said": "2026-11-28T13:00:00+01:00"},
        "versions": [
            {"recorded": "2026-11-28T12:00:00Z", "text": "Ice", "vector": base64.b64encode(bytes(64)).decode()},
            {"recorded": "2026-11-28T12:00:00.000001Z", "text": "Tea", "metadata": {"at": {"date": first["said"]}}},
        ],
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(written) + "\n")
    with Memory(embedder=Embedder(16)) as memory:
        assert memory.import_(path) == (3, 0, 0) and memory.import_(str(path)) == (0, 3, 0)
        [tea] = memory.window(Scope("acme", session="new"), 1)
        assert (tea.text, tea.said, tea.metadata, tea.importance) == ("Tea", NOON, {"at": NOON}, 0.0)
        assert memory.history(SCOPE, "a") == history
        memory.export(Scope("acme"), tmp_path / "again.jsonl")
        again = tmp_path / "again.jsonl"
        assert lines_of(again)[:3] == lines_of(path)[:3]
        with pytest.raises(OtherText):
            memory.erase_turn(SCOPE, "a")
            memory.append(SCOPE, [NewTurn("user", "other", id="a")])
            memory.import_(path)
    # Whoever has another embedder makes the vectors anew; whoever has none is told.
    with Memory(embedder=Embedder(32)) as memory:
        assert memory.import_(path).turns == 3
        assert memory.recall(Scope("acme"), "Bern")[0].parts.similarity > 0
    with Memory() as memory, pytest.raises(OtherEmbedder, match="by lexical-1 .16 dimensions., not by no emb"):
        memory.import_(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [], "line 1 of `.*export.jsonl` is no turn: the file is empty; nothing is imported"),
        (lambda lines: lines[1:], "line 1 .*not the first line of a memory's export"),
        (lambda lines: [lines[0].replace(b"1", b"9", 1), *lines[1:]], "line 1 .*it is of version 9; 1 is read"),
        (lambda lines: [*lines[:2], b"7\n", *lines[2:]], "line 3 of `.*` is no turn: "),
        (lambda lines: [*lines, b'{"tenant": "acme"}\n'], "line 4 of .*missing field `id`"),
        (lambda lines: [lines[0], lines[1].replace(b"one", b"\xff"), lines[2]], "line 2 of .*UTF-8"),
        (lambda lines: [lines[0], lines[1][:30]], "line 2 of .*EOF"),
        (lambda lines: [*lines, lines[2]], 'line 4 of .*line 3 has the id "b", too'),
        (lambda lines: [lines[0], lines[1].replace(b'"one"', b'" "')], "line 2 of .*it says nothing"),
        (lambda lines: [lines[0], lines[1].replace(b"acme", b"")], "line 2 of .*the tenant .* is refused"),
    ],
)
def test_a_line_that_is_none_is_told_and_nothing_is_imported(
    change: Callable[[list[bytes]], list[bytes]], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "export.jsonl"
    with Memory() as memory:
        memory.append(SCOPE, [NewTurn("user", "one", id="a"), NewTurn("user", "two", id="b")])
        memory.export(SCOPE, path)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with Memory() as memory:
        with pytest.raises(ValueError, match=words):
            memory.import_(path)
        assert memory.scopes(Scope("acme")) == []


def test_an_export_writes_over_nothing(tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    path.write_text("mine")
    with Memory() as memory:
        with pytest.raises(UnknownScope, match="nothing is remembered of tenant acme"):
            memory.export(Scope("acme"), tmp_path / "other.jsonl")
        memory.append(SCOPE, [("user", "x")])
        with pytest.raises(MemoryFailed, match="export.jsonl` cannot be written") as there:
            memory.export(SCOPE, path)
        assert isinstance(there.value.__cause__, FileExistsError) and path.read_text() == "mine"
        with pytest.raises(MemoryFailed, match="cannot be read") as none:
            memory.import_(tmp_path / "none.jsonl")
        assert isinstance(none.value.__cause__, FileNotFoundError)
        with pytest.raises(TypeError):
            memory.import_(None)  # type: ignore[arg-type]
