"""The machine that a table was measured on, and who else used it."""

from __future__ import annotations

import os
import platform
from collections import Counter
from pathlib import Path


def caption(rounds: int, share: float | None) -> str:
    """One line: processors, memory, kernel, interpreter, and what others took meanwhile."""
    models = Counter(_values("/proc/cpuinfo", "model name"))
    memory = round(int(_values("/proc/meminfo", "MemTotal")[0].split()[0]) / (1 << 20))
    processors = ", ".join(f"{count} × {model}" for model, count in models.items())
    where = f"{processors}, {memory} GiB of memory, Linux {platform.release()}, Python {platform.python_version()}"
    others = "" if share is None else f" Other programs took {share:.0%} of the processors meanwhile."
    return f"Measured on {where};\nmedians of {rounds} alternating runs.{others}"


def _values(file: str, name: str) -> list[str]:
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name]


class Neighbours:
    """Tells what part of the processors other programs took since it was made."""

    def __init__(self) -> None:
        self._begin = _ticks()

    def share(self) -> float | None:
        """From 0 to 1; ``None`` where the time was too short to tell."""
        everything, busy, own = (end - begin for end, begin in zip(_ticks(), self._begin))
        return max(0.0, busy - own) / everything if everything > 0 else None


def _ticks() -> tuple[float, float, float]:
    """All ticks of the processors, those not idle, and those of this process and its children that have ended."""
    # user, nice, system, idle, iowait, irq, softirq, steal: guests, which follow, are in user already.
    fields = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9]]
    own = os.times()
    per_second = os.sysconf("SC_CLK_TCK")
    ours = (own.user + own.system + own.children_user + own.children_system) * per_second
    return sum(fields), sum(fields) - fields[3] - fields[4], ours
