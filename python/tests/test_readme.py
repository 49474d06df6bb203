"""The Python examples of the README and of the pages of docs/ run, and print what is said."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sage
from sage import services

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs"
GUIDE = (DOCS / "guide.md").read_text(encoding="utf-8")
FROM_SAGE = (DOCS / "coming-from-sage.md").read_text(encoding="utf-8")

#: The first lines that each example of the guide prints.
PRINTS = [
    ["apples 60", "pears 135", "price list closed"],
    ["1000 of 1000 records, 1000 rests"],
    ["store: 2 texts written"],
    ["['WHY?', 'HOW?'] [3, 5]", "1"],
    ["3 True", "3 True"],
    [],
    ["Stopping 1"],
    ["[1] 3", "[0] 3"],
    ["You sent me 1. []", "You sent me 2. ['I moved to Basel in May.']", "4"],
    ["['good', 'weak'] [2]"],
    ["[('ada', 42), ('ben', 5)]", "[('ada', 30), ('ben', 5), ('ada', 42)]"],
    ["ada 0.0 2", "ada 60.0 1", "ben 0.0 1", "ben 120.0 1"],
    ["[('pot', None), ('tea', 'Bonn')]"],
    ["[3, 5] ['two']"],
    ["['WHO', 'WHY']"],
    ["asking 1", "asking 2"],
    ["1000 digests of 2 workers"],
    ["cleaned"],
    ["2 processes, 1 lost"],
]


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def run(example: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", example]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def without_times(report: str) -> str:
    """A report whose times are all the same, with one space between its columns."""
    return re.sub(r" +", " ", re.sub(r"[0-9.]+(ns|µs|ms|s)\b", "TIME", report))


def test_the_first_example_of_the_readme_prints_the_report_it_shows(tmp_path: Path) -> None:
    shown = re.search(r"The Python program prints:\n\n```text\n(.*?)```", README, re.DOTALL)
    ran = run(examples(README)[0], tmp_path)
    assert shown and ran.returncode == 0, ran.stderr
    assert without_times(ran.stdout.rstrip()) == without_times(shown[1].rstrip())


def test_the_first_example_of_the_readme_fails_as_it_says(tmp_path: Path) -> None:
    ran = run(examples(README)[0].replace("pears\"])", "plums\"])"), tmp_path)
    assert ran.returncode == 1 and ran.stdout.splitlines()[-1] == "price list closed"
    assert ran.stderr.splitlines()[-1] in README.splitlines()


def test_the_answers_of_the_readme_come_from_the_documents(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "stop.md").write_text("# Stopping\n\nTasks stop first.\n\nServices stop in reverse order.\n")
    ran = run(examples(README)[1], tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "Services stop in reverse order.\n  docs/stop.md:5\n"
    assert (tmp_path / "docs.sage").exists()


def test_the_rust_program_of_the_readme_that_answers_is_the_example_that_is_run() -> None:
    [shown] = re.findall(r"```rust,ignore\n(.*?)```", README, re.DOTALL)
    source = (ROOT / "crates" / "sage-services" / "examples" / "answers.rs").read_text(encoding="utf-8")
    assert source.split("\n\n", 1)[1] == shown


def test_the_dead_letters_of_the_readme_run(tmp_path: Path) -> None:
    _, _, dead_letters = examples(README)
    ran = run(dead_letters, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0] == "[3]" and ran.stdout.splitlines()[1].startswith('two 2 ["ValueError: ')


def test_the_examples_of_the_guide_run(tmp_path: Path) -> None:
    assert len(examples(GUIDE)) == len(PRINTS)
    for example, prints in zip(examples(GUIDE), PRINTS):
        ran = run(example, tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.splitlines()[: len(prints)] == prints


def names_in_tables(column: int) -> set[str]:
    """What the tables of the guide call in a column, but for methods of services they make up."""
    rows = [line.split(" | ") for line in GUIDE.splitlines() if re.match(r"\| \S.* \| .* \| ", line)]
    called = {name for row in rows for name in re.findall(r"([A-Za-z_]+)\(", row[column])}
    assert len(called) > 40
    return called - {"lambda", "search"}


def test_the_python_names_in_the_tables_of_the_guide_exist() -> None:
    modules = [importlib.import_module(name) for name in ("sage", "sage.ops", "sage.services", "sage.testing")]
    shown = [(owner, name) for owner in (sage, services) for name in owner.__all__]
    classes = [thing for owner, name in shown if isinstance(thing := getattr(owner, name), type)]
    assert names_in_tables(1) - {name for owner in [*modules, *classes] for name in dir(owner)} == set()


def test_the_rust_names_in_the_tables_of_the_guide_exist() -> None:
    crates = [ROOT / "crates" / name / "src" for name in ("sage-dataflow", "sage-services")]
    sources = [file.read_text(encoding="utf-8") for crate in crates for file in crate.rglob("*.rs")]
    public = set(re.findall(r"\bpub (?:const )?fn (\w+)", "\n".join(sources)))
    assert names_in_tables(2) - public - {"println", "Ok"} == set()


#: Pages each of whose examples says what it prints.
PRINTING = ["coming-from-sage", "cookbook/coming-from-others", "index", "tutorial"]
#: The page of the package.
PACKAGE = "../python/README"


@pytest.mark.parametrize("page", [*PRINTING, PACKAGE])
def test_the_examples_of_a_page_print_what_it_says(page: str, tmp_path: Path) -> None:
    """They run in one folder, one after another: some read what those before have written."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n(.*?)```\n\nIt prints\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(shown) == text.count("```python") > 0
    for example, prints in shown:
        ran = run(example, tmp_path)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert without_times(ran.stdout.rstrip()) == without_times(prints.rstrip())


def test_the_pages_of_packages_have_no_links_to_files() -> None:
    """They are read where no other file of the repository is."""
    pages = [ROOT / "python" / "README.md", *(ROOT / "crates").glob("*/README.md")]
    assert len(pages) > 5
    for page in pages:
        assert re.findall(r"\]\((?!https://)[^)]*\)", page.read_text(encoding="utf-8")) == [], page


def test_every_python_example_of_the_documentation_is_run() -> None:
    """An example that cannot run by itself is marked `py`, not `python`."""
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if examples(page.read_text(encoding="utf-8"))}
    # Cells of a notebook are run by the tests of the cookbook.
    assert pages == {"guide.md", "cookbook/notebook.md", *(f"{page}.md" for page in PRINTING)}


def test_the_import_paths_for_programs_of_sage_exist() -> None:
    table = FROM_SAGE.partition("## Import paths")[2].partition("## What differs")[0]
    paths = re.findall(r"`(sage\.[a-z_.]+[a-z])`", table)
    assert len(paths) > 12
    for path in paths:
        importlib.import_module(path)
