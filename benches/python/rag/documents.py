"""The input of P8, and the embedder: files of paragraphs, and questions made of words of some of them."""

from __future__ import annotations

import random
import shutil
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

QUESTIONS = 500
PARAGRAPHS = 2
#: Words of a paragraph: never two of them fit into a passage of `MOST_WORDS` words or `MOST_CHARS` characters.
LEAST_WORDS, MOST_WORDS = 80, 100
MOST_CHARS = 700
QUESTION_WORDS = 12


def written(folder: Path, guide: Path, files: int) -> list[str]:
    """Writes the files, unless they are there, and returns the questions."""
    words = sorted({word.strip(".,:;()`*") for word in guide.read_text("utf-8").split() if word.isalpha()})
    chance = random.Random(8)
    common = [words[int(chance.random() ** 3 * len(words))] for _ in range(200_000)]
    whole = folder / f"whole-{files}"
    if not whole.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    questions = []
    for number in range(files):
        paragraphs = []
        for _ in range(PARAGRAPHS):
            begin = chance.randrange(len(common) - MOST_WORDS)
            text = [*common[begin : begin + chance.randint(LEAST_WORDS - 2, MOST_WORDS - 2)], f"file{number}"]
            chance.shuffle(text)
            paragraphs.append(" ".join(text).capitalize() + ".")
        if number % max(1, files // QUESTIONS) == 0:
            questions.append(" ".join(chance.sample(paragraphs[0].split(), QUESTION_WORDS)))
        if not whole.exists():
            (folder / f"{number:05}.txt").write_text("\n\n".join(paragraphs) + "\n", "utf-8")
    whole.touch()
    return questions[:QUESTIONS]


class Wordllama:
    """wordllama's model; counts the seconds in which it is at work, for one caller or for several at once."""

    id = "wordllama"
    dimensions = 256

    def __init__(self) -> None:
        import wordllama
        from safetensors import safe_open
        from tokenizers import Tokenizer
        from wordllama.inference import WordLlamaInference

        # `WordLlama.load` asks a server for the tokenizer that is in its own package.
        folder = Path(wordllama.__file__).parent
        with safe_open(folder / "weights/l2_supercat_256.safetensors", framework="numpy") as tensors:
            matrix = tensors.get_tensor("embedding.weight")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizers/l2_supercat_tokenizer_config.json"))
        self.model = WordLlamaInference(matrix, tokenizer)
        self.seconds, self._callers, self._begin = 0.0, 0, 0.0
        self._lock = threading.Lock()

    def embed(self, texts: list[str]) -> np.ndarray[Any, Any]:
        """A row of length 1 for each text."""
        self._count(1)
        vectors = self.model.embed(texts, norm=True)
        self._count(-1)
        return np.ascontiguousarray(vectors, dtype=np.float32)

    def _count(self, change: int) -> None:
        with self._lock:
            now = perf_counter()
            if self._callers:
                self.seconds += now - self._begin
            self._callers, self._begin = self._callers + change, now
