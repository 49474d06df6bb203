"""Measures the Python package beside loops, asyncio and other systems, and writes what came out.

Each round runs every system once, in a process of its own, and each begins with another; our contenders and the loops
share one process, so that whatever slows it slows both. What stands in the table are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import installs
import machine
import retrieval
import rows
from installs import FOLDER, PEERS, ROOT, InstallError
from options import WORKLOADS, parse
from rows import Figure, Row
from workloads import PROCESSES, QUICK_SIZES, SIZES

HERE = Path(__file__).parent

#: The longest that a process may take, in seconds.
PATIENCE = 900

LONGEST_REASON = 120

#: A table of fewer is not published.
LEAST_ROUNDS = 5

UNITS = {"p1": ("ns/record", 1e9), "p2": ("µs/line", 1e6), "p3": ("ns/call", 1e9), "p4": ("µs/await", 1e6)}
UNITS |= {"p5": ("µs/record", 1e6), "ints": ("ns/record", 1e9), "dicts": ("µs/record", 1e6)}
UNITS |= {"large": ("µs/record", 1e6), "calls": ("µs/call", 1e6)}
UNITS |= {"policy": ("µs/call", 1e6)}
UNITS |= {"keyed": ("µs/record", 1e6), "many": ("s", 1.0), "begin": ("s", 1.0)}

#: Workloads of several processes, in which no peer takes part.
SPREAD = ("p5", "ints", "dicts", "large", "calls")


class Failed(Exception):
    """A contender ended with an error, or its answer is wrong."""


class Bench:
    """One run: who takes part, and the rows so far."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.quick: bool = arguments.quick
        self.rounds: int = arguments.rounds or (2 if arguments.quick else LEAST_ROUNDS)
        self.sizes = QUICK_SIZES if arguments.quick else SIZES
        self.only: list[str] = arguments.only
        self.rows: list[Row] = []
        self.wheel: Path | None = None
        self.pythons: dict[str, Path] = {}
        if arguments.python:
            self.pythons["sage"] = arguments.python
        else:
            wheel = self.wheel = arguments.wheel or _told("building the wheel", installs.build)
            self.pythons["sage"] = _told("installing it", lambda: installs.ours(wheel))
        if arguments.ray_python:
            self.pythons["on_ray"] = arguments.ray_python
        elif self.wheel and arguments.peers == "all" and "ray" in self.only:
            wheel = self.wheel
            self.pythons["on_ray"] = _told("installing it beside Ray", lambda: installs.on_ray(wheel))
        if self.wheel:
            self._beside_others(self.wheel)
        for name, peer in PEERS.items():
            if arguments.peers == "none":
                continue
            if arguments.peers != "all" and not peer.default:
                self._leave_out(name, "large; only with --peers all")
                continue
            try:
                self.pythons[name] = _told(f"installing {peer.title}", lambda: installs.peer(name))
            except InstallError as error:
                self._leave_out(name, f"not installed: {error}")

    def _beside_others(self, wheel: Path) -> None:
        """Installs the wheel beside what some workloads need."""
        if "policy" in self.only:
            self.pythons["limited"] = _told("installing it beside tenacity", lambda: installs.limited(wheel))
        if "recall" in self.only:
            self.pythons["vectors"] = _told("installing it beside indexes", lambda: installs.vectors(wheel))
        for name in ("sage", *installs.FRAMEWORKS) if "p8" in self.only else ():
            self.pythons[f"rag_{name}"] = _told(f"installing rag/{name}", partial(installs.rag, name, wheel))

    def _leave_out(self, name: str, why: str, workload: str = "") -> None:
        # Some errors are pages long, and a table has columns.
        why = f"{PEERS[name].title} ({why[:LONGEST_REASON]})".replace("|", "/")
        _tell(f"left out: {why}")
        self.rows.append(rows.missing(f"{workload or self.only[0]}_{name}", why))

    def _peers(self) -> list[str]:
        return [name for name in self.pythons if name in PEERS]

    def throughput(self, workload: str) -> dict[str, Figure]:
        """The cost per record of every variant of every system, by the variant's name; rows for the peers."""
        unit, scale = UNITS[workload]
        costs: dict[str, list[float]] = defaultdict(list)
        notes: dict[str, str] = {}
        taking_part = ["sage", *([] if workload in SPREAD else self._peers())]
        for turn in range(self.rounds):
            first = turn % len(taking_part)
            for system in taking_part[first:] + taking_part[:first]:
                if system != "sage" and turn >= PEERS[system].rounds:
                    continue
                ours = system == "sage"
                try:
                    own = "loop,pools,sage" if workload in SPREAD else "loop,sage"
                    lines = self._contend(own if ours else system, workload, self.sizes[workload], turn=turn)
                except Failed as error:
                    if ours:
                        raise
                    self._leave_out(system, f"failed: {error}", workload)
                    taking_part = [name for name in taking_part if name != system]
                    continue
                for line in lines:
                    if line["wrong"]:
                        # A peer need not have a limit of what is in flight, or an order; all else must be right.
                        if ours or workload != "p4":
                            raise Failed(f"{line['variant']} on {workload}: {line['wrong']}")
                        notes[line["variant"]] = line["wrong"]
                    if not ours and line["records"] < self.sizes[workload]:
                        notes[line["variant"]] = f"{line['records']:,} records"
                    costs[line["variant"]].append(line["seconds"] / line["records"] * scale)
        figures = {variant: Figure.of(values) for variant, values in costs.items()}
        for variant, figure in figures.items():
            system, _, kind = variant.partition("_")
            if system in PEERS:
                said = ", ".join(filter(None, (kind, notes.get(variant))))
                versus = PEERS[system].title + (f" ({said})" if said else "")
                self.rows.append(rows.compare(f"{workload}_{variant}", unit, figures["sage"], versus, figure))
        return figures

    def against(
        self, name: str, figures: dict[str, Figure], ours: str, other: str, versus: str, times: float | None = None,
        *, at_most: float | None = None,
    ) -> None:
        """A row of our variant beside a loop; ``times`` is the part of the loop's speed that was promised, if any, or
        ``at_most`` the ratio."""
        unit, _ = UNITS[name.split("_")[0]]
        at_most = 1 / times if times else at_most
        meaning = f"≥ {1 / at_most:.3g}× its speed" if at_most else ""
        self.rows.append(rows.compare(name, unit, figures[ours], versus, figures[other], at_most, meaning))

    def p1(self) -> None:
        figures = self.throughput("p1")
        self.against("p1_loop", figures, "sage", "loop", "loop", 0.95)
        self.against("p1_builtins", figures, "sage_builtins", "loop_builtins", "loop; functions in C in both")

    def p2(self) -> None:
        figures = self.throughput("p2")
        self.against("p2_loop", figures, "sage", "loop", "loop", at_most=1.1)
        self.against("p2_ops", figures, "sage_ops", "loop", "loop; ours with sage.ops", 5)
        self.against("p2_fold", figures, "sage_fold", "loop_fold", "loop; a function counts in both")

    def p3(self) -> None:
        figures = self.throughput("p3")
        calls, bound = "loop; a function calls the method", "loop; the bound method is the function"
        self.against("p3_call_service", figures, "sage", "loop", calls, at_most=1.8)
        self.against("p3_handle", figures, "sage_handle", "loop", calls, at_most=1.5)
        self.against("p3_bound", figures, "sage_bound", "loop_bound", bound, at_most=1.5)
        # Promised are 100,000 calls a second.
        self.rows.append(rows.limit("p3_timeout", "ns/call", figures["sage_timeout"], 10_000))
        self.rows.append(rows.limit("p3_handle_timeout", "ns/call", figures["sage_handle_timeout"], 10_000))

    def p4(self) -> None:
        figures = self.throughput("p4")
        self.against("p4_asyncio", figures, "sage", "loop", "asyncio's gather with a semaphore", 1)

    def p5(self) -> None:
        """Two processes at work: the loop, what two of them could do at best, and the best pool."""
        figures = self.throughput("p5")
        self.against("p5_loop", figures, "sage", "loop", "loop", 1.9)
        self.against("p5_halves", figures, "sage", "halves", "two plain processes, half the input each", 0.95)
        self._best_pool("p5", figures, 1.0)

    def proc(self) -> None:
        """What it costs to have functions in processes."""
        ints = self.throughput("ints")
        self.against("ints_threads", ints, "sage_processes", "sage", "ours on threads", 0.5)
        self._best_pool("dicts", self.throughput("dicts"), 1.2)
        self._best_pool("large", self.throughput("large"), 2.0)
        calls = self.throughput("calls")
        self.rows.append(rows.limit("calls_from_worker", "µs/call", calls["sage"], 20))
        begins = [self._contend("sage", "begin", 1, repeats=5)[0]["seconds"] * 1e3 for _ in range(self.rounds)]
        self.rows.append(rows.limit("proc_begin", "ms", Figure.of(begins), 150))

    def ray(self) -> None:
        """Functions in actors of a Ray cluster that runs already. For those with two workers, what a job of one record
        takes is not counted: most of that is the begin of the actors."""
        if "on_ray" not in self.pythons:
            self.rows.append(rows.missing("ray", "Ray (large; only with --peers all or --ray-python)"))
            return
        begin = {name: figure.median for name, figure in self._on_ray("begin", {}).items()}
        ints, p5, keyed = self._on_ray("ints", {}), self._on_ray("p5", begin), self._on_ray("keyed", begin)
        self.against("ints_on_ray", ints, "ray", "processes", "ours in processes", 0.6)
        self.against("ints_ray_data", ints, "ray", "data", "Ray Data", 5)
        self.against("p5_on_ray", p5, "ray", "loop", "loop", 1.7)
        self.against("keyed_on_ray", keyed, "ray", "processes", "ours in processes")
        # Promised are 150,000 records a second and processor.
        self.rows.append(rows.limit("keyed_on_ray_limit", "µs/record", keyed["ray"], 1e6 / 150_000 / PROCESSES))
        # Promised are 30,000 calls a second.
        self.rows.append(rows.limit("calls_on_ray", "µs/call", self._on_ray("calls", {})["ray"], 1e6 / 30_000))
        many = self._on_ray("many", {})
        beyond = Figure(max(0.0, many["ray"].median - many["actors"].median), many["ray"].spread)
        self.rows.append(rows.limit("many_on_ray", "s beyond as many empty actors", beyond, 4))

    def _on_ray(self, workload: str, begin: dict[str, float]) -> dict[str, Figure]:
        """As ``throughput``, of what runs where Ray is: without the time that each variant takes to begin."""
        _, scale = UNITS[workload]
        costs: dict[str, list[float]] = defaultdict(list)
        for turn in range(self.rounds):
            for line in self._contend("loop,on_ray", workload, self.sizes[workload], turn=turn):
                if line["wrong"]:
                    raise Failed(f"{line['variant']} on {workload}: {line['wrong']}")
                seconds = max(0.0, line["seconds"] - begin.get(line["variant"], 0.0))
                costs[line["variant"]].append(seconds / line["records"] * scale)
        return {variant: Figure.of(values) for variant, values in costs.items()}

    def _best_pool(self, workload: str, figures: dict[str, Figure], times: float) -> None:
        pools = {name: figure.median for name, figure in figures.items() if name.startswith("pool_")}
        best = min(pools, key=lambda name: pools[name])
        versus = f"Pool.imap, chunks of {best.removeprefix('pool_')}"
        self.against(f"{workload}_pool", figures, "sage", best, versus, times)

    def p6(self) -> None:
        """Fixed costs: of the import, of a small job, of a program, of the end of a job, and of the package."""
        for system in ("sage", *self._peers()):
            try:
                imports, jobs, programs = self._fixed(system)
            except Failed as error:
                if system == "sage":
                    raise
                self._leave_out(system, f"failed: {error}", "p6")
                continue
            if system == "sage":
                ours = imports, jobs, programs
                self.rows.append(rows.limit("p6_import", "ms", imports, 100))
                self.rows.append(rows.limit("p6_ten_records", "ms", jobs, 1))
                self.rows.append(rows.limit("p6_process", "ms", programs, 250))
            else:
                title = PEERS[system].title
                for name, mine, other in zip(("import", "ten_records", "process"), ours, (imports, jobs, programs)):
                    self.rows.append(rows.compare(f"p6_{name}_{system}", "ms", mine, title, other))
        lines = [self._contend("sage", "return", 1_000, repeats=11)[0] for _ in range(self.rounds)]
        self.rows.append(rows.limit("p6_return", "ms", Figure.of([line["seconds"] * 1e3 for line in lines]), 2))
        self._sizes()

    def _fixed(self, system: str) -> tuple[Figure, Figure, Figure]:
        imported = PEERS[system].imports if system in PEERS else system
        timed = f"from time import perf_counter as t; a = t(); import {imported}; print(t() - a)"
        imports, jobs, programs = [], [], []
        for _ in range(self.rounds):
            imports.append(float(self._python(system, "-c", timed).split()[-1]) * 1e3)
            jobs.append(self._contend(system, "p1", 10, repeats=21, first=True)[0]["seconds"] * 1e3)
            begin = time.perf_counter()
            self._python(system, HERE / "program.py", system, "10")
            programs.append((time.perf_counter() - begin) * 1e3)
        return Figure.of(imports), Figure.of(jobs), Figure.of(programs)

    def _sizes(self) -> None:
        if self.wheel is None:
            self.rows.append(rows.missing("p6_wheel", "the limit (no wheel was built: --python)"))
            return
        self.rows.append(rows.limit("p6_wheel", "MB", Figure(self.wheel.stat().st_size / 1e6), 20))
        megabytes, packages = installs.weigh(self.pythons["sage"])
        ours = Figure(megabytes)
        self.rows.append(rows.limit("p6_installed", "MB", ours, 60))
        self.rows.append(rows.limit("p6_packages", "packages", Figure(packages), 1))
        for name in self._peers():
            megabytes, packages = installs.weigh(self.pythons[name])
            versus = f"{PEERS[name].title}, {packages} packages"
            self.rows.append(rows.compare(f"p6_installed_{name}", "MB", ours, versus, Figure(megabytes)))

    def p7(self) -> None:
        """Peak memory of a process that runs P1 over one and over five times its records."""
        small = self.sizes["p1"]
        ours = {size: self._peak("sage", size) for size in (small, 5 * small)}
        self.rows.append(rows.limit("p7_1m", "MB", ours[small], 35))
        self.rows.append(rows.limit("p7_5m", "MB", ours[5 * small], 35))
        growth = Figure(max(0.0, ours[5 * small].median - ours[small].median))
        self.rows.append(rows.limit("p7_flat", "MB of growth", growth, 2))
        for system in ("loop", *self._peers()):
            title = PEERS[system].title if system in PEERS else "loop"
            for size, name in ((small, "1m"), (5 * small, "5m")):
                try:
                    peak = self._peak(system, size)
                except Failed as error:
                    self._leave_out(system, f"failed: {error}", f"p7_{name}")
                    break
                self.rows.append(rows.compare(f"p7_{name}_{system}", "MB", ours[size], title, peak))

    def policy(self) -> None:
        """Calls of a service through retry, rate and concurrency."""
        if "limited" not in self.pythons:
            self.rows.append(rows.missing("policy", "tenacity and aiolimiter (no wheel was built: --python)"))
            return
        costs: dict[str, list[float]] = defaultdict(list)
        for turn in range(self.rounds):
            for line in self._contend("limited", "policy", self.sizes["policy"], turn=turn):
                if line["wrong"]:
                    raise Failed(f"{line['variant']} on policy: {line['wrong']}")
                costs[line["variant"]].append(line["seconds"] / line["records"] * 1e6)
        figures = {variant: Figure.of(values) for variant, values in costs.items()}
        self.against("policy", figures, "sage", "asyncio", "asyncio with tenacity and aiolimiter", 1)

    def recall(self) -> None:
        """Searches of our index of vectors, and of others."""
        if "vectors" not in self.pythons:
            self.rows.append(rows.missing("recall", "HNSW (no wheel was built: --python)"))
            return
        self.rows.extend(retrieval.recall(self._python, self.rounds, self.quick))

    def p8(self) -> None:
        """A RAG program, without what its embedder takes."""
        if "rag_sage" not in self.pythons:
            self.rows.append(rows.missing("p8", "LangChain (no wheel was built: --python)"))
            return
        self.rows.extend(retrieval.p8(self._python, self.rounds, self.quick))

    def _peak(self, system: str, size: int) -> Figure:
        rounds = self.rounds if system == "sage" else 1
        outputs = [self._python(system, HERE / "program.py", system, str(size)) for _ in range(rounds)]
        return Figure.of([float(output.split()[-1]) for output in outputs])

    def _contend(
        self, systems: str, workload: str, size: int, *, turn: int = 0, repeats: int = 1, first: bool = False
    ) -> list[dict[str, Any]]:
        options = ["--turn", str(turn), "--repeats", str(repeats), "--folder", str(FOLDER)]
        options += ["--first"] if first else []
        contender = HERE / "contender.py"
        output = self._python(systems.split(",")[-1], contender, systems, workload, str(size), *options)
        return [json.loads(line) for line in output.splitlines()]

    def _python(self, system: str, *arguments: str | Path) -> str:
        """What a program prints that runs in the environment of a system."""
        command = [str(self.pythons["sage" if system == "loop" else system]), *map(str, arguments)]
        try:
            # Peers have processes of their own, which must find the workloads too. Hashing is the same for all.
            env = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONHASHSEED": "0"}
            ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=env)
        except subprocess.TimeoutExpired:
            raise Failed(f"{system} took more than {PATIENCE} s") from None
        if ran.returncode != 0:
            lines = ran.stderr.strip().splitlines()
            if system in PEERS:
                raise Failed(lines[-1] if lines else f"ended with {ran.returncode}")
            raise Failed(f"{system} ended with {ran.returncode}:\n{ran.stderr}")
        return ran.stdout


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _told(what: str, do: Callable[[], Path]) -> Path:
    _tell(what)
    return do()


def main() -> int:
    arguments = parse(sys.argv[1:], __doc__)
    parts = arguments.only != list(WORKLOADS) or arguments.quick or arguments.python or arguments.peers == "none"
    whole = not parts and (arguments.rounds or LEAST_ROUNDS) >= LEAST_ROUNDS
    neighbours = machine.Neighbours()
    try:
        bench = Bench(arguments)
        for workload in arguments.only:
            _tell(f"measuring {workload}")
            getattr(bench, workload)()
    except (Failed, InstallError) as error:
        _tell(f"error: {error}")
        return 1
    measured = sorted(bench.rows, key=lambda row: row.name[:2])
    print(rows.terminal(measured))
    share = neighbours.share()
    if share is not None and share > 0.05:
        _tell(f"other programs took {share:.0%} of the processors meanwhile; repeat on a quiet machine")
    out = arguments.out or FOLDER / ("python.json" if whole else "python-partial.json")
    rows.write_json(measured, out)
    if whole:
        caption = machine.caption(bench.rounds, share)
        rows.rewrite(ROOT / "docs" / "benchmarks.md", rows.markdown(measured, caption))
    return 0


if __name__ == "__main__":
    sys.exit(main())
