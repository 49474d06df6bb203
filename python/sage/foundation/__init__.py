"""The functions, as SAGE programs import them."""

from sage._functions import BaseFunction, BatchFunction, FilterFunction, FlatMapFunction, KeyByFunction, MapFunction, SinkFunction, SourceFunction
from sage._logging import CustomLogger

__all__ = ["BaseFunction", "BatchFunction", "CustomLogger", "FilterFunction", "FlatMapFunction", "KeyByFunction", "MapFunction", "SinkFunction", "SourceFunction"]
