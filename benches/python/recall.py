"""One process of the workload `recall`: searches of our embedded store beside HNSW and IVF, on one thread, one query a
call, ten results. A line of JSON for each system: seconds a search, recall, and the seconds that its index took.

100,000 vectors of 384 dimensions around 1,000 directions, `tight` or `wide` (three tenths of the cosine to the centre
or a half of it are noise). Each of the others takes part with the least effort that reaches a recall of 0.99.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import faiss
import hnswlib
import numpy as np
from usearch.index import Index

from sage.services import VectorStore

DIMENSIONS, CLUSTERS, K = 384, 1_000, 10
QUERIES, COMPARED = 1_000, 200
LEAST_RECALL = 0.99
SPREADS = {"tight": 0.35, "wide": 1.0}

#: Of a graph: neighbours of a node, and how many are looked at while it is built.
NEIGHBOURS, EFFORT = 16, 200
EFFORTS = (10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 36, 40, 44, 48, 56, 64, 80, 96, 128, 192, 256)
LISTS = 1_000
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)

Search = Callable[[Any], Any]


def vectors(rows: int, kind: str) -> tuple[Any, Any]:
    """Vectors of length 1, and queries of the same kind."""
    random = np.random.default_rng(42)

    def directions(count: int) -> Any:
        made = random.standard_normal((count, DIMENSIONS), dtype=np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    centres = directions(CLUSTERS)

    def around(count: int) -> Any:
        made = directions(count) * np.float32(SPREADS[kind]) + centres[random.integers(0, CLUSTERS, count)]
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    return around(rows), around(QUERIES)


def ours(matrix: Any) -> Iterator[tuple[str, Search]]:
    store = VectorStore(DIMENSIONS)
    for first in range(0, len(matrix), 1_000):
        store.upsert_batch((str(first + at), vector) for at, vector in enumerate(matrix[first : first + 1_000]))
    store.search(matrix[0], K)
    yield "", lambda query: [int(hit.id) for hit in store.search(query, K)]


def by_hnswlib(matrix: Any) -> Iterator[tuple[str, Search]]:
    index = hnswlib.Index("ip", DIMENSIONS)
    index.init_index(len(matrix), M=NEIGHBOURS, ef_construction=EFFORT)
    index.add_items(matrix)
    index.set_num_threads(1)
    for effort in EFFORTS:
        index.set_ef(effort)
        yield f"ef {effort}", lambda query: index.knn_query(query, k=K)[0][0]


def by_usearch(matrix: Any) -> Iterator[tuple[str, Search]]:
    index = Index(ndim=DIMENSIONS, metric="ip", dtype="f32", connectivity=NEIGHBOURS, expansion_add=EFFORT)
    index.add(np.arange(len(matrix)), matrix)
    for effort in EFFORTS:
        index.expansion_search = effort
        yield f"ef {effort}", lambda query: index.search(query, K, threads=1).keys


def by_faiss(matrix: Any) -> Iterator[tuple[str, Search]]:
    index = faiss.IndexHNSWFlat(DIMENSIONS, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EFFORT
    index.add(matrix)
    for effort in EFFORTS:
        index.hnsw.efSearch = effort
        yield f"ef {effort}", lambda query: index.search(query[None], K)[1][0]


def by_faiss_ivf(matrix: Any) -> Iterator[tuple[str, Search]]:
    coarse = faiss.IndexFlatIP(DIMENSIONS)
    index = faiss.IndexIVFFlat(coarse, DIMENSIONS, LISTS, faiss.METRIC_INNER_PRODUCT)
    index.train(matrix)
    index.add(matrix)
    for probes in PROBES:
        index.nprobe = probes
        yield f"nprobe {probes}", lambda query: index.search(query[None], K)[1][0]


SYSTEMS = {
    "sage": ours, "hnswlib": by_hnswlib, "usearch": by_usearch, "faiss": by_faiss, "faiss_ivf": by_faiss_ivf
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=list(SPREADS))
    parser.add_argument("rows", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    matrix, queries = vectors(arguments.rows, arguments.kind)
    truth = np.argsort(-(queries[:COMPARED] @ matrix.T), axis=1)[:, :K]
    chosen: dict[str, tuple[str, Search, float, float]] = {}
    alive = []
    for name, system in SYSTEMS.items():
        begin = perf_counter()
        efforts = system(matrix)
        effort, search = next(efforts)
        built = perf_counter() - begin
        # Searches that are indexes of one thread, whatever built them.
        faiss.omp_set_num_threads(1)
        while (recall := recall_of(search, queries, truth)) < LEAST_RECALL:
            effort, search = next(efforts)
        chosen[name] = effort, search, recall, built
        # Each later effort would change the index of this one.
        alive.append(efforts)
        faiss.omp_set_num_threads(2)
    faiss.omp_set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for turn in range(arguments.rounds):
        names = list(chosen)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            search = chosen[name][1]
            begin = perf_counter()
            for query in queries:
                search(query)
            seconds[name].append((perf_counter() - begin) / QUERIES)
    for name, (effort, _, recall, built) in chosen.items():
        line = {"system": name, "seconds": seconds[name], "recall": recall, "built": built, "effort": effort}
        print(json.dumps(line), flush=True)


def recall_of(search: Search, queries: Any, truth: Any) -> float:
    found = (len(set(map(int, search(query))) & set(map(int, row))) for query, row in zip(queries, truth))
    return sum(found) / truth.size


if __name__ == "__main__":
    main()
