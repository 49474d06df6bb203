"""``DocumentIndex``: documents that can be asked, as one service.

It only puts the parts together; whoever wants other steps between them takes the parts. Its own state is made by
``setup`` and gone after ``cleanup``; the parts take calls of several threads, and so does it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ._arguments import said
from ._handles import ServiceHandle
from ._sage import Answer, Chunker, Embedder, Filter, Hit, Ingest, Passage, VectorStore, read_document
from ._services import Service

if TYPE_CHECKING:
    from typing_extensions import Self

#: Documents whose passages are looked up, embedded and stored at once.
_AT_ONCE = 16

#: Passages that those of an answer are chosen from.
_RETRIEVED = 50

#: What an index calls of an embedder.
_CALLED = ("embed_passages", "embed_queries")


class Embeds(Protocol):
    """What makes vectors of texts: one for each, such as a list or an array of floats."""

    @property
    def id(self) -> str: ...
    @property
    def dimensions(self) -> int: ...
    def embed_passages(self, texts: list[str], /) -> Any: ...
    def embed_queries(self, texts: list[str], /) -> Any: ...


class DocumentIndex(Service):
    """A service that keeps the passages of documents, finds those that a question is about, and quotes an answer: an
    embedder, a store and a chunker in one.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from sage import LocalEnvironment
    >>> from sage.services import documents
    >>> folder = tempfile.mkdtemp()
    >>> written = Path(folder, "stop.md").write_text("Services stop in reverse order.")
    >>> with LocalEnvironment("rag") as env:
    ...     index = env.service("index", DocumentIndex)
    ...     stored = env.from_batch(documents(folder, ["md"])).map(index.add).count()
    ...     answers = stored.map(lambda _: index.answer("In what order do services stop?")).collect()
    ...     job = env.submit(autostop=True)
    >>> answers[0].text
    'Services stop in reverse order.'

    ``path`` is the file of a store in this process, which a later run goes on with; without one it is in memory.
    ``store`` is another: a ``VectorStore``, the handle of a service that is one, or a function that opens one and is
    given its ``embedder``, such as ``functools.partial(VectorStore.chroma, url)``. ``setup`` opens the store and
    ``cleanup`` closes it; one that was given stays open. An index has its collection to itself.

    ``embedder`` makes the vectors: an ``Embedder`` unless given, or any object with an ``id``, ``dimensions``,
    ``embed_passages`` and ``embed_queries``. It stays open. ``chunker`` cuts documents: ``Chunker()`` unless given.
    A document is called what its path is, or what it is below the folder ``root``.

    Outside of a job, ``with DocumentIndex(path) as index`` opens and closes it. Threads share an index, and its methods
    take as many calls at once as the embedder does.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        embedder: Embeds | None = None,
        store: VectorStore | Callable[..., VectorStore] | None = None,
        chunker: Chunker | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        if path is not None and store is not None:
            raise TypeError("an index is in the file at `path`, or in the `store`: give one of them")
        self._embedder = Embedder() if embedder is None else checked_embedder(embedder)
        #: Knows how rare words are, by which passages are ordered and answers chosen.
        self._words = self._embedder if isinstance(self._embedder, Embedder) else Embedder()
        self._given = None
        self._make: Callable[..., VectorStore] = partial(VectorStore, path=path, name="documents")
        if isinstance(store, (VectorStore, ServiceHandle)):
            self._given = self._checked(store)
        elif callable(store):
            self._make = store
        elif store is not None:
            raise TypeError(f"`store` is a VectorStore, or a function that opens one, not {said(store)}")
        self._chunker = Chunker() if chunker is None else chunker
        self._root = None if root is None else Path(root)
        self._open: tuple[VectorStore, Ingest] | None = None
        self._has_added = False

    def setup(self) -> None:
        """Opens the store."""
        store = self._given
        if store is None:
            store = self._make(embedder=self._embedder)
            try:
                self._checked(store)
            except BaseException:
                store.close()
                raise
        self._open, self._has_added = (store, Ingest(self._embedder)), False

    def cleanup(self) -> None:
        """Closes the store, unless it was given."""
        opened, self._open = self._open, None
        if opened is not None and opened[0] is not self._given:
            opened[0].close()

    def add(self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> int:
        """Reads a document, or several, stores the passages that changed since they were stored last, and says how many
        these are. Only they are embedded.

        What cannot be read raises the error of ``read_document``, once all others are stored; what is stored of it
        stays as it is.

        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "stop.md")
        >>> written = path.write_text("Services stop last.")
        >>> with DocumentIndex() as index:
        ...     index.add(path), index.add([path]), index.count()
        (1, 0, 1)
        """
        several = [paths] if isinstance(paths, (str, bytes, os.PathLike)) else paths
        changed = 0
        failed: list[Exception] = []
        for some in _by(_AT_ONCE, iter(several)):
            self._has_added = True
            documents = {}
            for path in some:
                name = self._name(path)
                try:
                    documents[name] = self._chunker.chunk_document(name, read_document(path))
                except (OSError, ValueError) as error:
                    self._opened()[1].keep(name)
                    failed.append(error)
            changed += self._store(list(documents.values()))
        if failed:
            raise failed[0]
        return changed

    def sweep(self) -> int:
        """Deletes the passages of all documents that no ``add`` has seen since the index was opened, and says how many
        they were. It is for the end of a run that has added all there are. One that has added none, as after a mistake
        in the name of a folder, deletes nothing.

        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("old", "new"):
        ...     written = (folder / f"{name}.md").write_text("Services stop last.")
        >>> with DocumentIndex(folder / "docs.sage") as index:
        ...     changed = index.add([folder / "old.md", folder / "new.md"])
        >>> with DocumentIndex(folder / "docs.sage") as index:
        ...     index.add(folder / "new.md"), index.sweep(), index.count()
        (0, 1, 1)
        """
        store, ingest = self._opened()
        return ingest.sweep(store) if self._has_added else 0

    def search(self, question: str, k: int = 5, filter: Filter | Mapping[str, Any] | None = None) -> list[Hit]:
        """The ``k`` passages that a question is closest to, best first, of those that meet the ``filter``. A question
        without a known word finds none.

        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "stop.md")
        >>> written = path.write_text("# Stops\\n\\nServices stop last.\\n\\n# Starts\\n\\nServices start first.")
        >>> with DocumentIndex(root=path.parent) as index:
        ...     changed = index.add(path)
        ...     [hit.passage.heading for hit in index.search("When do services stop?", 1)]
        ...     [hit.id for hit in index.search("When do services stop?", filter={"heading": "Starts"})]
        ['Stops']
        ['stop.md#000001']
        """
        store, _ = self._opened()
        vector = self._embedder.embed_queries([question])[0]
        return store.search(vector, k, filter=filter) if any(vector) else []

    def answer(self, question: str, k: int = 5) -> Answer | None:
        """The sentence that answers a question best, or two neighbours: quoted from the ``k`` passages that share most
        words with it, among the fifty closest. ``None`` if none does.

        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "stop.md")
        >>> written = path.write_text("Services stop in reverse order.")
        >>> with DocumentIndex() as index:
        ...     changed = index.add(path)
        ...     index.answer("In what order do services stop?").text
        'Services stop in reverse order.'
        """
        hits = self._words.rerank(question, self.search(question, max(k, _RETRIEVED)), k)
        return self._words.answer(question, hits)

    def count(self) -> int:
        """The number of passages.

        >>> with DocumentIndex() as index:
        ...     index.count()
        0
        """
        return self._opened()[0].count()

    def __enter__(self) -> Self:
        self.setup()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.cleanup()

    def _store(self, documents: list[list[Passage]]) -> int:
        store, ingest = self._opened()
        plan = ingest.plan(store, documents)
        # Of what was embedded before, perhaps by another process, the words are still to be known.
        for passage in plan.unchanged:
            self._words.learn(passage.text_with_heading())
        texts = plan.texts
        vectors = self._embedder.embed_passages(texts) if texts else []
        if self._words is not self._embedder:
            for text in texts:
                self._words.learn(text)
        if records := plan.records(vectors):
            store.upsert_batch(records)
        return len(texts)

    def _opened(self) -> tuple[VectorStore, Ingest]:
        if self._open is None:
            raise RuntimeError("the index is not open: register it as a service, or use it in `with`")
        return self._open

    def _name(self, path: str | os.PathLike[str]) -> str:
        name = path if self._root is None else Path(path).relative_to(self._root)
        # It need not be UTF-8.
        return os.fsencode(name).decode("utf-8", "replace")

    def _checked(self, store: VectorStore) -> VectorStore:
        """Refuses a store of another embedder. One that is a service is asked by its methods alone."""
        if isinstance(store, ServiceHandle):
            return store
        mine, embedder = self._embedder.id, store.embedder
        if embedder not in (None, mine):
            raise ValueError(f"the store has vectors of {embedder}, and cannot have those of {mine}")
        if store.dimensions != self._embedder.dimensions:
            has, made = store.dimensions, self._embedder.dimensions
            raise ValueError(f"the vectors of the store have {has} coordinates, and those of {mine} {made}")
        return store


def checked_embedder(embedder: Any) -> Embeds:
    """The embedder that a program gives a service."""
    there = isinstance(getattr(embedder, "id", None), str) and isinstance(getattr(embedder, "dimensions", None), int)
    if isinstance(embedder, ServiceHandle) or not there or not all(hasattr(embedder, name) for name in _CALLED):
        raise TypeError(
            "`embedder` is an object with an `id`, `dimensions`, `embed_passages` and `embed_queries`, and no handle "
            f"of a service, which has methods only; not {said(embedder)}"
        )
    result: Embeds = embedder
    return result


def _by(number: int, items: Iterator[Any]) -> Iterator[list[Any]]:
    while some := list(islice(items, number)):
        yield some
