"""A step that finds texts in an index of FAISS, as SAGE programs use it."""

from __future__ import annotations

import importlib
import json
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ._embedding import EmbeddingModel
from ._functions import MapFunction
from ._rag import _checked
from ._retrievers import _question, _with_texts


class Wiki18FAISSRetriever(MapFunction):
    """Finds texts in an index of FAISS: ``stream.map(Wiki18FAISSRetriever, config)``.

    The configuration has ``top_k`` (5), ``embedding`` as of ``EmbeddingModel``, which must be what made the index, and
    ``faiss`` with ``index_path``, the file of the index, and ``documents_path``, lines of JSON with ``contents`` or
    ``text`` in the order of the index. It needs the package ``faiss-cpu``.

    >>> from sage.middleware.operators.rag import Wiki18FAISSRetriever
    >>> Wiki18FAISSRetriever({"faiss": {}})
    Traceback (most recent call last):
    ValueError: `faiss` of `Wiki18FAISSRetriever` needs an `index_path` and a `documents_path`: the file of an index \
of FAISS, such as one of Wikipedia, and its texts as lines of JSON
    """

    def __init__(self, config: Mapping[str, Any], enable_profile: bool = False) -> None:
        super().__init__()
        self.config = _checked("Wiki18FAISSRetriever", config)
        self.top_k = int(config.get("top_k", 5))
        place = config.get("faiss") or {}
        paths = [place.get(name) for name in ("index_path", "documents_path")]
        if not all(paths):
            raise ValueError(
                "`faiss` of `Wiki18FAISSRetriever` needs an `index_path` and a `documents_path`: the file of an index "
                "of FAISS, such as one of Wikipedia, and its texts as lines of JSON"
            )
        for path in paths:
            if not Path(str(path)).is_file():
                raise FileNotFoundError(f"{path} is no file: get the index and its texts, nothing is downloaded")
        try:
            self._faiss = importlib.import_module("faiss")
        except ModuleNotFoundError as error:
            raise ImportError("`Wiki18FAISSRetriever` needs FAISS: pip install faiss-cpu", name="faiss") from error
        given = config.get("embedding") or {}
        self.embedding_model = EmbeddingModel(given.get("method", "default"), given.get("model"))
        try:
            self._index = self._faiss.read_index(str(paths[0]))
        except RuntimeError as error:
            raise ValueError(f"{paths[0]} is no index that FAISS reads: {error}") from error
        if self._index.d != self.embedding_model.dimensions:
            made = self.embedding_model.id
            raise ValueError(f"{paths[0]} has vectors of {self._index.d} dimensions, and is not of {made}")
        self._documents = open(str(paths[1]), "rb")  # noqa: SIM115 - until `teardown`
        self._starts = _starts(self._documents)
        if len(self._starts) != self._index.ntotal:
            self._documents.close()
            there = f"{paths[0]} has {self._index.ntotal} vectors, and {paths[1]} {len(self._starts)} texts"
            raise ValueError(f"{there}: they are not of one another")

    def teardown(self, context: Any) -> None:
        """Closes the file of the texts, and ends the connections of its embedder."""
        self._documents.close()
        self.embedding_model.close()

    def execute(self, data: Any) -> dict[str, Any]:
        """Finds the texts for a question."""
        question = _question("Wiki18FAISSRetriever", data)
        numpy = importlib.import_module("numpy")
        vector = numpy.asarray([self.embedding_model.embed(question)], dtype="float32")
        _, places = self._index.search(vector, self.top_k)
        # FAISS says -1 where it finds no more.
        return _with_texts(data, question, [self._text(place) for place in places[0] if place >= 0])

    def _text(self, place: int) -> str:
        self._documents.seek(self._starts[place])
        line = json.loads(self._documents.readline())
        return str(line.get("contents", line.get("text", ""))) if isinstance(line, Mapping) else str(line)


def _starts(lines: BinaryIO) -> array[int]:
    """Where each line that is not empty begins. The texts of Wikipedia are larger than memory."""
    starts, at = array("Q"), 0
    for line in lines:
        if line.strip():
            starts.append(at)
        at += len(line)
    return starts
