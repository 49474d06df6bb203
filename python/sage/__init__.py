"""Dataflow pipelines whose operators call managed services, with a shutdown that leaves nothing behind."""

try:
    from ._sage import ServiceError, SubmitError
except ImportError as error:
    if "subinterpreter" not in str(error):
        raise
    raise ImportError(
        "`sage` runs in the main interpreter of a process only, not in a subinterpreter; use processes"
    ) from error

from ._environment import LocalEnvironment
from ._functions import (
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
    StopSignal,
)
from ._job import JobFailed, JobId, Report
from ._services import BaseService
from ._stream import ConnectedStreams, DataStream

#: The name for new code.
Service = BaseService

__all__ = [
    "BaseCoMapFunction",
    "BaseFunction",
    "BaseJoinFunction",
    "BaseService",
    "BatchFunction",
    "ConnectedStreams",
    "DataStream",
    "FilterFunction",
    "FlatMapFunction",
    "JobFailed",
    "JobId",
    "KeyByFunction",
    "LocalEnvironment",
    "MapFunction",
    "Report",
    "Service",
    "ServiceError",
    "SinkFunction",
    "SourceFunction",
    "StopSignal",
    "SubmitError",
]
