"""Writes fixtures/static.json and fixtures/wordllama.json: small models, texts, and the vectors that the libraries make
of them whose files we read. Run by hand, when a case is added:

    python -m venv V && V/bin/pip install model2vec==0.10.0 wordllama==0.4.0.post1 numpy==2.4.6 tokenizers==0.23.1
    V/bin/python reference.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import wordllama
from model2vec import StaticModel
from safetensors import safe_open
from tokenizers import Tokenizer
from wordllama.inference import WordLlamaInference

FIXTURES = Path(__file__).parent / "fixtures"

WORDS = "[PAD] [UNK] [CLS] [SEP] tea is hot service ##s stop ##ped last . in order".split()
TEXTS = [
    "Tea is hot.",
    "services stop last",
    "Services stopped in order.",
    "in in in order",
    "",
    "xylophone",
    "xylophone tea",
    "  \n\t ",
    "[SEP] tea",
    "Tea — is hot ☕",
    "tea is hot services stop last in order tea is hot",
]
REAL_TEXTS = [
    "Tea is hot.",
    "When do services stop? They stop in reverse order, after the last record.",
    "",
    " ",
    "Überraschung: 価格は12,345円です ☕\n\nnext line",
    "a  b   c    d",
    "fn main() { println!(\"{}\", 1 + 1); }",
    "word " * 600,
]


def wordpiece() -> dict[str, Any]:
    """A tokenizer as BERT's."""
    return {
        "version": "1.0", "truncation": None,
        "padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [{"id": i, "content": WORDS[i], "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i in range(4)],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {word: i for i, word in enumerate(WORDS)}},
    }


def bpe() -> dict[str, Any]:
    """A tokenizer as that of Llama 2: bytes for what it does not know, and no words before it merges."""
    letters = ["▁", "t", "e", "a", "i", "s", "h", "o", "."]
    merged = [("t", "e"), ("te", "a"), ("▁", "tea"), ("i", "s"), ("▁", "is"), ("o", "t"), ("h", "ot"), ("▁", "hot"),
              ("▁", "▁")]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    tokens += [left + right for left, right in merged]
    special = [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for i in range(3)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {
            "type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {token: i for i, token in enumerate(tokens)}, "merges": [list(pair) for pair in merged]},
    }


def unigram() -> dict[str, Any]:
    """A tokenizer as those of SentencePiece."""
    pieces = [("<unk>", 0.0), ("▁tea", -1.0), ("▁is", -1.5), ("▁hot", -2.0), ("▁", -3.0), ("t", -5.0), ("e", -5.0),
              ("a", -5.0), ("s", -4.5), (".", -2.5)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": None, "decoder": None,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
    }


def numbers(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Numbers that are exact in 16 bits."""
    return random.integers(-64, 65, shape).astype(np.float32) / 32


def model2vec_case(name: str, tokenizer: dict[str, Any], matrix: np.ndarray, config: dict[str, Any], **more: Any) -> Any:
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


def write(name: str, value: dict[str, Any]) -> None:
    """Writes a file, with one case or vector a line."""
    lines = [f" {json.dumps(key)}: [\n  " + ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in items) + "\n ]"
             for key, items in value.items()]
    (FIXTURES / name).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
