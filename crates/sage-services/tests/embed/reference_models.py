"""What the references have in common: texts, small tokenizers, and how a fixture is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def write(name: str, value: dict[str, Any]) -> None:
    """Writes a file, with one case or vector a line."""
    def listed(items: list[Any]) -> str:
        return ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in items)

    lines = [f" {json.dumps(key)}: [\n  {listed(items)}\n ]" for key, items in value.items()]
    (FIXTURES / name).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
