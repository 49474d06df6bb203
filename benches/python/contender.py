"""One process of one round: runs every variant of some systems on one workload, and prints a line of JSON for each.

Every variant first runs a small input, untimed; then its answer is compared with the loop's, and its time is printed.
What a system prints itself goes to the standard error.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import workloads
from systems import loop


def wrong(workload: str, answer: Any, source: Any) -> str:
    """What is wrong with an answer; empty if it is right."""
    if workload in ("return", "begin", "many"):
        return ""
    if workload == "p4":
        results, most = answer
        faults = [] if list(results) == list(source) else ["not in order"]
        faults += [f"{most} in flight"] if most > workloads.IN_FLIGHT else []
        return ", ".join(faults)
    expected = loop.CONTENDERS[workload]["loop"](source)
    if workload in workloads.UNORDERED:
        order = workloads.UNORDERED[workload]
        answer, expected = sorted(answer, key=order), sorted(expected, key=order)
    return "" if answer == expected else "its answer differs from the loop's"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("systems", help="separated by commas")
    parser.add_argument("workload")
    parser.add_argument("size", type=int)
    parser.add_argument("--turn", type=int, default=0, help="which variant begins")
    parser.add_argument("--repeats", type=int, default=1, help="of which the median counts")
    parser.add_argument("--first", action="store_true", help="only the first variant, without a run before")
    parser.add_argument("--folder", type=Path, required=True, help="where inputs are kept")
    arguments = parser.parse_args()
    workload, size = arguments.workload, arguments.size

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    variants = []
    for system in arguments.systems.split(","):
        module = import_module(f"systems.{system}")
        for name, run in module.CONTENDERS.get(workload, {}).items():
            parts = 1 if arguments.first else module.PARTS.get(f"{workload} {name}", 1)
            variants.append((system, name, run, max(1, size // parts)))
    turn = arguments.turn % max(1, len(variants))
    variants = variants[:1] if arguments.first else variants[turn:] + variants[:turn]
    for system, name, run, records in variants:
        source = workloads.source(workload, records, arguments.folder)
        if not arguments.first:
            run(source[: max(1, records // 20)])
        seconds = []
        for _ in range(arguments.repeats):
            gc.collect()
            begin = perf_counter()
            answer = run(source)
            seconds.append(answer if workload == "return" else perf_counter() - begin)
        line = {
            "system": system,
            "variant": name,
            "seconds": median(seconds),
            "records": records,
            "wrong": wrong(workload, answer, source),
        }
        print(json.dumps(line), file=out, flush=True)


if __name__ == "__main__":
    main()
