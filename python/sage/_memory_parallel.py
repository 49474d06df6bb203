"""``ParallelVDBService``: many texts into an index, embedded on several threads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from ._arguments import said, whole
from ._embedding_service import EmbeddingService
from ._memory_vdb import VDBMemoryCollection
from ._rag import _checked
from ._services import BaseService


@dataclass
class ParallelInsertResult:
    """What became of texts that were put into an index: how many there were, how many are in it and how many are not,
    how long it took, and the same of each batch.

    >>> from sage.middleware.components.sage_mem.services import ParallelInsertResult
    >>> ParallelInsertResult(2, 2, 0, 0.5, 4.0).to_dict()["throughput_per_second"]
    4.0
    """

    total_texts: int
    total_inserted: int
    total_failed: int
    elapsed_seconds: float
    throughput_per_second: float
    batch_results: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As a mapping."""
        return asdict(self)


class ParallelVDBService(BaseService):
    """Puts texts into an index of a ``VDBMemoryCollection``, a batch at a time on each of its threads. A batch that
    fails does not end the others: the result tells of it.

    ``embedding_config`` is that of an ``EmbeddingService``; ``max_workers``, 1 to 256, is the number of threads, and
    ``default_batch_size``, from 1 on, how many texts a batch has.

    >>> from sage.middleware.components.sage_mem import VDBMemoryCollection
    >>> from sage.middleware.components.sage_mem.services import ParallelVDBService
    >>> collection = VDBMemoryCollection({"name": "notes"})
    >>> made = collection.create_index({"name": "words", "dim": 128})
    >>> service = ParallelVDBService(collection, {"method": "mockembedder"}, max_workers=2)
    >>> service.setup()
    >>> service.parallel_batch_insert(["Tea is hot.", "Services stop last."], "words").total_inserted
    2
    >>> service.cleanup()
    """

    def __init__(
        self,
        collection: VDBMemoryCollection,
        embedding_config: Mapping[str, Any],
        max_workers: int = 4,
        default_batch_size: int = 500,
    ) -> None:
        super().__init__()
        if not isinstance(collection, VDBMemoryCollection):
            raise TypeError(f"`ParallelVDBService` takes a `VDBMemoryCollection`, not {said(collection)}")
        self._collection = collection
        self._embedding_config = _checked("ParallelVDBService", embedding_config)
        self._max_workers = whole("`max_workers`", max_workers, 1, 256)
        self._default_batch_size = whole("`default_batch_size`", default_batch_size)
        self._embedding: EmbeddingService | None = None
        self._executor: ThreadPoolExecutor | None = None

    def setup(self) -> None:
        """Loads the model, and makes the threads."""
        self._embedding = EmbeddingService(self._embedding_config)
        self._embedding.setup()
        self._executor = ThreadPoolExecutor(self._max_workers, thread_name_prefix="sage-memory")

    def cleanup(self) -> None:
        """Waits for the threads, and ends the connections of the model. The collection stays open."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()
        embedding, self._embedding = self._embedding, None
        if embedding is not None:
            embedding.cleanup()

    def parallel_batch_insert(
        self,
        texts: Sequence[str],
        index_name: str,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        batch_size: int | None = None,
        show_progress: bool = True,
    ) -> ParallelInsertResult:
        """Embeds texts and puts them into an index. With ``show_progress`` it logs how far it is."""
        if self._executor is None:
            raise RuntimeError("`ParallelVDBService` is not set up: register it, or call its `setup`")
        if metadatas is not None and len(metadatas) != len(texts):
            raise ValueError(f"there are {len(texts)} texts, and metadata for {len(metadatas)}")
        size = whole("`batch_size`", self._default_batch_size if batch_size is None else batch_size)
        began, results = time.perf_counter(), []
        starts = range(0, len(texts), size)
        parts = [(at, texts[at : at + size], metadatas[at : at + size] if metadatas else None) for at in starts]
        for result in self._executor.map(lambda part: self._batch(index_name, *part), parts):
            results.append(result)
            if show_progress:
                self.logger.info("%d of %d batches are in index %r", len(results), len(parts), index_name)
        elapsed = time.perf_counter() - began
        return ParallelInsertResult(
            total_texts=len(texts),
            total_inserted=sum(result["inserted"] for result in results),
            total_failed=sum(result["failed"] for result in results),
            elapsed_seconds=elapsed,
            throughput_per_second=len(texts) / elapsed if texts else 0.0,
            batch_results=results,
        )

    def get_collection(self) -> VDBMemoryCollection:
        """The collection."""
        return self._collection

    def get_stats(self) -> dict[str, Any]:
        """What it is configured to."""
        return {
            "max_workers": self._max_workers,
            "default_batch_size": self._default_batch_size,
            "embedding_method": self._embedding_config.get("method"),
            "embedding_model": self._embedding_config.get("model"),
            "collection_name": self._collection.name,
        }

    def _batch(self, index: str, at: int, texts: Sequence[str], metadatas: Any) -> dict[str, Any]:
        """Puts a batch into the index, all of it or none."""
        done: dict[str, Any] = {"batch_idx": at, "batch_size": len(texts), "inserted": 0, "failed": 0, "errors": []}
        assert self._embedding is not None, "it is set up"
        try:
            vectors = self._embedding.embed(texts, normalize=True)["vectors"]
            self._collection.insert_many(index, texts, vectors, metadatas)
            return {**done, "inserted": len(texts)}
        except Exception as error:
            self.logger.error("the batch of %d texts from %d on failed: %s", len(texts), at, error)
            return {**done, "failed": len(texts), "errors": [f"{type(error).__name__}: {error}"]}


def parallel_insert_to_vdb(
    texts: Sequence[str],
    collection: VDBMemoryCollection,
    index_name: str,
    embedding_config: Mapping[str, Any],
    metadatas: Sequence[Mapping[str, Any] | None] | None = None,
    max_workers: int = 4,
    batch_size: int = 500,
) -> ParallelInsertResult:
    """Puts texts into an index as a ``ParallelVDBService`` does, and lets go of its model and threads.

    >>> from sage.middleware.components.sage_mem import VDBMemoryCollection
    >>> from sage.middleware.components.sage_mem.services import parallel_insert_to_vdb
    >>> collection = VDBMemoryCollection({"name": "notes"})
    >>> made = collection.create_index({"name": "words", "dim": 128})
    >>> parallel_insert_to_vdb(["Tea is hot."], collection, "words", {"method": "mockembedder"}).total_inserted
    1
    """
    service = ParallelVDBService(collection, embedding_config, max_workers, batch_size)
    try:
        service.setup()
        return service.parallel_batch_insert(texts, index_name, metadatas)
    finally:
        service.cleanup()
