"""What a run of the benchmarks is told on its command line."""

from __future__ import annotations

import argparse
from pathlib import Path

WORKLOADS = ("p1", "p2", "p3", "p4", "p5", "proc", "ray", "p6", "p7", "policy", "recall", "p8")


def _chosen(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in WORKLOADS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}; choose from {','.join(WORKLOADS)}")
    return [name for name in WORKLOADS if name in chosen]


def parse(arguments: list[str], about: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--only", type=_chosen, default=list(WORKLOADS), metavar="P1,P2", help="some of the workloads")
    parser.add_argument("--quick", action="store_true", help="a smoke test: small inputs, two rounds")
    parser.add_argument("--rounds", type=int, help="measurements of each (default: 5)")
    parser.add_argument("--peers", choices=["some", "all", "none"], default="some", help="all: also the large ones")
    parser.add_argument("--no-peers", dest="peers", action="store_const", const="none", help="as --peers none")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--wheel", type=Path, help="measure this wheel instead of building one")
    given.add_argument("--python", type=Path, help="measure the package that this interpreter finds; builds nothing")
    parser.add_argument("--ray-python", type=Path, help="measure the package on Ray that this interpreter finds")
    parser.add_argument("--out", type=Path, help="file for the figures (default: target/bench/python.json)")
    return parser.parse_args(arguments)
