"""The examples run, and print what they are to print."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pip
import pytest
from llm_server import LlmServer

from sage.services import DocumentIndex, Embedder, Memory, Scope

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "python"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_sage_style() -> None:
    ran = run("sage_style.py")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "cellar: 5 readings, the highest 77.0 °F",
        "kitchen: 5 readings, the highest 75.2 °F",
    ]


def test_sage_joins() -> None:
    ran = run("sage_joins.py")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "anna has paid for 1 × pear (45)",
        "anna has paid for 2 × apple (60)",
        "anna paid 105",
        "ben has paid for 3 × pear (135)",
        "ben paid 100",
    ]
    assert ran.stderr == ""


def test_plain_functions(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Streams, streams and (streams)\nof words. Streams of things", encoding="utf-8")
    ran = run("plain_functions.py", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[:2] == ["4", "streams"]
    (tmp_path / "b.md").write_bytes(b"\xff")
    ran = run("plain_functions.py", str(tmp_path))
    assert ran.returncode == 1 and "UnicodeDecodeError" in ran.stderr


def test_shop() -> None:
    ran = run("shop.py")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "from minute 0: 1 × tea",
        "from minute 15: 1 × pot",
        "from minute 15: 1 × tea",
        "from minute 45: 1 × pot",
        "ada was there from minute 1 on: tea, tea",
        "ada was there from minute 49 on: pot, pot",
        "bob was there from minute 2 on: pot, tea",
        "bob was there from minute 18 on: tea",
        "cy was there from minute 12 on: pot, pot",
        "cy looked at the pot and did not order",
        "4 of 5 views led to an order in the same half hour",
    ]


def test_lookups(tmp_path: Path) -> None:
    ran = run("lookups.py", str(tmp_path / "failed.jsonl"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "connection closed",
        *(f"shop-{n}: {sum(10 * article for article in range(n, 40, 5))}" for n in range(5)),
        "after 3 attempts: a40 of shop-9: ConnectionError: shop-9 does not answer",
    ]


def test_memory(tmp_path: Path) -> None:
    path = tmp_path / "memory.sage"
    told = ["sessions: 1000", "turns: 5000", "recalled right: 1000 of 1000", "erased: 5 turns"]
    # The second time it goes on with the file: what was forgotten is said again, and nothing else is new.
    for _ in range(2):
        ran = run("memory.py", str(path))
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.splitlines() == told
        with Memory(path, embedder=Embedder()) as memory:
            assert memory.count(Scope("club")) == 4995
    # The other language goes on with it, too.
    command = ["cargo", "run", "--quiet", "--package", "sage-services", "--example", "memory", "--", str(path)]
    rust = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert rust.returncode == 0, rust.stderr
    assert rust.stdout.splitlines() == told


RUST = ["cargo", "run", "--quiet", "--package", "sage-services", "--example", "rag", "--"]


def answers(command: list[str], report: Path) -> tuple[dict[str, Any], str]:
    """The report of the demo in either language, and what it prints."""
    # The first of Rust's builds the example.
    command = [*command, "--report", str(report)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=900, check=False)
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return told, ran.stdout


def compare(arguments: list[str], tmp_path: Path) -> dict[str, Any]:
    python, printed = answers([sys.executable, str(EXAMPLES / "rag.py"), *arguments], tmp_path / "python.json")
    rust, printed_by_rust = answers([*RUST, *arguments], tmp_path / "rust.json")
    for answer in [*python["answers"], *rust["answers"]]:
        # One prints the shortest decimal of 32 bits, the other that of 64.
        answer["coverage"] = answer["coverage"] and round(answer["coverage"], 6)
    for key in ("answers", "documents", "passages", "embedded", "deleted", "passed_over", "not_utf8"):
        assert python[key] == rust[key], key
    end = printed.index(" questions asked")
    assert printed[:end] == printed_by_rust[:end]
    assert (python["job"]["outcome"], python["job"]["cleanliness"]) == ("succeeded", "clean")
    assert [service["state"] for service in python["job"]["services"]] == ["cleaned"] * 4
    return python


def chat(command: list[str], folder: Path, lines: str) -> str:
    """What is written in a conversation about a folder, whose memory lies in it."""
    command = [*command, str(folder), "--chat", "--memory", str(folder / "memory")]
    ran = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=ROOT, timeout=900, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "succeeded and is clean" in ran.stdout and "memory cleaned" in ran.stdout
    return ran.stdout[: ran.stdout.index(" documents read")]


def test_rag_chat(tmp_path: Path) -> None:
    """Each language goes on with the conversation of the other."""
    (tmp_path / "bees.md").write_text("Bees keep the hive at thirty-five degrees.", "utf-8")
    python = [sys.executable, str(EXAMPLES / "rag.py")]
    begun = "My parrot is called Coco.\nHow warm do bees keep the hive?\n"
    asked = "What is my parrot called?\n"
    written = []
    for first, then in ((python, RUST), (RUST, python)):
        said = chat(first, tmp_path, begun)
        assert "I shall remember that." in said and "bees.md:1" in said
        told = chat(then, tmp_path, f"{asked}/forget\n{asked}")
        assert "A: My parrot is called Coco.\n   what you said on 20" in told
        assert "erased of tenant rag, user you: 5 turns in 5 versions" in told
        assert told.count("A: no document answers this") == 1
        assert b"Coco" not in (tmp_path / "memory").read_bytes()
        (tmp_path / "memory").unlink()
        written.append((said, told.split("what you said")[0]))
    assert written[0] == written[1]


def test_a_signal_ends_a_conversation_at_once(tmp_path: Path) -> None:
    (tmp_path / "bees.md").write_text("Bees keep the hive at thirty-five degrees.", "utf-8")
    command = [sys.executable, "-u", str(EXAMPLES / "rag.py"), str(tmp_path), "--chat", "--memory", str(tmp_path / "m")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as chatting:
        assert chatting.stdin is not None and chatting.stdout is not None
        chatting.stdin.write("How warm do bees keep the hive?\n")
        chatting.stdin.flush()
        while "bees.md:1" not in (line := chatting.stdout.readline()):
            assert line
        begun = time.monotonic()
        chatting.send_signal(signal.SIGINT)
        chatting.stdout.read()
        assert chatting.wait() == 130
        # Not after the half minute that a drain may take.
        assert time.monotonic() - begun < 20


def test_rag(tmp_path: Path) -> None:
    told = compare([], tmp_path)
    in_workers, _ = answers([sys.executable, str(EXAMPLES / "rag.py"), "--workers", "processes"], tmp_path / "told")
    assert len(in_workers["job"]["workers"]) == 2
    for answer in in_workers["answers"]:
        answer["coverage"] = answer["coverage"] and round(answer["coverage"], 6)
    assert in_workers["answers"] == told["answers"]
    assert told["documents"] > 5 and len(told["answers"]) == 5
    assert all(answer["answer"] for answer in told["answers"])


def test_rag_over_a_folder_of_all_kinds(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "nature").mkdir(parents=True)
    bees = "# Bees\n\nBees keep the hive at thirty-five degrees\nwith their wings.\n"
    (folder / "nature" / "bees.md").write_text(bees, "utf-8")
    (folder / "page.html").write_text("<p>Clocks on ships were wound\nat noon by the second mate.</p>\n", "utf-8")
    (folder / "latin.txt").write_bytes(b"caf\xe9 opens at seven")
    (folder / "binary.txt").write_bytes(b"\0\0")
    (folder / "dashes.md").write_text("---\n", "utf-8")
    degrees = "At how many degrees do bees keep a hive?"
    # The last is the second again: the memory knows it.
    questions = ["When was the clock of a ship wound?", degrees, "Who fears elephants?", "?!", degrees]
    asked = [word for question in questions for word in ("-q", question)]
    told = compare([str(folder), *asked], tmp_path)
    paths = [answer["path"] for answer in told["answers"]]
    assert paths == ["page.html", "nature/bees.md", None, None, "nature/bees.md"]
    assert (told["documents"], told["passed_over"], told["not_utf8"]) == (4, 1, 1)


def test_rag_services(tmp_path: Path) -> None:
    folder, index = tmp_path / "folder", tmp_path / "index.sage"
    folder.mkdir()
    (folder / "bees.md").write_text("# Bees\n\nBees keep the hive warm.\n", "utf-8")
    (folder / "clocks.md").write_text("# Clocks\n\nClocks are wound at noon.\n", "utf-8")
    (folder / "ships.csv").write_text("ship,sails\nAurora,at dawn\n", "utf-8")
    asked = [str(folder), "-q", "When are clocks wound?", "-q", "When does Aurora sail?", "--at", str(index)]
    python = [sys.executable, str(EXAMPLES / "rag.py"), *asked]

    def ran(command: list[str]) -> tuple[list[int], str]:
        told, printed = answers(command, tmp_path / "report.json")
        return [told[name] for name in ("passages", "embedded", "deleted")], printed

    numbers, printed = ran(python)
    assert numbers == [3, 3, 0] and "clocks.md:3" in printed and "ships.csv:2" in printed
    again, printed_again = ran(python)
    assert again == [3, 0, 0] and printed_again[: printed_again.index("3 documents")] in printed
    # The other language goes on with the file.
    assert ran([*RUST, *asked])[0] == [3, 0, 0]
    (folder / "clocks.md").write_text("# Clocks\n\nClocks are wound at midnight.\n", "utf-8")
    (folder / "ships.csv").unlink()
    (folder / "zero.md").write_bytes(b"\0")
    numbers, printed = ran(python)
    assert numbers == [2, 1, 1] and "midnight" in printed and "Aurora\nA: no document" in printed.replace(" sail?", "")
    assert "2 passages stored (1 embedded, the others as they were; 1 deleted)" in printed
    # What cannot be read is not gone.
    (folder / "bees.md").write_bytes(b"\0")
    assert ran(python)[0] == [1, 0, 0] and ran([*RUST, *asked])[0] == [1, 0, 0]
    (folder / "bees.md").unlink()
    assert ran([*RUST, *asked])[0] == [1, 0, 1] and ran(python)[0] == [1, 0, 0]


def test_an_index_that_rust_has_made_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "stop.md").write_text("# Stopping\n\nTasks stop first. Services stop after them.\n", "utf-8")
    command = ["cargo", "run", "--quiet", "--manifest-path", str(ROOT / "Cargo.toml"), "--package", "sage-services"]
    ran = subprocess.run([*command, "--example", "answers"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "docs/stop.md:3" in ran.stdout, ran.stderr
    with DocumentIndex(tmp_path / "docs.sage", root=tmp_path) as index:
        assert (index.add(tmp_path / "docs" / "stop.md"), index.sweep(), index.count()) == (0, 0, 1)


def test_rag_with_models_of_a_provider(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "clocks.md").write_text("# Clocks\n\nClocks are wound at noon.\n", "utf-8")
    with LlmServer() as server:
        options = ["--embedder", "openai", "--embedder-url", server.url, "--dimensions", "2", "--key-from", "NO_KEY"]
        options += ["--llm", "openai", "--base-url", server.url, "--journal", str(tmp_path / "journal")]
        options += ["-q", "When are clocks wound?", "--at", str(tmp_path / "index.sage")]
        command = [sys.executable, str(EXAMPLES / "rag.py"), str(tmp_path / "docs"), *options]
        # The second time nothing is embedded but the question, and the answer is in the journal.
        for embedded, requests in ((1, 3), (0, 1)):
            told, printed = answers(command, tmp_path / "report.json")
            assert (told["embedded"], len(server.asked())) == (embedded, requests)
            assert printed.startswith("Q: When are clocks wound?\nA: [1] clocks.md:1-3 Clocks\n")
            assert "   clocks.md:1-3\n" in printed
            assert [service["state"] for service in told["job"]["services"]] == ["cleaned"] * 6


def test_rag_says_what_is_wrong(tmp_path: Path) -> None:
    for arguments, words in [
        (["/nowhere/at/all", "-q", "why"], "`/nowhere/at/all` is not a folder that can be read"),
        ([str(tmp_path)], "nothing to ask; give a question with --question"),
        ([str(tmp_path), "-q", " "], "a question is not empty"),
        ([str(tmp_path), "-q", "why", "--passages", "0"], "`0` is not a number from 1 to 50"),
        ([str(tmp_path), "--questions", "/nowhere"], "the questions in `/nowhere` cannot be read"),
        ([str(tmp_path), "-q", "why"], "no document in"),
        ([str(tmp_path), "-q", "why", "--embedder", "static"], "--weights FOLDER"),
        ([str(tmp_path), "-q", "why", "--embedder", "minilm", "--weights", "/nowhere"], "'/nowhere'"),
        ([str(tmp_path), "-q", "why", "--collection", "no name"], "is no name of a collection"),
        ([str(tmp_path), "-q", "why", "--store", "milvus", "--at", "http://127.0.0.1:9"], "Milvus at http://127"),
    ]:
        ran = run("rag.py", *arguments)
        assert ran.returncode in (1, 2) and words in ran.stderr and "Traceback" not in ran.stderr, ran.stderr
    assert "Example: rag.py docs" in run("rag.py", "--help").stdout


def test_jobmanager() -> None:
    # What it runs need not be written in Rust; the folder has some hundred files.
    command = [sys.executable, str(EXAMPLES / "jobmanager.py"), str(EXAMPLES / "rag.py"), "--folder", pip.__path__[0]]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("it succeeded, and is clean: drained") == 2
    assert ran.stdout.endswith("no process of it or of its jobs is left\n")


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_has_a_test(example: str) -> None:
    # What needs Ray is run where Ray is.
    tests = [Path(__file__), *(ROOT / "python" / "ray_tests").glob("test_*.py")]
    name = f"def test_{example.removesuffix('.py')}("
    assert any(name in test.read_text(encoding="utf-8") for test in tests)
