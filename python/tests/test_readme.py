"""The Python examples of the README and of the migration guide run, and print what they say."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
GUIDE = README.parent / "docs" / "coming-from-sage.md"


#: The first lines that each of them prints.
PRINTS = [["apples 60", "pears 135", "price list closed"], ["['WHO', 'WHY']"]]


def test_the_examples_of_the_readme_run(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == len(PRINTS)
    for example, prints in zip(examples, PRINTS):
        command = [sys.executable, "-c", example]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines()[: len(prints)] == prints


def test_the_examples_of_the_migration_guide_print_what_it_says(tmp_path: Path) -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```\n\nIt prints\n\n```text\n(.*?)```", guide, re.DOTALL)
    assert len(examples) == guide.count("```python") > 3
    for example, prints in examples:
        command = [sys.executable, "-c", example]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (run.returncode, run.stdout, run.stderr) == (0, prints, "")


def test_the_import_paths_of_the_migration_guide_exist() -> None:
    table = GUIDE.read_text(encoding="utf-8").partition("## Import paths")[2].partition("## What differs")[0]
    paths = re.findall(r"`(sage\.[a-z_.]+[a-z])`", table)
    assert len(paths) > 12
    for path in paths:
        importlib.import_module(path)
