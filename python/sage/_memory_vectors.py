"""What programs give an index of vectors: models, texts, names of indexes, and vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._arguments import said
from ._embedding import EmbeddingModel
from ._memory_items import checked_text


def model_of(name: str, dimensions: int | None) -> EmbeddingModel:
    """The model that a program names: a method, or the name or folder of a model of Hugging Face."""
    options: dict[str, Any] = {} if dimensions is None else {"dim": dimensions}
    made = EmbeddingModel("hf", name) if "/" in name else EmbeddingModel(name, **options)
    if dimensions is not None and made.dimensions != dimensions:
        raise ValueError(f"the model {name!r} makes {made.dimensions} numbers, and the `dim` is {dimensions}")
    return made


def read_insert(
    given: Sequence[Any], indexes: Mapping[str, Any], text: Any, names: Any, vector: Any, metadata: Any
) -> tuple[str, list[str], Any, Any]:
    """The text, the names of indexes, the vector and the metadata of an ``insert``, of what it was given by position
    and by name."""
    words, rest = _split(given)
    if len(words) == 2 and text is None and names is None:
        is_second = not _is_name(words[0], indexes) and _is_name(words[1], indexes)
        text, names = words if is_second else reversed(words)
    elif len(words) == 1 and text is None:
        text = words[0]
    elif len(words) == 1 and names is None:
        names = words[0]
    elif words:
        raise TypeError(f"`insert` takes an index and a text, not {said(given)}")
    for each in rest:
        if isinstance(each, Mapping) and metadata is None:
            metadata = each
        elif vector is None:
            vector = each
        else:
            raise TypeError(f"`insert` takes a vector and metadata, not {said(given)}")
    if text is None:
        raise TypeError("`insert` needs a text")
    wanted = [] if names is None else [names] if isinstance(names, str) else list(names)
    return checked_text(text), wanted, vector, metadata


def _split(given: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Texts and lists of names of indexes that come first, and what follows."""
    words: list[Any] = []
    rest = [each for each in given if each is not None]
    while rest and len(words) < 2 and (isinstance(rest[0], str) or _is_names(rest[0])):
        words.append(rest.pop(0))
    return words, rest


def _is_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(each, str) for each in value)


def _is_name(value: Any, indexes: Mapping[str, Any]) -> bool:
    """Whether it is the name of an index, or such names."""
    return _is_names(value) or (isinstance(value, str) and value in indexes)


def checked_vector(vector: Any, dimensions: int, name: str) -> list[float]:
    """A vector as a list of finite numbers, if it has as many as an index takes."""
    made = vector.tolist() if hasattr(vector, "tolist") else vector
    try:
        numbers = [float(number) for number in made]
    except TypeError:
        raise TypeError(f"a vector is a list or an array of numbers, not {said(vector)}") from None
    if len(numbers) != dimensions:
        raise ValueError(f"a vector of index {name!r} has {dimensions} numbers, not {len(numbers)}")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"a vector has a number that is not finite: {said(vector)}")
    return numbers
