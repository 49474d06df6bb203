"""Services, and the steps of retrieval that go with them, that work without the interpreter.

They are classes like any other, used by themselves or registered as services; their methods run beside Python's threads, as none
of them holds the interpreter's lock.

>>> from sage import LocalEnvironment, SinkFunction
>>> from sage.services import Embedder, VectorStore
>>> class Index(SinkFunction):
...     def execute(self, text):
...         vector = self.call_service("embedder", text, method="embed_passage")
...         self.call_service("store", text, vector, text, method="upsert")
>>> env = LocalEnvironment("index")
>>> env.register_service("embedder", Embedder)
>>> env.register_service("store", VectorStore)
>>> stream = env.from_batch(["Tasks stop first.", "Services stop last."]).sink(Index)
>>> job = env.submit(autostop=True)
>>> job.report.services["store"]["calls"]
2
"""

from ._sage import (
    Answer,
    Chunker,
    Documents,
    DocumentText,
    Embedder,
    Hit,
    Passage,
    StoreFull,
    VectorStore,
    documents,
    read_document,
)

__all__ = [
    "Answer",
    "Chunker",
    "DocumentText",
    "Documents",
    "Embedder",
    "Hit",
    "Passage",
    "StoreFull",
    "VectorStore",
    "documents",
    "read_document",
]
