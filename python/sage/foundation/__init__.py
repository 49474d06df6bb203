"""The functions, as SAGE programs import them."""

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
from sage._io import PrintSink
from sage._logging import CustomLogger

__all__ = [
    "BaseCoMapFunction",
    "BaseFunction",
    "BaseJoinFunction",
    "BatchFunction",
    "CustomLogger",
    "FilterFunction",
    "FlatMapFunction",
    "KeyByFunction",
    "MapFunction",
    "PrintSink",
    "SinkFunction",
    "SourceFunction",
    "wrap_lambda",
]
