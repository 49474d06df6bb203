"""The Python examples of the README run, and print what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


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
