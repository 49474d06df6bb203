"""Steps that tell how good answers are, as SAGE programs use them. Each prints what it finds of a record, and gives the
record on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ._arguments import said
from ._functions import MapFunction
from ._rag import _text
from ._sage import exact_match, rouge_l, token_f1


class _Evaluate(MapFunction):
    """Prints a measure of each record."""

    #: How it is called in what is printed.
    _named: str

    def __init__(self, config: Mapping[str, Any] | None = None, enable_profile: bool = False) -> None:
        super().__init__()
        self.config = config or {}

    def execute(self, data: Any) -> Any:
        """Prints the measure of a record, and gives the record."""
        if not isinstance(data, Mapping):
            raise TypeError(f"`{type(self).__name__}` takes a mapping, not {said(data)}")
        print(self._told(data))
        return data

    def _told(self, data: Mapping[str, Any]) -> str:
        raise NotImplementedError


class _OfAnswer(_Evaluate):
    """The best that the answer reaches with one of the references; 0 without one."""

    def _told(self, data: Mapping[str, Any]) -> str:
        answer = data.get("generated", data.get("pred")) or ""
        given = data.get("references", data.get("golds")) or []
        references = [given] if isinstance(given, str) else given
        best = max((self.score(str(answer), str(reference)) for reference in references), default=0.0)
        return f"[{self._named}] : {best:.4f}"

    def score(self, answer: str, reference: str) -> float:
        """The measure of an answer with one reference, 0 to 1."""
        raise NotImplementedError


class F1Evaluate(_OfAnswer):
    """Prints the harmonic mean of precision and recall of the answer's words, as ``token_f1``, with the closest of the
    references: ``stream.map(F1Evaluate)``.

    It takes mappings with ``generated`` or ``pred`` and ``references`` or ``golds``.

    >>> from sage.libs.rag.evaluate import F1Evaluate
    >>> record = F1Evaluate().execute({"generated": "In reverse order.", "references": ["the reverse order"]})
    [F1] : 0.8000
    """

    _named = "F1"

    def score(self, answer: str, reference: str) -> float:
        """As ``token_f1``."""
        return token_f1(answer, reference)


class RougeLEvaluate(_OfAnswer):
    """Prints ROUGE-L of the answer, as ``rouge_l``. It takes what ``F1Evaluate`` takes.

    >>> from sage.libs.rag.evaluate import RougeLEvaluate
    >>> record = RougeLEvaluate().execute({"generated": "services stop last", "references": ["services stop"]})
    [ROUGE-L] : 0.8000
    """

    _named = "ROUGE-L"

    def score(self, answer: str, reference: str) -> float:
        """As ``rouge_l``."""
        return rouge_l(answer, reference)


def _words(text: str) -> list[str]:
    return text.lower().split()


class RecallEvaluate(_OfAnswer):
    """Prints the share of a reference's words that the answer has. It takes what ``F1Evaluate`` takes.

    >>> from sage.libs.rag.evaluate import RecallEvaluate
    >>> record = RecallEvaluate().execute({"generated": "they stop last", "references": ["stop last of all"]})
    [Recall] : 0.5000
    """

    _named = "Recall"

    def score(self, answer: str, reference: str) -> float:
        """The share; a word counts as often as it is in both."""
        wanted = Counter(_words(reference))
        return (wanted & Counter(_words(answer))).total() / wanted.total() if wanted else 0.0


class ContextRecallEvaluate(_OfAnswer):
    """Prints the share of a reference's different words that the answer has. It takes what ``F1Evaluate`` takes.

    >>> from sage.libs.rag.evaluate import ContextRecallEvaluate
    >>> record = ContextRecallEvaluate().execute({"generated": "they stop", "references": ["stop stop last"]})
    [Context Recall] : 0.5000
    """

    _named = "Context Recall"

    def score(self, answer: str, reference: str) -> float:
        """The share."""
        wanted = set(_words(reference))
        return len(wanted & set(_words(answer))) / len(wanted) if wanted else 0.0


class BRSEvaluate(_OfAnswer):
    """Prints the share of a reference's different characters that the answer has. It takes what ``F1Evaluate`` takes.

    >>> from sage.libs.rag.evaluate import BRSEvaluate
    >>> record = BRSEvaluate().execute({"generated": "ab", "references": ["abcd"]})
    [BRS] : 0.5000
    """

    _named = "BRS"

    def score(self, answer: str, reference: str) -> float:
        """The share."""
        wanted = set(reference)
        return len(wanted & set(answer)) / len(wanted) if wanted else 0.0


class AccuracyEvaluate(_OfAnswer):
    """Prints 1 if the answer is one of the references, as ``exact_match``, or has all of its words one behind the
    other, else 0. It takes what ``F1Evaluate`` takes. (SAGE is content with three words of ten.)

    >>> from sage.libs.rag.evaluate import AccuracyEvaluate
    >>> record = AccuracyEvaluate().execute({"generated": "It is Paris.", "references": ["Paris"]})
    [Acc] : 1.0000
    """

    _named = "Acc"

    def score(self, answer: str, reference: str) -> float:
        """0 or 1."""
        if exact_match(answer, reference):
            return 1.0
        # Words as `exact_match` compares them, so that a full stop is no part of one.
        words, wanted = answer.split(), reference.split()
        runs = (words[at : at + len(wanted)] for at in range(len(words) - len(wanted) + 1))
        return float(bool(wanted) and any(exact_match(" ".join(run), reference) for run in runs))


class BertRecallEvaluate(_OfAnswer):
    """Prints the cosine of the vectors of the answer and a reference. It takes what ``F1Evaluate`` takes.

    ``config["model"]`` is the folder of a model, as of ``EmbeddingModel("hf")``: SAGE downloads BERT.

    >>> from sage.libs.rag.evaluate import BertRecallEvaluate
    >>> BertRecallEvaluate()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: the method `hf` needs its `model`: a folder with `model.safetensors`, ...
    """

    _named = "BertRecall"

    def __init__(self, config: Mapping[str, Any] | None = None, enable_profile: bool = False) -> None:
        super().__init__(config, enable_profile)
        from ._embedding import EmbeddingModel

        self._model = EmbeddingModel("hf", self.config.get("model"))

    def score(self, answer: str, reference: str) -> float:
        """The cosine."""
        a, b = self._model.embed_batch([answer, reference])
        lengths = (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
        return sum(x * y for x, y in zip(a, b)) / lengths if lengths else 0.0


def _tokens(texts: Any) -> int:
    given: Sequence[Any] = [texts] if isinstance(texts, (str, Mapping)) else texts or []
    return sum(len(_text(each).split()) for each in given)


class TokenCountEvaluate(_Evaluate):
    """Prints how many words the texts have that the model is given: those in ``compressed_context``, else in
    ``refining_results``, ``retrieval_results`` or ``results``. (A model's tokens are about a third more.)

    >>> from sage.libs.rag.evaluate import TokenCountEvaluate
    >>> record = TokenCountEvaluate().execute({"retrieval_results": [{"text": "tea is hot"}, "so is soup"]})
    [Token Count] : 6
    """

    _named = "Token Count"

    def _told(self, data: Mapping[str, Any]) -> str:
        names = ("compressed_context", "refining_results", "retrieval_results", "results")
        return f"[{self._named}] : {_tokens(next((data[name] for name in names if data.get(name)), ()))}"


class LatencyEvaluate(_Evaluate):
    """Prints how long the steps took, in seconds: ``retrieve_time``, ``refine_time``, ``generate_time`` and their sum.

    >>> from sage.libs.rag.evaluate import LatencyEvaluate
    >>> record = LatencyEvaluate().execute({"retrieve_time": 0.25, "generate_time": 1.5})
    [Retrieve Time] : 0.25s
    [Refine Time]   : 0.00s
    [Generate Time] : 1.50s
    [Total Latency] : 1.75s
    """

    def _told(self, data: Mapping[str, Any]) -> str:
        times = [float(data.get(f"{name}_time") or 0.0) for name in ("retrieve", "refine", "generate")]
        names = ("[Retrieve Time] ", "[Refine Time]   ", "[Generate Time] ", "[Total Latency] ")
        return "\n".join(f"{name}: {time:.2f}s" for name, time in zip(names, [*times, sum(times)]))


class CompressionRateEvaluate(_Evaluate):
    """Prints how many times as many words the texts in ``retrieval_results``, or ``results``, have as those in
    ``refining_results``; 0 without one of them.

    >>> from sage.libs.rag.evaluate import CompressionRateEvaluate
    >>> record = CompressionRateEvaluate().execute({"results": ["tea is hot today"], "refining_results": ["hot tea"]})
    [Compression Rate] : 2.00×
    """

    _named = "Compression Rate"

    def _told(self, data: Mapping[str, Any]) -> str:
        before = _tokens(data.get("retrieval_results") or data.get("results"))
        after = _tokens(data.get("refining_results"))
        return f"[{self._named}] : {before / after if after else 0.0:.2f}×"
