"""Measures us beside Polars and DuckDB on the same inputs, with two processors for everybody, and compares answers.

A whole run puts its rows among those of target/bench/results.json and python.json, and writes the table of
docs/benchmarks.md. Any other run writes target/bench/columnar-partial.json and leaves them alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import installs
import machine
import rows
from columnar.contest import OURS, PROCESSORS, Contender, Failed, Goal, contest, judge, left_out
from installs import COLUMNAR, FOLDER, ROOT, InstallError
from rows import Row
from workloads import QUICK_SIZES, SIZES

LEAST_ROUNDS = 5

#: How each workload is called in the rows, its unit, how many of it are in a second, and what was promised.
WORKLOADS = {
    "r2_parallel": ("r2_parallel", "s", 1.0, Goal(0.7)),
    "r3": ("r3", "ns/record", 1e9, Goal(0.7)),
    "r4": ("r4", "ns/record", 1e9, Goal(0.7)),
    "p2": ("p2_ops", "µs/line", 1e6, Goal(1.0, "polars")),
}
TITLES = {name: peer.title for name, peer in COLUMNAR.items()}


def _chosen(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in WORKLOADS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}; choose from {','.join(WORKLOADS)}")
    return [name for name in WORKLOADS if name in chosen]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="columnar", description=__doc__)
    parser.add_argument("--only", type=_chosen, default=list(WORKLOADS), metavar="R3,P2", help="some of the workloads")
    parser.add_argument("--quick", action="store_true", help="a smoke test: small inputs, two rounds")
    parser.add_argument("--rounds", type=int, help="measurements of each (default: 5)")
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--bench", type=Path, default=ROOT / "target/release/bench", help="the engine's benchmark")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--wheel", type=Path, help="measure this wheel on p2 instead of building one")
    given.add_argument("--python", type=Path, help="measure the package that this interpreter finds; builds nothing")
    parser.add_argument("--out", type=Path, help="file for the figures")
    return parser.parse_args()


class Columnar:
    """One run: the interpreters of those who take part, and the rows so far."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.quick: bool = arguments.quick
        self.rounds: int = arguments.rounds or (2 if arguments.quick else LEAST_ROUNDS)
        self.bench: Path = arguments.bench
        self.rows: list[Row] = []
        self.pythons: dict[str, Path] = {}
        self.why: dict[str, str] = {}
        if "p2" in arguments.only:
            self.pythons[OURS] = arguments.python or installs.ours(arguments.wheel or installs.build())
        for name in COLUMNAR:
            try:
                if arguments.no_peers:
                    raise InstallError("left out")
                self.pythons[name] = installs.columnar(name)
            except InstallError as error:
                self.why[name] = str(error)

    def measure(self, workload: str) -> None:
        """Adds the rows of one workload."""
        name, unit, scale, goal = WORKLOADS[workload]

        def leave_out(system: str, why: str) -> None:
            self.rows.append(left_out(f"{name}_{system}", TITLES[system], why))

        for system, why in self.why.items():
            leave_out(system, why)
        ours, inputs, records = self._ours_in_python() if workload == "p2" else self._ours(workload)
        contenders = {OURS: ours}
        try:
            if workload == "p2":
                self._check(ours, inputs)
            for system in [name for name in COLUMNAR if name in self.pythons]:
                try:
                    contenders[system] = self._child(system, self.pythons[system], workload, inputs)
                except Failed as error:
                    leave_out(system, str(error))
            best = contest(contenders, self.rounds, scale / records, leave_out)
        finally:
            for contender in contenders.values():
                contender.end()
        _tell(f"{name:<12} ours {best[OURS].figure.median:.4g} {unit} {best[OURS].variant}")
        self.rows.extend(judge(name, unit, best, TITLES, goal))

    def _ours(self, workload: str) -> tuple[Contender, dict[str, Any], int]:
        """The engine's benchmark, which has written the inputs when it is ready."""
        if not self.bench.exists():
            raise Failed(f"there is no {self.bench}: run `cargo build --profile bench -p sage-benches`")
        options = ["--quick"] if self.quick else []
        ours = Contender(OURS, [str(self.bench), "--columnar", workload, *options])
        return ours, ours.ready["inputs"], ours.ready["records"]

    def _ours_in_python(self) -> tuple[Contender, dict[str, Any], int]:
        lines = (QUICK_SIZES if self.quick else SIZES)["p2"]
        inputs = {"lines": lines, "folder": str(FOLDER)}
        return self._child("sage", self.pythons[OURS], "p2", inputs), inputs, lines

    def _check(self, ours: Contender, inputs: dict[str, Any]) -> None:
        """Compares our answer with the loop's, which has no part in what follows."""
        loop = self._child("loop", self.pythons[OURS], "p2", inputs)
        _, expected = loop.run("")
        _, answer = ours.run("")
        loop.end()
        if answer != expected:
            raise Failed(f"our answer is {answer}, the loop's {expected}")

    def _child(self, system: str, python: Path, workload: str, inputs: dict[str, Any]) -> Contender:
        return Contender(system, [str(python), "-m", "columnar.child", system, workload, json.dumps(inputs)])


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _publish(measured: list[Row], rounds: int, share: float | None) -> None:
    """Puts the rows among those of the other benchmarks, and the table into the documentation."""
    python = [row for row in measured if row.name.startswith("p")]
    rows.merge(python, FOLDER / "python.json")
    rows.merge([row for row in measured if row not in python], FOLDER / "results.json")
    rows.rewrite(ROOT / "docs/benchmarks.md", rows.markdown(measured, machine.caption(rounds, share)), "columnar")


def main() -> int:
    arguments = _parse()
    os.chdir(ROOT)
    parts = arguments.only != list(WORKLOADS) or arguments.quick or arguments.python or arguments.no_peers
    whole = not parts and (arguments.rounds or LEAST_ROUNDS) >= LEAST_ROUNDS
    try:
        columnar = Columnar(arguments)
        # Ours has more threads than two, and would have the other processors to itself.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:PROCESSORS])
        neighbours = machine.Neighbours()
        for workload in arguments.only:
            _tell(f"measuring {workload}")
            columnar.measure(workload)
    except (Failed, InstallError) as error:
        _tell(f"error: {error}")
        return 1
    share = neighbours.share()
    print(rows.terminal(columnar.rows))
    if share is not None and share > 0.05:
        _tell(f"other programs took {share:.0%} of the processors meanwhile; repeat on a quiet machine")
    if whole:
        _publish(columnar.rows, columnar.rounds, share)
    else:
        rows.write_json(columnar.rows, arguments.out or FOLDER / "columnar-partial.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
