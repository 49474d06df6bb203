"""What one writes for several processes: halves of the input, and the standard library's pools."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from typing import Any

from workloads import PROCESSES, enrich, reverse, spin

#: How many records a pool sends at a time.
CHUNKS = (1, 16, 64, 256)


def _part(function: Callable[[Any], Any], records: Any, results: Any) -> None:
    results.send([function(record) for record in records])


def halves(function: Callable[[Any], Any], source: Any) -> Any:
    """Each process gets its part when it begins, and sends all of its results at once."""
    size = -(-len(source) // PROCESSES)
    parts = [source[begin : begin + size] for begin in range(0, len(source), size)]
    pipes = [multiprocessing.Pipe(duplex=False) for _ in parts]
    processes = [
        multiprocessing.Process(target=_part, args=(function, part, tell)) for part, (_, tell) in zip(parts, pipes)
    ]
    for process in processes:
        process.start()
    results = [result for take, _ in pipes for result in take.recv()]
    for process in processes:
        process.join()
    return results


def pool(function: Callable[[Any], Any], chunk: int, source: Any) -> Any:
    with multiprocessing.Pool(PROCESSES) as workers:
        return list(workers.imap(function, source, chunk))


def _pools(function: Callable[[Any], Any], chunks: tuple[int, ...] = CHUNKS) -> dict[str, Any]:
    return {f"pool_{chunk}": partial(pool, function, chunk) for chunk in chunks}


CONTENDERS = {
    "p5": {"halves": partial(halves, spin), **_pools(spin)},
    # Chunks of one take minutes.
    "dicts": _pools(enrich, CHUNKS[1:]),
    "large": _pools(reverse),
}
PARTS: dict[str, int] = {}
