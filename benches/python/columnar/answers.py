"""What a system says of its answer: a digest that is the same for the same answer, whoever gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Program(NamedTuple):
    """A workload in one system. ``run`` is timed; ``digest`` gets what it returned, and is not."""

    run: Callable[[], Any]
    digest: Callable[[Any], str]


def digest(amounts: Iterable[tuple[Any, int]]) -> str:
    """The digest of a table of amounts in any order: how many there are, and FNV-1a of its lines when sorted."""
    lines = [f"{key} {amount}\n" for key, amount in sorted(amounts)]
    value = 0xCBF29CE484222325
    for byte in "".join(lines).encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{len(lines)} pairs {value:016x}"
