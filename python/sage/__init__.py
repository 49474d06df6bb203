"""Dataflow pipelines whose operators call managed services, with a shutdown that leaves nothing behind."""

try:
    from ._sage import ServiceError, ServiceFuture, SubmitError
except ImportError as error:
    if "subinterpreter" not in str(error):
        raise
    raise ImportError(
        "`sage` runs in the main interpreter of a process only, not in a subinterpreter; use processes"
    ) from error

from . import _installed, ops
from ._connected import ConnectedStreams
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
)
from ._handles import ServiceHandle
from ._job import JobFailed, JobId, Report
from ._keyed import JoinedStreams, KeyedStream, WindowedStream
from ._letters import Letter, read_letters
from ._packet import StopSignal
from ._policies import DeadLetter, DeadLetterQueue, Retry, Skip
from ._process import CoProcessFunction, KeyContext, ProcessFunction, Timer
from ._services import BaseService
from ._stream import DataStream
from ._windows import Count, Paired, Session, Sliding, Tumbling, Windowed, WindowPaired

_installed.warn()

#: The name for new code.
Service = BaseService

__all__ = [
    "BaseCoMapFunction",
    "BaseFunction",
    "BaseJoinFunction",
    "BaseService",
    "BatchFunction",
    "CoProcessFunction",
    "ConnectedStreams",
    "Count",
    "DataStream",
    "DeadLetter",
    "DeadLetterQueue",
    "FilterFunction",
    "FlatMapFunction",
    "JobFailed",
    "JobId",
    "JoinedStreams",
    "KeyByFunction",
    "KeyContext",
    "KeyedStream",
    "Letter",
    "LocalEnvironment",
    "MapFunction",
    "Paired",
    "ProcessFunction",
    "Report",
    "Retry",
    "Service",
    "ServiceError",
    "ServiceFuture",
    "ServiceHandle",
    "Session",
    "SinkFunction",
    "Skip",
    "Sliding",
    "SourceFunction",
    "StopSignal",
    "SubmitError",
    "Timer",
    "Tumbling",
    "WindowPaired",
    "Windowed",
    "WindowedStream",
    "ops",
    "read_letters",
]
