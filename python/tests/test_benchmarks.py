"""The benchmarks run, compare answers, and judge by the goals."""

from __future__ import annotations

import json
import os
import re
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
    row, builtins = json.loads(out.read_text(encoding="utf-8"))
    assert (builtins["name"], builtins["goal"]) == ("p1_builtins", "reported")
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


def test_a_quick_run_beside_engines_of_columns_tells_why_they_are_not_there(tmp_path: Path) -> None:
    out = tmp_path / "columnar.json"
    command = [sys.executable, "-m", "columnar", "--quick", "--no-peers", "--only", "p2"]
    command += ["--python", sys.executable, "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": str(BENCHES)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^p2_ops +ours [0-9.]+ µs/line", ran.stderr, re.MULTILINE)
    told = [(row["name"], row["versus"], row["ours"]) for row in json.loads(out.read_text(encoding="utf-8"))]
    assert told == [
        ("p2_ops_polars", "Polars 2.1 (left out)", None),
        ("p2_ops_duckdb", "DuckDB 2.0 (left out)", None),
    ]


def contender(benches: Any, tmp_path: Path, system: str, answer: str, seconds: list[float]) -> Any:
    """A process that says how long it took, one after the other, and ends when that is all."""
    program = tmp_path / f"{system}.py"
    program.write_text(
        "import json\n"
        "print(json.dumps({'variants': ['']}), flush=True)\n"
        f"for seconds in {seconds}:\n"
        "    input()\n"
        f"    print(json.dumps({{'seconds': seconds, 'answer': {answer!r}}}), flush=True)\n"
        "raise SystemExit('that was all')\n",
        encoding="utf-8",
    )
    return benches("columnar.contest").Contender(system, [sys.executable, str(program)])


def test_the_first_round_warms_up_and_a_peer_that_fails_leaves(benches: Any, tmp_path: Path) -> None:
    contest = benches("columnar.contest")
    contenders = {
        "ours": contender(benches, tmp_path, "ours", "a", [9.0, 9.0, 1.0, 3.0, 2.0]),
        "polars": contender(benches, tmp_path, "polars", "a", [9.0, 4.0, 4.0, 4.0]),
        "duckdb": contender(benches, tmp_path, "duckdb", "a", [9.0, 5.0]),
    }
    left: list[tuple[str, str]] = []
    best = contest.contest(dict(contenders), 3, 10.0, lambda *why: left.append(why))
    assert {system: one.figure.median for system, one in best.items()} == {"ours": 20.0, "polars": 40.0}
    assert left == [("duckdb", "duckdb ended with 1: that was all")]
    for one in contenders.values():
        one.end()


def test_an_answer_that_is_not_ours_ends_the_contest(benches: Any, tmp_path: Path) -> None:
    contest = benches("columnar.contest")
    contenders = {
        "ours": contender(benches, tmp_path, "ours", "a", [1.0] * 5),
        "polars": contender(benches, tmp_path, "polars", "b", [1.0] * 5),
    }
    with pytest.raises(contest.Failed, match="polars answered b, ours a"):
        contest.contest(contenders, 2, 1.0, lambda *_: None)
    for one in contenders.values():
        one.end()


def test_the_goal_is_for_the_faster_peer_or_the_one_that_is_named(benches: Any) -> None:
    contest, rows = benches("columnar.contest"), benches("rows")
    best = {
        system: contest.Best(variant, rows.Figure(median))
        for system, variant, median in [("ours", "", 6.0), ("polars", "streaming", 10.0), ("duckdb", "", 8.0)]
    }
    titles = {"polars": "Polars", "duckdb": "DuckDB"}
    judged = contest.judge("r3", "ns/record", best, titles, contest.Goal(0.7))
    told = [(row.name, row.versus, row.met, row.goal) for row in judged]
    assert told == [
        ("r3_polars", "Polars (streaming)", None, "reported"),
        ("r3_duckdb", "DuckDB", False, "ratio ≤ 0.700 (the faster one)"),
    ]
    judged = contest.judge("p2_ops", "µs/line", best, titles, contest.Goal(1.0, "polars"))
    assert [row.met for row in judged] == [True, None]


def test_a_digest_is_the_one_that_the_engine_gives(benches: Any) -> None:
    assert benches("columnar.answers").digest({"b": 1, "a": 2}.items()) == "2 pairs c7e0b3b7bc0a8b11"


def test_rows_take_the_place_of_those_with_their_names(benches: Any, tmp_path: Path) -> None:
    rows = benches("rows")
    file = tmp_path / "results.json"
    rows.write_json([rows.missing("r3_hand", "old"), rows.missing("r3_polars", "old")], file)
    rows.merge([rows.missing("r3_polars", "new"), rows.missing("r3_duckdb", "new")], file)
    told = [(row["name"], row["versus"]) for row in json.loads(file.read_text(encoding="utf-8"))]
    assert told == [("r3_hand", "old"), ("r3_polars", "new"), ("r3_duckdb", "new")]
