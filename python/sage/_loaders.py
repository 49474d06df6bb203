"""Loaders of documents, and what cuts them, as SAGE programs use them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._arguments import said
from ._functions import MapFunction
from ._rag import _checked


class _Loader:
    """Reads a file."""

    #: What it calls its files.
    _type: str
    _extensions: tuple[str, ...] = ()

    def __init__(self, filepath: str | os.PathLike[str]) -> None:
        self.filepath = os.fspath(filepath)

    def load(self) -> dict[str, Any]:
        """Reads the file: its ``content``, and ``metadata`` with its ``source`` and ``type``."""
        content, more = self._read()
        return {"content": content, "metadata": {"source": self.filepath, "type": self._type, **more}}

    def _read(self) -> tuple[str, dict[str, Any]]:
        from ._sage import read_document

        suffix = Path(self.filepath).suffix.lower()
        if self._extensions and suffix not in self._extensions:
            ends = " or ".join(self._extensions)
            raise ValueError(f"`{type(self).__name__}` reads files that end in {ends}, unlike {self.filepath}")
        document = read_document(self.filepath)
        return document.text, {"pages": len(document.pages)} if document.pages else {}


class TextLoader(_Loader):
    """Loads a text.

    >>> import tempfile
    >>> from sage.libs.rag.document_loaders import TextLoader
    >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    ...     _ = file.write("Services stop last."); file.flush()
    ...     TextLoader(file.name).load()["content"]
    'Services stop last.'
    """

    _type = "txt"

    def __init__(self, filepath: str | os.PathLike[str], encoding: str = "utf-8") -> None:
        super().__init__(filepath)
        self.encoding = encoding

    def _read(self) -> tuple[str, dict[str, Any]]:
        return Path(self.filepath).read_text(encoding=self.encoding), {}


class MarkdownLoader(TextLoader):
    """Loads a text in Markdown, as it is.

    >>> from sage.libs.rag.document_loaders import MarkdownLoader
    >>> MarkdownLoader("/nowhere/guide.md").load()
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/guide.md'
    """

    _type = "md"


class PDFLoader(_Loader):
    """Loads the text of a PDF file; its ``metadata`` has the number of ``pages`` as well.

    >>> from sage.libs.rag.document_loaders import PDFLoader
    >>> PDFLoader("/nowhere/guide.pdf").load()
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/guide.pdf'
    """

    _type = "pdf"
    _extensions = (".pdf",)


class DocxLoader(_Loader):
    """Loads the text of a Word file, its paragraphs as Markdown. Files of before 2007, which end in ``.doc``, are not
    read.

    >>> from sage.libs.rag.document_loaders import DocxLoader
    >>> DocxLoader("/nowhere/guide.docx").load()
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/guide.docx'
    """

    _type = "docx"
    _extensions = (".docx",)

    def _read(self) -> tuple[str, dict[str, Any]]:
        if self.filepath.lower().endswith(".doc"):
            Path(self.filepath).stat()  # that it is not there is said first
            raise ValueError(f"{self.filepath} is a Word file of before 2007: save it as .docx")
        return super()._read()


class LoaderFactory:
    """Loads a file by the extension of its name: ``.txt``, ``.pdf``, ``.docx``, ``.doc``, ``.md`` or ``.markdown``.

    >>> from sage.libs.rag.document_loaders import LoaderFactory
    >>> LoaderFactory.load("guide.xyz")
    Traceback (most recent call last):
    ValueError: a file that ends in .xyz has no loader: .txt, .pdf, .docx, .doc, .md and .markdown have
    """

    _LOADERS = {
        ".txt": TextLoader,
        ".pdf": PDFLoader,
        ".docx": DocxLoader,
        ".doc": DocxLoader,
        ".md": MarkdownLoader,
        ".markdown": MarkdownLoader,
    }

    @classmethod
    def load(cls, filepath: str | os.PathLike[str]) -> dict[str, Any]:
        """Loads a file, as the ``load`` of its loader."""
        suffix = Path(filepath).suffix.lower()
        loader = cls._LOADERS.get(suffix)
        if loader is None:
            *names, last = cls._LOADERS
            raise ValueError(f"a file that ends in {suffix} has no loader: {', '.join(names)} and {last} have")
        made: _Loader = loader(filepath)
        return made.load()


class CharacterSplitter(MapFunction):
    """Cuts texts into pieces of so many characters: ``stream.map(CharacterSplitter, config)``.

    The configuration has ``chunk_size`` (512), ``overlap`` (128), how many characters a piece has from the end of the
    one before, and ``separator``: with it, texts are cut there, and pieces that are longer than ``chunk_size`` as well.
    It takes a mapping with ``content``, as loaders give it, or a text, and gives the list of pieces; of an empty text,
    an empty piece. ``Chunker`` keeps lines and headings together.

    >>> from sage.libs.rag.chunk import CharacterSplitter
    >>> CharacterSplitter({"chunk_size": 4, "overlap": 1}).execute({"content": "abcdefgh"})
    ['abcd', 'defg', 'gh']
    """

    def __init__(self, config: Mapping[str, Any] | None = None, enable_profile: bool = False) -> None:
        super().__init__()
        self.config = _checked("CharacterSplitter", {} if config is None else config)
        self.chunk_size, self.overlap = self.config.get("chunk_size", 512), self.config.get("overlap", 128)
        self.separator = self.config.get("separator")
        sizes = (self.chunk_size, self.overlap)
        if not all(isinstance(size, int) for size in sizes) or not 0 <= self.overlap < self.chunk_size:
            what = f"{said(self.chunk_size)} and {said(self.overlap)}"
            raise ValueError(f"`chunk_size` is 1 or more, and `overlap` 0 or more and less than it, not {what}")

    def execute(self, data: Any) -> list[str]:
        """Cuts a text."""
        text = data.get("content") if isinstance(data, Mapping) else data
        if not isinstance(text, str):
            raise TypeError(f"`CharacterSplitter` takes a mapping with a text as its `content`, not {said(data)}")
        parts = text.split(self.separator) if self.separator else [text]
        pieces = [piece for part in parts if part.strip() for piece in self._cut(part)]
        return pieces or [""]

    def _cut(self, text: str) -> list[str]:
        # The last piece reaches the end: a further one would be a part of it.
        starts = range(0, max(len(text) - self.overlap, 1), self.chunk_size - self.overlap)
        return [text[start : start + self.chunk_size] for start in starts]
