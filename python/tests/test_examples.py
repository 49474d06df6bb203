"""The examples run, and print what they are to print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"


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


def test_plain_functions(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Streams, streams and (streams)\nof words. Streams of things", encoding="utf-8")
    ran = run("plain_functions.py", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[:2] == ["4", "streams"]
    (tmp_path / "b.md").write_bytes(b"\xff")
    ran = run("plain_functions.py", str(tmp_path))
    assert ran.returncode == 1 and "UnicodeDecodeError" in ran.stderr


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_has_a_test(example: str) -> None:
    assert f"def test_{example.removesuffix('.py')}(" in Path(__file__).read_text(encoding="utf-8")
