"""The examples that need Ray. Each begins a cluster of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_rag_on_ray() -> None:
    """Over a few files; ``make demo-ray`` reads thousands."""
    asked = [str(ROOT / "docs"), "--ext", "md", "-q", "What does clean mean?"]
    command = [sys.executable, str(ROOT / "examples" / "python" / "rag_on_ray.py"), *asked]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("the job succeeded and is clean") == 3
    assert ran.stdout.count("2 workers, of which 0 are left") == 2
    assert ran.stdout.endswith("The answers are equal.\n")


def test_on_ray() -> None:
    """Prints what its page in the cookbook says."""
    command = [sys.executable, str(ROOT / "examples" / "python" / "cookbook" / "on_ray.py")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    page = (ROOT / "docs" / "cookbook" / "ray.md").read_text(encoding="utf-8")
    assert ran.returncode == 0, ran.stderr
    assert [ran.stdout] == re.findall(r"It prints\n\n```text\n(.*?)```", page, re.DOTALL)
