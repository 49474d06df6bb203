"""The function classes, as SAGE programs import them."""

from sage._functions import BaseFunction, BatchFunction, FilterFunction, FlatMapFunction, KeyByFunction, MapFunction, SinkFunction, SourceFunction

__all__ = ["BaseFunction", "BatchFunction", "FilterFunction", "FlatMapFunction", "KeyByFunction", "MapFunction", "SinkFunction", "SourceFunction"]
