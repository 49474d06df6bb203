"""A service that embeds, as SAGE programs register it."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from ._arguments import said
from ._embedders import list_embedding_models
from ._embedding import EmbeddingModel
from ._rag import _checked
from ._services import BaseService


class EmbeddingService(BaseService):
    """Embeds texts for all steps of a job: ``env.register_service("embedding", EmbeddingService, config)``.

    The configuration has the ``method`` (``"hf"``), ``model`` and other options of an ``EmbeddingModel``, ``dimension``
    of one whose model does not say it, ``batch_size``, how many texts are embedded at once (32), ``normalize``, whether
    vectors have the length 1 (true), ``cache_enabled`` (false) and ``cache_size``, how many texts are kept with their
    vectors, those that were embedded last (10,000).

    It is called with a mapping: its ``task`` is ``"embed"``, with ``inputs``, a text or a list of texts, and perhaps
    ``options`` as of ``embed``; ``"info"``; ``"list_methods"``; or ``"get_dimension"``.

    >>> from sage.common.components.sage_embedding import EmbeddingService
    >>> class Embeds(MapFunction):
    ...     def execute(self, text):
    ...         return len(self.call_service("embedding", {"task": "embed", "inputs": text})["vectors"][0])
    >>> env = LocalEnvironment("embedded")
    >>> factory = env.register_service("embedding", EmbeddingService, {"method": "mockembedder"})
    >>> sizes = env.from_batch(["tea"]).map(Embeds).collect()
    >>> job = env.submit(autostop=True)
    >>> sizes
    [128]
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = _checked("EmbeddingService", config)
        self.method, self.model = config.get("method", "hf"), config.get("model")
        self.batch_size, self.normalize = config.get("batch_size", 32), bool(config.get("normalize", True))
        most = config.get("cache_size", 10_000)
        for name, size in (("batch_size", self.batch_size), ("cache_size", most)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"`{name}` of `EmbeddingService` is a number from 1 on, not {said(size)}")
        self.cache_size = most if config.get("cache_enabled", False) else 0
        self._embedder: EmbeddingModel | None = None
        self._cache: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def setup(self) -> None:
        """Loads the model."""
        ours = ("method", "model", "dimension", "batch_size", "normalize", "cache_enabled", "cache_size", "config")
        options = {name: value for name, value in self.config.items() if name not in ours and value is not None}
        if "dimension" in self.config:
            options["dim"] = self.config["dimension"]
        self._embedder = EmbeddingModel(self.method, self.model, **(self.config.get("config") or {}), **options)

    def cleanup(self) -> None:
        """Ends the connections to a server, and forgets what was kept."""
        embedder, self._embedder = self._embedder, None
        if embedder is not None:
            embedder.close()
        with self._lock:
            self._cache.clear()

    def process(self, payload: Mapping[str, Any]) -> Any:
        """Does a task."""
        task = payload.get("task", "embed")
        if task == "embed":
            if payload.get("inputs") is None:
                raise ValueError("the task `embed` needs its `inputs`: a text, or a list of texts")
            return self.embed(payload["inputs"], **(payload.get("options") or {}))
        if task == "info":
            return self.get_info()
        if task == "list_methods":
            return [{"name": name, **way} for name, way in list_embedding_models().items()]
        if task == "get_dimension":
            return {"dimension": self.get_dimension()}
        raise ValueError(f"`EmbeddingService` does embed, info, list_methods and get_dimension, not {said(task)}")

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        normalize: bool | None = None,
        batch_size: int | None = None,
        return_stats: bool = False,
    ) -> dict[str, Any]:
        """The ``vectors`` of texts, in their order, with their ``dimension``, their ``count``, the ``method`` and the
        ``model``; with ``return_stats`` also ``stats``: how many were ``cached`` and ``computed``, and the
        ``cache_hit_rate``."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        with self._lock:
            vectors = {text: self._cache[text] for text in texts if text in self._cache}
        cached = sum(text in vectors for text in texts)
        missing = list(dict.fromkeys(text for text in texts if text not in vectors))
        most = batch_size or self.batch_size
        for at in range(0, len(missing), most):
            some = missing[at : at + most]
            vectors.update(zip(some, self._ready().embed_batch(some)))
        self._keep({text: vectors[text] for text in missing})
        has_length_1 = self.normalize if normalize is None else normalize
        made = [_normalized(vectors[text]) if has_length_1 else vectors[text] for text in texts]
        result = {
            "vectors": made,
            "dimension": len(made[0]) if made else self.get_dimension(),
            "count": len(made),
            "method": self.method,
            "model": self.model or self.method,
        }
        if return_stats:
            rate = cached / len(texts) if texts else 0.0
            result["stats"] = {"cached": cached, "computed": len(texts) - cached, "cache_hit_rate": rate}
        return result

    def get_dimension(self) -> int:
        """How many numbers a vector has."""
        return self._ready().dimensions

    def get_info(self) -> dict[str, Any]:
        """What it is configured to, and its ``dimension``; with a cache also ``cache_stats``, ``size`` and
        ``capacity``."""
        info = {
            "method": self.method,
            "model": self.model,
            "dimension": self.get_dimension(),
            "batch_size": self.batch_size,
            "normalize": self.normalize,
            "cache_enabled": bool(self.cache_size),
        }
        if self.cache_size:
            info["cache_stats"] = {"size": len(self._cache), "capacity": self.cache_size}
        return info

    def _ready(self) -> EmbeddingModel:
        if self._embedder is None:
            raise RuntimeError("`EmbeddingService` is not set up: register it, or call its `setup`")
        return self._embedder

    def _keep(self, vectors: dict[str, list[float]]) -> None:
        if self.cache_size:
            with self._lock:
                self._cache |= vectors
                for text in list(islice(self._cache, max(0, len(self._cache) - self.cache_size))):
                    del self._cache[text]


def _normalized(vector: list[float]) -> list[float]:
    length = math.sqrt(math.fsum(number * number for number in vector))
    return [number / length for number in vector] if length else vector
