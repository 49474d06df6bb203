"""``Statistics``: what a collection of vectors has done since it was opened."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from ._arguments import whole

#: How many of the last retrievals are kept.
_MOST = 1_000


class Statistics:
    """Counts what a collection does."""

    def __init__(self) -> None:
        self.inserted = self.indexes_made = self.indexes_rebuilt = self._retrieved = 0
        self._seconds = 0.0
        self._last: deque[dict[str, Any]] = deque(maxlen=_MOST)

    def retrieved(self, index: str, results: int, asked: int, seconds: float) -> None:
        """Counts a retrieval."""
        self._retrieved += 1
        self._seconds += seconds
        self._last.append(
            {
                "timestamp": time.time(),
                "duration": seconds,
                "index_name": index,
                "result_count": results,
                "requested_topk": asked,
            }
        )

    def all(self, indexes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """All counts, as SAGE programs read them."""
        return {
            "insert_count": self.inserted,
            "retrieve_count": self._retrieved,
            "index_create_count": self.indexes_made,
            "index_rebuild_count": self.indexes_rebuilt,
            "total_vectors_stored": sum(index["vector_count"] for index in indexes.values()),
            "retrieve_stats": [dict(each) for each in self._last],
            "index_stats": dict(indexes),
        }

    def memory(self, indexes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """What the vectors take, of which a number has 4 bytes."""
        megabytes = {name: index["vector_count"] * index["dim"] * 4 / 1e6 for name, index in indexes.items()}
        return {
            "total_vectors": sum(index["vector_count"] for index in indexes.values()),
            "estimated_memory_mb": sum(megabytes.values()),
            "index_stats": {name: {**index, "estimated_memory_mb": megabytes[name]} for name, index in indexes.items()},
        }

    def retrievals(self, last_n: int | None) -> dict[str, Any]:
        """The retrievals, as SAGE programs read them."""
        recent = [dict(each) for each in self._last]
        if last_n is not None:
            recent = recent[-whole("`last_n`", last_n) :]
        average = self._seconds / self._retrieved if self._retrieved else 0.0
        return {"total_retrieve_count": self._retrieved, "avg_duration": average, "recent_stats": recent}
