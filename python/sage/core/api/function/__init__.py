"""The function classes, as SAGE programs import them."""

from sage._functions import (
    BaseCoMapFunction,
    BaseFunction,
    BaseJoinFunction,
    BatchFunction,
    FilterFunction,
    FlatMapFunction,
    KeyByFunction,
    MapFunction,
    SinkFunction,
    SourceFunction,
    wrap_lambda,
)

__all__ = [
    "BaseCoMapFunction",
    "BaseFunction",
    "BaseJoinFunction",
    "BatchFunction",
    "FilterFunction",
    "FlatMapFunction",
    "KeyByFunction",
    "MapFunction",
    "SinkFunction",
    "SourceFunction",
    "wrap_lambda",
]
