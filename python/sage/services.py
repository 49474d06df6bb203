"""Services and functions of retrieval, which run without the interpreter's lock. ``Llm`` asks language models; the
others need no model and no network.

Use them by themselves, or register them like any service:

>>> from sage import LocalEnvironment
>>> from sage.services import Chunker, Embedder, VectorStore
>>> env = LocalEnvironment("index")
>>> embedder = env.service("embedder", Embedder)
>>> store = env.service("store", VectorStore, after=[embedder])
>>> def keep(passage):
...     return store.upsert(passage.id, embedder.embed_passage(passage.text_with_heading()), passage)
>>> passages = Chunker().chunks("stop.md", "# Stopping\\n\\nServices stop in reverse order.")
>>> replaced = env.from_batch(passages).map(keep).collect()
>>> job = env.submit(autostop=True)
>>> replaced
[False]

``self.call_service("store", vector, 4, method="search")`` calls the same store by its name. The records of a store that
is a service are gone when its job is over; to keep them, use the store without registering it. A subclass with other
constructor arguments needs a ``__new__`` for them besides its ``__init__``.
"""

from ._llm import ChatAnswer, ChatStream, Embedding, Llm, LlmError, Piece, TokenUsage, ToolCall
from ._sage import (
    Answer,
    Chunker,
    Documents,
    DocumentText,
    Embedder,
    Hit,
    Passage,
    StoreFull,
    Vector,
    VectorStore,
    documents,
    read_document,
)

__all__ = [
    "Answer",
    "ChatAnswer",
    "ChatStream",
    "Chunker",
    "DocumentText",
    "Documents",
    "Embedder",
    "Embedding",
    "Hit",
    "Llm",
    "LlmError",
    "Passage",
    "Piece",
    "StoreFull",
    "TokenUsage",
    "ToolCall",
    "Vector",
    "VectorStore",
    "documents",
    "read_document",
]
