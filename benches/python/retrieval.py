"""The workloads of retrieval: `recall`, our index beside HNSW and IVF, and `p8`, a RAG program beside other frameworks.

Knows how they are run and which rows come of it; the programs are `recall.py` and those in `rag/`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rows
from installs import FOLDER, FRAMEWORKS, ROOT
from rows import Figure, Row

HERE = Path(__file__).parent

#: Vectors, and files; and of a quick run.
VECTORS, QUICK_VECTORS = 100_000, 20_000
FILES, QUICK_FILES = 10_000, 500
#: LlamaIndex and Haystack compare a question with each passage in Python, for minutes.
SLOW_ROUNDS = 1

#: Runs a program in the environment of a system, and returns what it prints.
Run = Callable[..., str]


def recall(run: Run, rounds: int, quick: bool) -> list[Row]:
    """Searches of 100,000 vectors: ours beside each other index with the least effort that finds 99 %."""
    made = []
    for kind in ("tight", "wide"):
        size = QUICK_VECTORS if quick else VECTORS
        printed = run("vectors", HERE / "recall.py", kind, str(size), "--rounds", str(rounds))
        lines = {line["system"]: line for line in map(json.loads, printed.splitlines())}
        figures = {name: Figure.of([s * 1e6 for s in line["seconds"]]) for name, line in lines.items()}
        best = min((name for name in figures if name not in ("sage", "faiss_ivf")), key=lambda n: figures[n].median)
        for name, figure in figures.items():
            if name != "sage":
                versus = f"{name} ({lines[name]['effort']}; recall {lines[name]['recall']:.3f}"
                versus += f", ours {lines['sage']['recall']:.3f}; built in {lines[name]['built']:.0f} s)"
                goal = (1.0, "≥ 1× the speed of the best HNSW") if name == best else (None, "")
                made.append(rows.compare(f"recall_{kind}_{name}", "µs/search", figures["sage"], versus, figure, *goal))
    return made


def p8(run: Run, rounds: int, quick: bool) -> list[Row]:
    """10,000 files ingested and 500 questions asked: the time outside of the embedder, which is the same for all."""
    seconds: dict[str, list[float]] = defaultdict(list)
    answers: dict[str, list[str]] = {}
    size = QUICK_FILES if quick else FILES
    folder, guide = FOLDER / "rag", ROOT / "docs" / "guide.md"
    for turn in range(rounds):
        for name in ("sage", *FRAMEWORKS):
            if turn >= SLOW_ROUNDS and name in ("llamaindex", "haystack"):
                continue
            printed = run(f"rag_{name}", "-m", "rag.contender", name, str(size), str(folder), str(guide))
            line: dict[str, Any] = json.loads(printed)
            seconds[name].append(line["seconds"])
            answers[name] = line["answers"]
    figures = {name: Figure.of(values) for name, values in seconds.items()}
    fastest = min(FRAMEWORKS, key=lambda name: figures[name].median)
    made = []
    for name, title in FRAMEWORKS.items():
        same = sum(mine == other for mine, other in zip(answers["sage"], answers[name])) / len(answers["sage"])
        versus = title if same == 1 else f"{title} ({same:.1%} of the answers the same)"
        goal = (1 / 5, "≤ 1/5 of the fastest") if name == fastest else (None, "")
        made.append(rows.compare(f"p8_{name}", "s outside the embedder", figures["sage"], versus, figures[name], *goal))
    return made
