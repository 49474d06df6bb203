"""Steps that find texts for a question, as SAGE programs use them. Each takes one mapping, such as a section of a
configuration file; errors are raised."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from ._arguments import said
from ._embedding import EmbeddingModel
from ._functions import MapFunction
from ._rag import _checked, _question_in, _text
from ._sage import CrossEncoder, Hit, Record, VectorStore
from ._weights import folder_of

#: How many texts are embedded and stored at once.
_AT_ONCE = 256

_LOCAL = ("localhost", "127.0.0.1", "::1", "")

#: Stores in files that are open in this process, which one process can have open once: replicas of a step, and a
#: program that fills the index first, share one. It is closed when nobody has it any more.
_OPEN: weakref.WeakValueDictionary[Path, VectorStore] = weakref.WeakValueDictionary()
_OPENING = threading.Lock()


def _in_file(path: Path, **settings: Any) -> VectorStore:
    path = path.absolute()
    with _OPENING:
        store = _OPEN.get(path)
        if store is None:
            _OPEN[path] = store = VectorStore(path=path, **settings)
        elif (embedder := settings.get("embedder")) is not None and store.embedder != embedder.id:
            raise ValueError(f"{path} is open with vectors of {store.embedder}, and cannot have those of {embedder.id}")
        return store


class _Retriever(MapFunction):
    """Finds texts in a collection."""

    #: The section of the configuration that says where the collection is.
    _section: str
    #: What is named as the store of the collection.
    _backend: str
    _most = 10

    def __init__(
        self, config: Mapping[str, Any], enable_profile: bool = False, *, collection_name: str | None = None
    ) -> None:
        super().__init__()
        step = type(self).__name__
        self.config = _checked(step, config)
        self.top_k = int(config.get("top_k", self._most))
        place = config.get(self._section, {})
        if not isinstance(place, Mapping):
            raise TypeError(f"`{self._section}` of `{step}` is a mapping, not {said(place)}")
        self._place = place if collection_name is None else {**place, "collection_name": collection_name}
        self._store = self._opened()
        self._load_knowledge()

    def _opened(self) -> VectorStore:
        raise NotImplementedError

    def _found(self, question: str) -> list[Hit]:
        raise NotImplementedError

    def _records(self, ids: Sequence[str], texts: Sequence[str]) -> list[Record]:
        raise NotImplementedError

    def _collection(self) -> str:
        name = self._place.get("collection_name")
        if not isinstance(name, str) or not name:
            there = said(list(self._place))
            raise ValueError(f"`{self._section}` of `{type(self).__name__}` needs a `collection_name`; it has {there}")
        return name

    def _file(self, folder: str) -> Path:
        return Path(self._place.get("persistence_path", folder), quote(self._collection(), safe="") + ".sage")

    def _load_knowledge(self) -> None:
        file = self._place.get("knowledge_file")
        if file is not None:
            text = Path(file).read_text(encoding="utf-8")
            pieces = (piece.strip() for piece in text.replace("\r\n", "\n").split("\n\n"))
            self.add_documents([piece for piece in pieces if piece])

    def add_documents(self, documents: Sequence[Any], ids: Sequence[str] | None = None) -> list[str]:
        """Adds texts, or mappings with a ``text``, and gives their ids. Without ``ids`` a text's id follows from the
        text, so that a text that is added again is there once. One that has an id already is replaced."""
        if isinstance(documents, (str, Mapping)):
            raise TypeError(f"`documents` is a list of texts, not {said(documents)}")
        texts = [_text(document) for document in documents]
        if ids is None:
            ids = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
        elif len(ids) != len(texts):
            raise ValueError(f"there are {len(texts)} documents, and {len(ids)} ids")
        last = dict(zip(ids, texts))  # of two with one id the later stays
        pairs = list(last.items())
        for at in range(0, len(pairs), _AT_ONCE):
            some = pairs[at : at + _AT_ONCE]
            self._store.upsert_batch(self._records([id for id, _ in some], [text for _, text in some]))
        return list(ids)

    def get_collection_info(self) -> dict[str, Any]:
        """The ``backend`` of the collection, its ``collection_name``, its ``document_count`` and, of one in a file, its
        ``persistence_path``."""
        path = self._store.path
        return {
            "backend": self._backend,
            "collection_name": self._collection(),
            "document_count": self._store.count(),
            "persistence_path": None if path is None else str(path),
        }

    def execute(self, data: Any) -> dict[str, Any]:
        """Finds the texts for a question, of a mapping with ``query`` or ``question``, of a pair or by itself."""
        question = _question(type(self).__name__, data)
        return _with_texts(data, question, [hit.text for hit in self._found(question)] if question.strip() else [])


def _question(step: str, data: Any) -> str:
    if isinstance(data, Mapping):
        question = _question_in(data)
    else:
        question = data[0] if isinstance(data, (tuple, list)) and data else data
    if not isinstance(question, str):
        what = f"a question, a pair that begins with one, or a mapping with one: {said(data)}"
        raise TypeError(f"`{step}` takes {what}")
    return question


def _with_texts(data: Any, question: str, texts: list[str]) -> dict[str, Any]:
    """What a step was given, with the texts that it has found."""
    found = {
        "results": [{"text": text} for text in texts],
        "retrieval_results": [{"text": text} for text in texts],
        "retrieved_docs": texts,
        "retrieved_documents": texts,
    }
    return {**data, **found} if isinstance(data, Mapping) else {"query": question, "input": data, **found}


class _DenseRetriever(_Retriever):
    """By vectors."""

    def __init__(
        self, config: Mapping[str, Any], enable_profile: bool = False, *, collection_name: str | None = None
    ) -> None:
        given = _checked(type(self).__name__, config).get("embedding") or {}
        options = {name: value for name, value in given.items() if name not in ("method", "model")}
        method = given.get("method", "default")
        if method == "default":
            options.setdefault("dim", config.get("dimension", 384))
        self.embedding_model = EmbeddingModel(method, given.get("model"), **options)
        super().__init__(config, enable_profile, collection_name=collection_name)

    def teardown(self, context: Any) -> None:
        """Ends the connections of its embedder."""
        self.embedding_model.close()

    def _records(self, ids: Sequence[str], texts: Sequence[str]) -> list[Record]:
        vectors = self.embedding_model.embed_batch(list(texts))
        made = [Record(id, vector, text) for id, vector, text in zip(ids, vectors, texts) if any(vector)]
        if len(made) < len(texts):
            self.logger.warning("%d texts have no word that is known, and are left out", len(texts) - len(made))
        return made

    def _found(self, question: str) -> list[Hit]:
        vector = self.embedding_model.embed(question)
        return self._store.search(vector, self.top_k) if any(vector) else []


class ChromaRetriever(_DenseRetriever):
    """Finds the texts of a collection for a question: ``stream.map(ChromaRetriever, config)``.

    The configuration has ``top_k`` (10), ``dimension`` (384), ``embedding`` with ``method`` and ``model``, as of
    ``EmbeddingModel``, and ``chroma`` with ``collection_name``, ``metadata`` with ``hnsw:space`` (``cosine``, ``l2`` or
    ``ip``) and perhaps ``knowledge_file``, whose texts have blank lines between them. The collection is a file in the
    folder ``persistence_path`` (``./chroma_db``), which is our own and not of Chroma's format; or, with ``force_http``,
    or a ``host`` that is not this one or has no ``persistence_path``, that of a Chroma server at ``port`` (8000).

    Of a mapping with ``query`` it gives the mapping with ``results``, as mappings with ``text``, and
    ``retrieved_docs``, the texts; of anything else a mapping with ``query`` and ``input`` as well.

    >>> import tempfile
    >>> from sage.libs.rag.retriever import ChromaRetriever
    >>> config = {"chroma": {"collection_name": "notes", "persistence_path": tempfile.mkdtemp()}, "top_k": 1}
    >>> ids = ChromaRetriever(config).add_documents(["Services stop last.", "Tea is hot."])
    >>> env = LocalEnvironment("found")
    >>> found = env.from_batch([{"query": "When do services stop?"}]).map(ChromaRetriever, config).collect()
    >>> job = env.submit(autostop=True)
    >>> found[0]["retrieved_docs"]
    ['Services stop last.']
    """

    _section = "chroma"
    _backend = "chroma"

    def _opened(self) -> VectorStore:
        place, host = self._place, self._place.get("host")
        space = (place.get("metadata") or {}).get("hnsw:space", "cosine")
        metric = _METRICS.get(str(space).lower())
        if metric is None:
            raise ValueError(f"`hnsw:space` is cosine, l2 or ip, not {said(space)}")
        is_local = host is None or (host in _LOCAL and "persistence_path" in place)
        if place.get("force_http") or not is_local:
            address = f"{'https' if place.get('ssl') else 'http'}://{host or 'localhost'}:{place.get('port', 8000)}"
            name = self._collection()
            return VectorStore.chroma(address, name=name, metric=metric, embedder=self.embedding_model)
        return _in_file(self._file("./chroma_db"), metric=metric, embedder=self.embedding_model)


class MilvusDenseRetriever(_DenseRetriever):
    """Finds the texts of a collection for a question: ``stream.map(MilvusDenseRetriever, config)``.

    The configuration has ``top_k`` (5), ``dimension`` (384), ``embedding`` with ``method`` and ``model``, as of
    ``EmbeddingModel``, and ``milvus_dense`` with ``collection_name``, ``metric_type`` (``COSINE``, ``IP`` or ``L2``)
    and perhaps ``knowledge_file``, whose texts have blank lines between them. The collection is a file in the folder
    ``persistence_path`` (``./milvus_db``), which is our own and not of Milvus's format; or, with a ``host`` that is not
    this one or has no ``persistence_path``, that of a Milvus server at ``port`` (19530).

    It takes and gives what ``ChromaRetriever`` does, and ``retrieved_documents`` besides.

    >>> import tempfile
    >>> from sage.middleware.operators.rag import MilvusDenseRetriever
    >>> config = {"milvus_dense": {"collection_name": "notes", "persistence_path": tempfile.mkdtemp()}, "top_k": 1}
    >>> retriever = MilvusDenseRetriever(config)
    >>> ids = retriever.add_documents(["Services stop last.", "Tea is hot."])
    >>> retriever.execute({"question": "When do services stop?"})["retrieved_documents"]
    ['Services stop last.']
    """

    _section = "milvus_dense"
    _backend = "milvus"
    _most = 5

    def _opened(self) -> VectorStore:
        place = self._place
        metric = _METRICS.get(str(place.get("metric_type", "COSINE")).lower())
        if metric is None:
            raise ValueError(f"`metric_type` is COSINE, IP or L2, not {said(place['metric_type'])}")
        host = place.get("host")
        if host is not None and not (host in _LOCAL and "persistence_path" in place):
            address, name = f"http://{host}:{place.get('port', 19530)}", self._collection()
            return VectorStore.milvus(address, name=name, metric=metric, embedder=self.embedding_model)
        return _in_file(self._file("./milvus_db"), metric=metric, embedder=self.embedding_model)


#: Metrics by the names of Chroma and of Milvus.
_METRICS: dict[str, Literal["cosine", "inner_product", "euclidean"]] = {
    "cosine": "cosine",
    "ip": "inner_product",
    "l2": "euclidean",
}


class MilvusSparseRetriever(_Retriever):
    """Finds texts by their words: ``stream.map(MilvusSparseRetriever, config)``.

    SAGE weighs words by the model BGE-M3, which is not here. With ``"method": "bm25"`` in ``milvus_sparse`` they weigh
    by BM25; without it, this is an error. The rest is as of ``MilvusDenseRetriever``, without ``embedding``;
    ``top_k`` is 10.

    >>> import tempfile
    >>> from sage.middleware.operators.rag import MilvusSparseRetriever
    >>> place = {"collection_name": "notes", "persistence_path": tempfile.mkdtemp(), "method": "bm25"}
    >>> retriever = MilvusSparseRetriever({"milvus_sparse": place})
    >>> ids = retriever.add_documents(["Services stop last.", "Tea is hot."])
    >>> retriever.execute("hot tea")["retrieved_docs"]
    ['Tea is hot.']
    """

    _section = "milvus_sparse"
    _backend = "milvus"

    def _opened(self) -> VectorStore:
        place = self._place
        if place.get("method") != "bm25":
            raise NotImplementedError(
                "`MilvusSparseRetriever` weighs words by the model BGE-M3, which needs FlagEmbedding and PyTorch and "
                'is not here: say `"method": "bm25"` in `milvus_sparse` to weigh them by BM25'
            )
        if place.get("host") is not None and not (place["host"] in _LOCAL and "persistence_path" in place):
            raise NotImplementedError(
                "`MilvusSparseRetriever` does not ask a server of Milvus: give a `persistence_path` for a file"
            )
        # A store has vectors; these mean nothing.
        return _in_file(self._file("./milvus_db"), dimensions=1, metric="euclidean", text_search=True)

    def _records(self, ids: Sequence[str], texts: Sequence[str]) -> list[Record]:
        return [Record(id, [0.0], text) for id, text in zip(ids, texts)]

    def _found(self, question: str) -> list[Hit]:
        return self._store.search(None, self.top_k, text=question)


class BGEReranker(MapFunction):
    """Puts the texts that were found in the order of a cross-encoder: ``stream.map(BGEReranker, config)``.

    The configuration has ``model_name``, the folder of its weights as a ``CrossEncoder`` reads it, such as that of
    bge-reranker-base, or the name under which Hugging Face's tools have downloaded it before, and ``top_k`` or ``topk``
    (3). ``Embedder.rerank`` needs no model, and goes by words.

    Of a mapping with ``query`` and ``results`` it gives the mapping with the best of them, best first, and of a pair of
    a question and texts ``[question, texts]``.

    >>> from sage.libs.rag.reranker import BGEReranker
    >>> BGEReranker({"model_name": "BAAI/bge-reranker-v2-m3"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FileNotFoundError: `BAAI/bge-reranker-v2-m3` is no folder here and was not downloaded before, and nothing is ...
    """

    def __init__(self, config: Mapping[str, Any], enable_profile: bool = False) -> None:
        super().__init__()
        self.config = _checked("BGEReranker", config)
        self.top_k = int(config.get("top_k", config.get("topk", 3)))
        name = str(config.get("model_name", "BAAI/bge-reranker-v2-m3"))
        folder = folder_of(name)
        if folder is None:
            raise FileNotFoundError(
                f"`{name}` is no folder here and was not downloaded before, and nothing is downloaded: get the weights "
                "of a cross-encoder, and give their folder as `model_name`"
            )
        self._model = CrossEncoder(str(folder))

    def execute(self, data: Any) -> Any:
        """Orders the texts."""
        if isinstance(data, Mapping):
            question = _question_in(data)
            names = ("results", "retrieval_results", "retrieved_docs")
            name = next((name for name in names if data.get(name)), "results")
            found = data.get(name) or []
            return {**data, name: self._best(question, found)}
        question, found = data
        return [question, self._best(question, found)]

    def _best(self, question: Any, found: Sequence[Any]) -> list[Any]:
        if not found:
            return []
        scores = self._model.scores(question, [_text(each) for each in found])
        order = sorted(range(len(found)), key=lambda at: -scores[at])
        return [found[at] for at in order[: self.top_k]]
