"""Ours on P2, with the engine's own functions. Ours on the other workloads is a program in Rust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import workloads
from columnar.answers import Program, digest
from systems import sage


def programs(workload: str, inputs: dict[str, Any]) -> dict[str, Program]:
    lines = workloads.source(workload, inputs["lines"], Path(inputs["folder"]))
    return {"": Program(lambda: sage.CONTENDERS[workload]["sage_ops"](lines), lambda counts: digest(counts.items()))}
