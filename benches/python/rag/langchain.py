"""LangChain with its loader of folders, and faiss."""

from __future__ import annotations

from pathlib import Path

from langchain_community.document_loaders import DirectoryLoader, TextLoader
from langchain_community.vectorstores import FAISS
from langchain_community.vectorstores.utils import DistanceStrategy
from langchain_core.embeddings import Embeddings
from langchain_text_splitters import CharacterTextSplitter

from rag.documents import MOST_CHARS, Wordllama


class Embedder(Embeddings):
    def __init__(self, model: Wordllama) -> None:
        self.model = model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return list(self.model.embed(texts))

    def embed_query(self, text: str) -> list[float]:
        return self.model.embed([text])[0]


def found(folder: Path, questions: list[str], embedder: Wordllama) -> list[str]:
    loader = DirectoryLoader(str(folder), glob="*.txt", loader_cls=TextLoader, loader_kwargs={"encoding": "utf-8"})
    splitter = CharacterTextSplitter(separator="\n\n", chunk_size=MOST_CHARS, chunk_overlap=0)
    passages = splitter.split_documents(loader.load())
    store = FAISS.from_documents(
        passages, Embedder(embedder), distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT
    )
    return [store.similarity_search(question, k=5)[0].page_content for question in questions]
