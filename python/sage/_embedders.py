"""The ways to embed, as SAGE programs ask for them: what each needs, and whether it can be used here."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from ._embedding import EmbeddingModel
from ._weights import folder_of


class _Way(NamedTuple):
    display_name: str
    description: str
    requires_api_key: bool = False
    requires_download: bool = False
    default_dimension: int | None = None
    examples: tuple[str, ...] = ()


def _provider(name: str, *examples: str) -> _Way:
    return _Way(name, "a model of a server with OpenAI's protocol", requires_api_key=True, examples=examples)


_MINILM = "sentence-transformers/all-MiniLM-L6-v2"

#: By their names. What asks a server is asked at its `base_url`.
_WAYS = {
    "default": _Way("Words", "finds shared words, by their hashes", default_dimension=384),
    "hash": _Way("Words", "finds shared words, by their hashes", default_dimension=384),
    "mockembedder": _Way("Mock", "numbers that follow from the text's hash, for tests", default_dimension=128),
    "hf": _Way("Hugging Face", "a model in a folder", requires_download=True, examples=(_MINILM,)),
    "openai": _provider("OpenAI", "text-embedding-3-small", "text-embedding-3-large"),
    "jina": _provider("Jina", "jina-embeddings-v3"),
    "zhipu": _provider("Zhipu", "embedding-3"),
    "cohere": _provider("Cohere", "embed-multilingual-v3.0"),
    "bedrock": _provider("Bedrock", "amazon.titan-embed-text-v2:0"),
    "ollama": _provider("Ollama", "nomic-embed-text")._replace(requires_api_key=False),
    "siliconcloud": _provider("SiliconCloud", "netease-youdao/bce-embedding-base_v1"),
    "nvidia_openai": _provider("NVIDIA", "nvidia/llama-3.2-nv-embedqa-1b-v1"),
    "lollms": _provider("LoLLMs")._replace(requires_api_key=False),
}


def get_embedding_model(method: str, **options: Any) -> EmbeddingModel:
    """An ``EmbeddingModel`` by the name of its method.

    >>> from sage.common.components.sage_embedding import get_embedding_model
    >>> len(get_embedding_model("hash", dim=256).embed("tea"))
    256
    """
    return EmbeddingModel(method, **options)


def list_embedding_models() -> dict[str, dict[str, Any]]:
    """What each method of ``EmbeddingModel`` is and needs: its ``display_name``, ``description``, ``requires_api_key``,
    ``requires_download``, ``default_dimension``, ``None`` where the model says it, and ``examples`` of models.

    >>> from sage.common.components.sage_embedding import list_embedding_models
    >>> list_embedding_models()["hash"]["default_dimension"]
    384
    """
    return {name: {**way._asdict(), "examples": list(way.examples)} for name, way in _WAYS.items()}


def check_model_availability(method: str, **options: Any) -> dict[str, str]:
    """Whether a method can be used with its ``model`` and ``api_key``: a ``status``, which is ``"available"``,
    ``"cached"``, ``"needs_download"``, ``"needs_api_key"`` or ``"unavailable"``, a ``message``, and the ``action`` to
    take. Nobody is asked: a server may still refuse the key.

    >>> from sage.common.components.sage_embedding import check_model_availability
    >>> check_model_availability("hash")["status"]
    'available'
    """
    way = _WAYS.get(method)
    if way is None:
        return _told("unavailable", "there is no such method", f"choose one of {', '.join(_WAYS)}")
    if way.requires_api_key:
        variables = (f"{method.upper()}_API_KEY", "OPENAI_API_KEY")
        if not (options.get("api_key") or any(map(os.environ.get, variables))):
            return _told("needs_api_key", "needs a key", f"set {variables[0]}, or give an `api_key`")
    if way.requires_download:
        model = options.get("model")
        if model is None or folder_of(model) is None:
            action = f"get {'a model' if model is None else model}, and give its folder as `model`"
            return _told("needs_download", "needs the weights of a model", action)
        return _told("cached", "its weights are here", "use it")
    return _told("available", "can be used", "use it")


def _told(status: str, message: str, action: str) -> dict[str, str]:
    return {"status": status, "message": message, "action": action}
