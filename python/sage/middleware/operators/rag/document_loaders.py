"""Loaders of documents, as SAGE programs import them."""

from sage._loaders import DocxLoader, LoaderFactory, MarkdownLoader, PDFLoader, TextLoader

__all__ = ["DocxLoader", "LoaderFactory", "MarkdownLoader", "PDFLoader", "TextLoader"]
