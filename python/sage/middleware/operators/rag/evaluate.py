"""The steps that tell how good answers are, as SAGE programs import them."""

from sage._evaluators import (
    AccuracyEvaluate,
    BRSEvaluate,
    BertRecallEvaluate,
    CompressionRateEvaluate,
    ContextRecallEvaluate,
    F1Evaluate,
    LatencyEvaluate,
    RecallEvaluate,
    RougeLEvaluate,
    TokenCountEvaluate,
)

__all__ = [
    "AccuracyEvaluate",
    "BRSEvaluate",
    "BertRecallEvaluate",
    "CompressionRateEvaluate",
    "ContextRecallEvaluate",
    "F1Evaluate",
    "LatencyEvaluate",
    "RecallEvaluate",
    "RougeLEvaluate",
    "TokenCountEvaluate",
]
