"""LlamaIndex with its reader of folders, and its own store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.node_parser import TokenTextSplitter
from pydantic import PrivateAttr

from rag.documents import MOST_WORDS, Wordllama


class Embedder(BaseEmbedding):
    _model: Any = PrivateAttr()

    def __init__(self, model: Wordllama) -> None:
        super().__init__(model_name="wordllama", embed_batch_size=1_000)
        self._model = model

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._model.embed(texts).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embeddings([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def found(folder: Path, questions: list[str], embedder: Wordllama) -> list[str]:
    documents = SimpleDirectoryReader(str(folder), required_exts=[".txt"]).load_data()
    # Its own counter of tokens is slower than this, and is not what is measured.
    splitter = TokenTextSplitter(
        chunk_size=MOST_WORDS + 60, chunk_overlap=0, separator="\n\n", include_metadata=False, tokenizer=str.split
    )
    index = VectorStoreIndex.from_documents(documents, embed_model=Embedder(embedder), transformations=[splitter])
    retriever = index.as_retriever(similarity_top_k=5)
    return [retriever.retrieve(question)[0].node.get_content().strip() for question in questions]
