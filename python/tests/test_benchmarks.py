"""The benchmarks run, compare answers, and judge by the goals."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BENCHES = Path(__file__).parents[2] / "benches" / "python"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHES / "run.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_quick_run_writes_its_rows(tmp_path: Path) -> None:
    out = tmp_path / "python.json"
    ran = run("--quick", "--no-peers", "--only", "p1", "--python", sys.executable, "--out", str(out))
    assert ran.returncode == 0, ran.stderr
    (row,) = json.loads(out.read_text(encoding="utf-8"))
    assert row["name"] == "p1_loop" and row["versus"] == "loop" and row["unit"] == "ns/record"
    assert row["ratio"] == pytest.approx(row["ours"] / row["other"], rel=1e-2)
    assert row["met"] == (row["ratio"] <= 1 / 0.95)
    assert "p1_loop" in ran.stdout


def test_an_unknown_workload_is_refused() -> None:
    ran = run("--only", "p9")
    assert ran.returncode == 2 and "there is no 'p9'" in ran.stderr


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHES))
    return import_module


def test_wrong_answers_are_found(benches: Any) -> None:
    contender, loop = benches("contender"), benches("systems.loop")
    numbers = range(20)
    assert contender.wrong("p1", loop.p1(numbers), numbers) == ""
    assert contender.wrong("p1", loop.p1(range(19)), numbers) != ""
    assert contender.wrong("p2", {"a": 1}, ["a a"]) != ""
    assert contender.wrong("p4", (list(numbers), 200), numbers) == ""
    assert contender.wrong("p4", ([*numbers[1:], 0], 201), numbers) == "not in order, 201 in flight"


def test_the_table_is_put_between_its_markers(benches: Any, tmp_path: Path) -> None:
    rows = benches("rows")
    figure = rows.Figure
    missed = rows.compare("p1_loop", "ns", figure(11.0), "loop", figure(10.0), 1.05, "≥ 0.95× its speed")
    met = rows.limit("p6_import", "ms", figure(90.0), 100)
    assert (missed.met, met.met) == (False, True)
    document = tmp_path / "page.md"
    document.write_text(f"before\n{rows.BEGIN}\nold\n{rows.END}\nafter\n", encoding="utf-8")
    rows.rewrite(document, rows.markdown([missed, met, rows.missing("p1_ray", "Ray (left out)")], "On this machine."))
    lines = document.read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["before", rows.BEGIN, "On this machine."] and lines[-2:] == [rows.END, "after"]
    assert "| p1_loop | 11 | ns | loop | 10 | 1.1 | ratio ≤ 1.050 (≥ 0.95× its speed) | **MISSED** |" in lines
    assert "| p1_ray | – |  | Ray (left out) | – | – | reported | – |" in lines
