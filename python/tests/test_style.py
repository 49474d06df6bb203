"""What no tool checks of the repository's files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ["benches", "crates", "docs", "examples", "python"]
SUFFIXES = [".md", ".py", ".pyi", ".rs", ".sh", ".toml"]
WIDTH = 120


def files() -> Iterator[Path]:
    """Everything that people write: sources, prose, scripts and manifests."""
    yield from (ROOT / name for name in ("Makefile", "mkdocs.yml", ".ci/run", ".ci/notices.py", ".ci/wheels.py"))
    for folder in [ROOT, *(ROOT / name for name in FOLDERS)]:
        found = folder.glob("*") if folder == ROOT else folder.rglob("*")
        yield from (file for file in found if file.suffix in SUFFIXES)


def is_too_long(line: str) -> bool:
    """Whether a line is over the limit and could be shorter: rows of tables and URLs cannot be broken."""
    is_row = re.match(r"\s*(//[/!]|#)?\s*\|", line) is not None
    return len(re.sub(r"https?://\S+", "", line)) > WIDTH and not is_row


def test_no_line_is_longer_than_120_characters() -> None:
    seen = list(files())
    long = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in seen
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if is_too_long(line)
    ]
    assert long == []
    for suffix in [".md", ".py", ".rs"]:
        assert sum(file.suffix == suffix for file in seen) > 30


def test_only_rows_and_urls_may_be_long() -> None:
    words = "word " * 30
    assert is_too_long(words) and is_too_long(f"/// {words}") and is_too_long(f"# {words}")
    assert not is_too_long(f"| {words} |") and not is_too_long(f"    /// | {words} |")
    assert not is_too_long(f"See https://example.com/{'a' * 200}") and is_too_long(f"{words} https://example.com")
