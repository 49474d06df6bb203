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


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_has_a_test(example: str) -> None:
    assert f"def test_{example.removesuffix('.py')}(" in Path(__file__).read_text(encoding="utf-8")
