"""Services and functions of retrieval, which run without the interpreter's lock. ``Llm`` and ``LlmEmbedder`` ask models
of a provider, ``VectorStore.chroma`` and ``VectorStore.milvus`` a server; the others need no network. An ``Embedder``
needs no model either. ``DocumentIndex`` is an embedder, a store and a chunker in one; ``Memory`` keeps conversations.

Use them by themselves, or register them like any service:

>>> from sage import LocalEnvironment
>>> from sage.services import Chunker, Embedder, VectorStore
>>> env = LocalEnvironment("index")
>>> embedder = env.service("embedder", Embedder)
>>> store = env.service("store", VectorStore, after=[embedder])
>>> def keep(passage):
...     store.upsert_batch([passage.record(embedder.embed_passage(passage.text_with_heading()))])
...     return store.count()
>>> passages = Chunker().chunks("stop.md", "# Stopping\\n\\nServices stop in reverse order.")
>>> counts = env.from_batch(passages).map(keep).collect()
>>> job = env.submit(autostop=True)
>>> counts
[1]

``self.call_service("store", vector, 4, method="search")`` calls the same store by its name. A store that is a service
is closed when its job is over: give it a ``path`` to keep its records, or use it without registering it. A subclass
with other constructor arguments needs a ``__new__`` for them besides its ``__init__``.
"""

from ._document_index import DocumentIndex
from ._llm import ChatAnswer, ChatStream, Embedding, Llm, LlmError, Piece, TokenUsage, ToolCall
from ._memory import Imported, Memory
from ._sage import (
    Answer,
    Chunker,
    Citation,
    Citations,
    CrossEncoder,
    DocumentText,
    Documents,
    Embedder,
    Field,
    Filter,
    Hit,
    Ingest,
    LlmEmbedder,
    MemoryClosed,
    MemoryDamaged,
    MemoryFailed,
    MemoryFull,
    MemoryLocked,
    MiniLmEmbedder,
    NewTurn,
    OtherCollection,
    OtherEmbedder,
    OtherText,
    Parts,
    Passage,
    Plan,
    Recalled,
    Receipt,
    Record,
    Row,
    Scope,
    Sources,
    StaticEmbedder,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    Turn,
    TurnsChanged,
    UnknownCollection,
    UnknownScope,
    UnknownTurn,
    Vector,
    VectorStore,
    Version,
    Weights,
    documents,
    exact_match,
    field,
    ndcg_at,
    precision_at,
    read_document,
    recall_at,
    reciprocal_rank,
    rouge_l,
    token_f1,
)

__all__ = [
    "Answer",
    "ChatAnswer",
    "ChatStream",
    "Chunker",
    "Citation",
    "Citations",
    "CrossEncoder",
    "DocumentIndex",
    "DocumentText",
    "Documents",
    "Embedder",
    "Embedding",
    "Field",
    "Filter",
    "Hit",
    "Imported",
    "Ingest",
    "Llm",
    "LlmEmbedder",
    "LlmError",
    "Memory",
    "MemoryClosed",
    "MemoryDamaged",
    "MemoryFailed",
    "MemoryFull",
    "MemoryLocked",
    "MiniLmEmbedder",
    "NewTurn",
    "OtherCollection",
    "OtherEmbedder",
    "OtherText",
    "Parts",
    "Passage",
    "Piece",
    "Plan",
    "Recalled",
    "Receipt",
    "Record",
    "Row",
    "Scope",
    "Sources",
    "StaticEmbedder",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreUnavailable",
    "TokenUsage",
    "ToolCall",
    "Turn",
    "TurnsChanged",
    "UnknownCollection",
    "UnknownScope",
    "UnknownTurn",
    "Vector",
    "VectorStore",
    "Version",
    "Weights",
    "documents",
    "exact_match",
    "field",
    "ndcg_at",
    "precision_at",
    "read_document",
    "recall_at",
    "reciprocal_rank",
    "rouge_l",
    "token_f1",
]
