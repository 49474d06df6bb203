"""The steps of retrieval and generation, as SAGE programs import them."""

from sage._evaluators import (
    AccuracyEvaluate,
    BRSEvaluate,
    BertRecallEvaluate,
    CompressionRateEvaluate,
    ContextRecallEvaluate,
    F1Evaluate,
    LatencyEvaluate,
    RecallEvaluate,
    RougeLEvaluate,
    TokenCountEvaluate,
)
from sage._faiss import Wiki18FAISSRetriever
from sage._loaders import CharacterSplitter, DocxLoader, LoaderFactory, MarkdownLoader, PDFLoader, TextLoader
from sage._rag import HFGenerator, OpenAIGenerator, QAPromptor
from sage._retrievers import BGEReranker, ChromaRetriever, MilvusDenseRetriever, MilvusSparseRetriever

__all__ = [
    "AccuracyEvaluate",
    "BGEReranker",
    "BRSEvaluate",
    "BertRecallEvaluate",
    "CharacterSplitter",
    "ChromaRetriever",
    "CompressionRateEvaluate",
    "ContextRecallEvaluate",
    "DocxLoader",
    "F1Evaluate",
    "HFGenerator",
    "LatencyEvaluate",
    "LoaderFactory",
    "MarkdownLoader",
    "MilvusDenseRetriever",
    "MilvusSparseRetriever",
    "OpenAIGenerator",
    "PDFLoader",
    "QAPromptor",
    "RecallEvaluate",
    "RougeLEvaluate",
    "TextLoader",
    "TokenCountEvaluate",
    "Wiki18FAISSRetriever",
]
