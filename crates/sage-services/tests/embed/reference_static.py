"""Writes fixtures/static.json and fixtures/wordllama.json: small models, texts, and the vectors that the libraries make
of them whose files we read. Run by hand, when a case is added:

    python -m venv V && V/bin/pip install model2vec==0.10.0 wordllama==0.4.0.post1 numpy==2.4.6 tokenizers==0.23.1
    V/bin/python reference_static.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import wordllama
from model2vec import StaticModel
from reference_models import REAL_TEXTS, TEXTS, WORDS, bpe, unigram, wordpiece, write
from safetensors import safe_open
from tokenizers import Tokenizer
from wordllama.inference import WordLlamaInference

def numbers(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Numbers that are exact in 16 bits."""
    return random.integers(-64, 65, shape).astype(np.float32) / 32


def model2vec_case(
    name: str, tokenizer: dict[str, Any], matrix: np.ndarray, config: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """A model in the layout of model2vec, with the vectors that it makes."""
    weights, mapping = more.get("weights"), more.get("mapping")
    model = StaticModel(
        matrix, Tokenizer.from_str(json.dumps(tokenizer)), config, normalize=config.get("normalize", False),
        weights=weights, token_mapping=mapping, max_length=config.get("max_length", 512),
    )
    lists = {key: more[key].tolist() for key in more}
    vectors = model.encode(TEXTS, use_multiprocessing=False).astype(float).round(7).tolist()
    return {"name": name, "layout": "model2vec", "tokenizer": tokenizer, "matrix": matrix.tolist(), "config": config,
            "vectors": vectors, **lists}


def main() -> None:
    """Writes both files."""
    random = np.random.default_rng(17)
    cases = []
    matrix = numbers(random, len(WORDS), 6)
    cases.append(model2vec_case("normalised", wordpiece(), matrix, {"normalize": True}))
    cases.append(model2vec_case("as it is", wordpiece(), matrix, {}))
    cases.append(model2vec_case("four tokens", wordpiece(), matrix, {"normalize": True, "max_length": 4}))
    cases.append(model2vec_case("all tokens", wordpiece(), matrix, {"normalize": True, "max_length": None}))
    mapping, weights = random.integers(0, 5, len(WORDS)), np.abs(numbers(random, len(WORDS))) + 0.125
    more = {"mapping": mapping, "weights": weights}
    cases.append(model2vec_case("shared rows", wordpiece(), numbers(random, 5, 6), {"normalize": True}, **more))
    pieces = unigram()
    matrix = numbers(random, len(pieces["model"]["vocab"]), 6)
    cases.append(model2vec_case("unigram", pieces, matrix, {"normalize": True}))
    merged = bpe()
    matrix = numbers(random, len(merged["model"]["vocab"]), 6)
    made = WordLlamaInference(matrix, Tokenizer.from_str(json.dumps(merged)))
    with np.errstate(invalid="ignore"):
        vectors = np.nan_to_num(made.embed(TEXTS, norm=True)).astype(float).round(7).tolist()
    cases.append({"name": "wordllama", "layout": "wordllama", "tokenizer": merged, "matrix": matrix.tolist(),
                  "vectors": vectors})
    write("static.json", {"texts": TEXTS, "cases": cases})

    folder = Path(wordllama.__file__).parent
    with safe_open(folder / "weights/l2_supercat_256.safetensors", framework="numpy") as tensors:
        matrix = tensors.get_tensor("embedding.weight")
    real = WordLlamaInference(matrix, Tokenizer.from_file(f"{folder}/tokenizers/l2_supercat_tokenizer_config.json"))
    with np.errstate(invalid="ignore"):
        vectors = np.nan_to_num(real.embed(REAL_TEXTS, norm=True)).astype(float).round(6).tolist()
    write("wordllama.json", {"texts": REAL_TEXTS, "vectors": vectors})


if __name__ == "__main__":
    main()
