"""What no tool checks of the Python files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_line_is_longer_than_120_characters() -> None:
    folders = [ROOT / folder for folder in ("python", "examples/python", "benches/python")]
    files = [file for folder in folders for file in folder.rglob("*")]
    sources = [file for file in files if file.suffix in (".py", ".pyi")]
    assert len(sources) > 100
    long = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in sources
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 120
    ]
    assert long == []
