"""Runs the contenders of one workload in turn, each a process that has its inputs in memory, and compares answers.

Each round begins with another contender. The first round is thrown away: it warms up. An answer that differs from ours
ends the contest, a peer that fails leaves it.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rows import Figure, Row, compare, missing

#: Where the modules are that a contender in Python finds.
HERE = Path(__file__).parents[1]

#: The longest that one run may take, or the begin of a process, in seconds.
PATIENCE = 300

#: Processors that everybody has, and threads of the engines of columns.
PROCESSORS = 2

OURS = "ours"


class Failed(Exception):
    """A contender ended, or its answer is wrong."""


class Contender:
    """A process that says a line when it is ready, and one for each line that it is sent."""

    def __init__(self, system: str, command: list[str]) -> None:
        self._system = system
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")
        env = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONHASHSEED": "0", "POLARS_MAX_THREADS": str(PROCESSORS)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True, env=env)
        self.ready = self._answer()
        self.variants: list[str] = self.ready["variants"]

    def run(self, variant: str) -> tuple[float, str]:
        """Seconds, and a digest of the answer."""
        assert self._process.stdin is not None
        try:
            print(variant, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._failed() from None
        told = self._answer()
        return told["seconds"], told["answer"]

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        # One that has failed does not read the line that may still wait for it.
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        patience = threading.Timer(PATIENCE, self._process.kill)
        patience.start()
        line = self._process.stdout.readline()
        patience.cancel()
        if not line:
            raise self._failed()
        told: dict[str, Any] = json.loads(line)
        return told

    def _failed(self) -> Failed:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return Failed(f"{self._system} ended with {status}: {lines[-1] if lines else 'it said nothing'}")


@dataclass(frozen=True)
class Best:
    """The variant of a system that counts, which is its fastest."""

    variant: str
    figure: Figure


def contest(
    contenders: dict[str, Contender], rounds: int, scale: float, leave_out: Callable[[str, str], None]
) -> dict[str, Best]:
    """What each system costs, in seconds times ``scale``."""
    costs: dict[tuple[str, str], list[float]] = {}
    contenders = dict(contenders)
    _, agreed = contenders[OURS].run(contenders[OURS].variants[0])
    for turn in range(rounds + 1):
        systems = list(contenders)
        for system in systems[turn % len(systems) :] + systems[: turn % len(systems)]:
            for variant in contenders[system].variants:
                try:
                    seconds, answer = contenders[system].run(variant)
                except Failed as error:
                    if system == OURS:
                        raise
                    leave_out(system, str(error))
                    costs = {key: values for key, values in costs.items() if key[0] != system}
                    del contenders[system]
                    break
                if answer != agreed:
                    raise Failed(f"{' '.join((system, variant)).strip()} answered {answer}, ours {agreed}")
                if turn > 0:
                    costs.setdefault((system, variant), []).append(seconds * scale)
    best: dict[str, Best] = {}
    for (system, variant), values in costs.items():
        figure = Figure.of(values)
        if system not in best or figure.median < best[system].figure.median:
            best[system] = Best(variant, figure)
    return best


@dataclass(frozen=True)
class Goal:
    """Our time over that of a peer, at most: of the faster one, or of the one that is named."""

    at_most: float
    peer: str | None = None


def judge(name: str, unit: str, best: dict[str, Best], titles: dict[str, str], goal: Goal) -> list[Row]:
    """Rows that set us beside every peer that took part. The goal is on one of them, the others are reported."""
    peers = {system: best[system] for system in titles if system in best}
    judged = goal.peer or min(peers, key=lambda system: peers[system].figure.median, default=None)
    rows = []
    for system, other in peers.items():
        versus = titles[system] + (f" ({other.variant})" if other.variant else "")
        limit = {"at_most": goal.at_most, "meaning": "the faster one" if goal.peer is None else "conversion included"}
        given: dict[str, Any] = limit if system == judged else {}
        rows.append(compare(f"{name}_{system}", unit, best[OURS].figure, versus, other.figure, **given))
    return rows


def left_out(name: str, title: str, why: str) -> Row:
    """A row that says why a peer is not there. Some errors are pages long, and a table has columns."""
    return missing(name, f"{title} ({why[:120]})".replace("|", "/").replace("\n", " "))
