"""The programs of the cookbook, with the packages that they use: each does what its page says."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyarrow.parquet
import pytest
from model_server import model_server
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from sage import read_letters
from sage._inotify import FILE, FOLDER, Watch

# A shell's background commands begin with SIGINT ignored, and so would the programs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "examples" / "python" / "cookbook"
PAGES = ROOT / "docs" / "cookbook"


def run(program: str, *arguments: str, given: str = "", folder: Path = ROOT, **variables: str) -> str:
    """What a program prints, which has to succeed."""
    command = [sys.executable, str(PROGRAMS / program), *arguments]
    told: dict[str, Any] = {"input": given, "env": {**os.environ, **variables}, "cwd": folder}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **told)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def says(page: str) -> list[str]:
    """What a page says that its program prints."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"prints\n\n```text\n(.*?)```", text, re.DOTALL)


def reads(page: str) -> dict[str, str]:
    """The files that a page shows: blocks of code with the name of a file in the line above."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)```", text, re.DOTALL | re.MULTILINE))


def written(page: str, folder: Path) -> None:
    """Writes the files that a page shows."""
    for name, text in reads(page).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_rag_evaluation(tmp_path: Path) -> None:
    written("rag-evaluation", tmp_path)
    assert [run("rag_evaluation.py", "notes", "questions.jsonl", folder=tmp_path)] == says("rag-evaluation")


def test_chat_memory() -> None:
    given = reads("chat-memory")["messages.jsonl"]
    # Tells what it was told before.
    with model_server(lambda messages: " + ".join(m["content"] for m in messages if m["role"] == "user")) as variables:
        printed = run("chat_memory.py", given=given, **variables)
    # Users are answered at the same time, so only the order of each one's answers is certain.
    assert sorted(printed.splitlines()) == sorted(says("chat-memory")[0].splitlines())


def test_pydantic_output(tmp_path: Path) -> None:
    written("pydantic-output", tmp_path)
    lock, asked = threading.Lock(), dict[str, int]()

    def answers(messages: list[dict[str, str]]) -> str | int:
        review = messages[-1]["content"]
        with lock:
            attempt = asked[review] = asked.get(review, 0) + 1
        if "leaks" in review and attempt == 1:
            return 503
        if "good" in review and attempt == 1:
            return "I would say five stars."
        stars = next(stars for word, stars in (("good", 5), ("leaks", 1), ("colour", 9)) if word in review)
        return json.dumps({"product": "tea", "feeling": "happy" if stars > 3 else "unhappy", "stars": stars})

    with model_server(answers) as variables:
        printed = run("pydantic_output.py", "reviews.txt", "forms.jsonl", folder=tmp_path, **variables)
    assert [printed] == says("pydantic-output")
    forms = [json.loads(line) for line in (tmp_path / "forms.jsonl").read_text().splitlines()]
    assert [form["stars"] for form in forms] == [5, 1] and max(asked.values()) == 3
    (letter,) = (tmp_path / "forms.jsonl.failed").read_text().splitlines()
    assert "less than or equal to 5" in letter


def test_testing_a_pipeline() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PROGRAMS / "testing_a_pipeline.py")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0 and "4 passed" in ran.stdout, ran.stdout


def test_kafka_topics() -> None:
    assert [run("kafka_topics.py")] == says("kafka")


def test_folder_to_chroma(tmp_path: Path) -> None:
    written("folder-to-vector-store", tmp_path)
    asked = ("notes", "database", "Who wound the clocks of a ship?")
    for _ in range(2):  # the second time replaces what is there
        assert [run("folder_to_chroma.py", *asked, folder=tmp_path)] == says("folder-to-vector-store")


def test_jsonl_to_llm(tmp_path: Path) -> None:
    written("jsonl-to-llm", tmp_path)
    asked: list[str] = []
    goes_on, is_killed = threading.Event(), threading.Event()

    def answers(messages: list[dict[str, str]]) -> str | int:
        question = messages[-1]["content"]
        asked.append(question)
        if question == "why?" and not is_killed.is_set():
            goes_on.set()
            is_killed.wait(60)
        if question == "?!":
            return 400
        return 429 if asked.count(question) == 1 and question == "when?" else question.upper()

    files = ("questions.jsonl", "answers.jsonl")
    with model_server(answers) as variables:
        command = [sys.executable, str(PROGRAMS / "jsonl_to_llm.py"), *files]
        with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **variables}) as killed:
            try:
                assert goes_on.wait(60)
                answered = tmp_path / "answers.jsonl"
                wait_until(lambda: answered.exists() and "WHO?" in answered.read_text(), tmp_path, killed)
            finally:
                killed.kill()
        is_killed.set()
        printed = run("jsonl_to_llm.py", *files, folder=tmp_path, **variables)
    kept = {record["id"]: record["answer"] for record in map(json.loads, open(tmp_path / "answers.jsonl"))}
    assert kept == {1: "WHO?", 2: "WHY?", 3: "WHEN?"} and asked.count("who?") == 1
    assert [printed.replace(str(tmp_path) + "/", "")] == says("jsonl-to-llm")


@contextmanager
def judge(*arguments: str, tells_at: int) -> Iterator[tuple[str, threading.Event]]:
    """A server that is like a model's, and judges its clients. Gives its address, and what is set when it was asked so
    many times."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("llmock")), "serve", "--port", str(port), *arguments]
    is_up, is_asked = threading.Event(), threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:

        def read() -> None:
            asked = 0
            for line in server.stdout or ():
                asked += "POST /v1/chat/completions" in line
                if asked == tells_at:
                    is_asked.set()
                if "Uvicorn running" in line:
                    is_up.set()

        reading = threading.Thread(target=read)
        reading.start()
        try:
            assert is_up.wait(60)
            yield f"http://127.0.0.1:{port}", is_asked
        finally:
            server.kill()
            reading.join()


def test_two_thousand_records_go_through_a_model_once_though_they_are_interrupted(tmp_path: Path) -> None:
    questions = [{"id": number, "question": f"number {number}?"} for number in range(2_000)]
    del questions[1_990]["question"]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(question)}\n" for question in questions))
    out = tmp_path / "out.jsonl"
    limits = "--rpm", "30000", "--tpm", "100000000", "--error-rate", "503=0.02", "--error-rate-429", "0.02"
    with judge(*limits, "--response-style", "echo", tells_at=400) as (address, is_asked):
        variables = {"OPENAI_BASE_URL": f"{address}/v1", "OPENAI_API_KEY": "mock-key"}
        command = [sys.executable, str(PROGRAMS / "jsonl_to_llm.py"), "in.jsonl", "out.jsonl"]
        options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, **variables}}
        with subprocess.Popen(command, stderr=subprocess.PIPE, **options) as first:
            try:
                assert is_asked.wait(60)
                first.send_signal(signal.SIGINT)
                first.communicate(timeout=60)
            finally:
                first.kill()
        assert first.returncode == -signal.SIGINT
        before = ids(out)
        assert 300 <= len(before) < 2_000
        printed = run("jsonl_to_llm.py", "in.jsonl", "out.jsonl", folder=tmp_path, **variables)
        assert f"{len(before):,} records were skipped, as their keys are in out.jsonl" in printed
        with urlopen(f"{address}/_llmock/verdict") as answer:
            verdict = json.load(answer)
    done, (letter,) = ids(out), read_letters(tmp_path / "out.jsonl.failed")
    assert letter.record == {"id": 1_990}
    assert done[: len(before)] == before
    assert sorted(done) == [number for number in range(2_000) if number != 1_990]
    assert verdict["findings"] == []
    assert verdict["calls"] == len(done), "nothing was paid for twice"


def ids(path: Path) -> list[int]:
    """The ids of the records of a file."""
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


#: A file in a watched folder was deleted, such as the journal of a database when a transaction is committed.
DELETE = 0x200


def wait_until(has_come: Callable[[], bool], folder: Path, process: subprocess.Popen[Any]) -> None:
    """Waits until a process has done something in a folder; looks whenever one of the files there has changed."""
    watch, ends = Watch(), os.pidfd_open(process.pid)
    try:
        watch.add(str(folder), FILE | FOLDER | DELETE)
        while not has_come():
            ready, _, _ = select.select([watch.descriptor, ends], [], [], 60)
            assert ready == [watch.descriptor], "it has ended, or 60 s have passed"
            watch.drain()
    finally:
        watch.close()
        os.close(ends)


def test_tail_to_sqlite(tmp_path: Path) -> None:
    written("tail-to-sqlite", tmp_path)

    def counts() -> list[tuple[str, str, int]]:
        # It is the program that makes the file.
        with closing(sqlite3.connect(f"file:{tmp_path}/counts.db?mode=ro", uri=True)) as database:
            return database.execute("select * from requests order by minute, user").fetchall()

    def follow(until: int) -> None:
        """Runs the program until it has counted so many requests, and interrupts it."""
        command = [sys.executable, str(PROGRAMS / "tail_to_sqlite.py"), "access.log", "counts.db"]
        with subprocess.Popen(command, cwd=tmp_path) as following:
            try:
                wait_until(lambda: sum(count for *_, count in tolerant(counts)) >= until, tmp_path, following)
                following.send_signal(signal.SIGINT)
                assert following.wait(60) == 0
            finally:
                following.kill()

    follow(3)
    assert counts() == [("2026-11-27 21:05", "ada", 2), ("2026-11-27 21:05", "ben", 1)]
    with open(tmp_path / "access.log", "a") as log:
        log.write("2026-11-27T21:06:02 ada GET /cart\n")
    follow(4)
    assert counts()[-1] == ("2026-11-27 21:06", "ada", 1) and len(counts()) == 3


def tolerant(counts: Callable[[], list[Any]]) -> list[Any]:
    """What is counted so far; nothing while there is no file or no table yet."""
    try:
        return counts()
    except sqlite3.OperationalError:
        return []


def test_parquet_files(tmp_path: Path) -> None:
    page = (PAGES / "parquet.md").read_text(encoding="utf-8")
    (made,) = re.findall(r"```py\n(import pyarrow.*?)```", page, re.DOTALL)
    subprocess.run([sys.executable, "-c", made], cwd=tmp_path, check=True)
    assert [run("parquet_files.py", "trips/*.parquet", "speeds.parquet", folder=tmp_path)] == says("parquet")
    assert pyarrow.parquet.read_table(tmp_path / "speeds.parquet")["speed"].to_pylist() == [36.0, 54.0]


def test_the_cells_of_a_notebook(tmp_path: Path) -> None:
    page = (PAGES / "notebook.md").read_text(encoding="utf-8")
    cells = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    place = {"metadata": {"path": str(tmp_path)}}
    done = NotebookClient(notebook, timeout=60, kernel_name="python3", resources=place).execute()
    drawing, report = (str(cell.outputs[-1].data["text/html"]) for cell in done.cells[:2])
    assert "<svg" in drawing and "succeeded" in report
    printed = [cell.outputs[0].text for cell in done.cells[2:] if cell.outputs[0].name == "stdout"]
    assert printed == says("notebook")


@pytest.mark.parametrize("program", sorted(path.name for path in PROGRAMS.iterdir() if path.suffix == ".py"))
def test_every_program_has_a_test_and_a_page(program: str) -> None:
    # What needs Ray is run where Ray is.
    tests = [Path(__file__), ROOT / "python" / "ray_tests" / "test_examples.py"]
    name = f"def test_{program.removesuffix('.py')}("
    assert any(name in test.read_text(encoding="utf-8") for test in tests)
    assert any(f"cookbook/{program})" in page.read_text(encoding="utf-8") for page in PAGES.glob("*.md"))
