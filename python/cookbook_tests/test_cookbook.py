"""The programs of the cookbook, with the packages that they use: each does what its page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from model_server import model_server
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

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
