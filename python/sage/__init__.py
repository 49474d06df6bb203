"""Dataflow pipelines whose operators call managed services, with a shutdown that leaves nothing behind."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    from ._sage import ServiceError, ServiceFuture, ServiceRefused, SubmitError, WorkerLost
    from ._sage import version as _version
except ImportError as error:
    if "subinterpreter" not in str(error):
        raise
    raise ImportError(
        "`sage` runs in the main interpreter of a process only, not in a subinterpreter; use processes"
    ) from error

from . import _installed

if TYPE_CHECKING:
    from . import ops
    from ._batched import batched
    from ._call_policies import Breaker, Concurrency, Rate
    from ._connected import ConnectedStreams
    from ._environment import LocalEnvironment
    from ._file_error import BadLine, FileError
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
    from ._joins import JoinedStreams
    from ._keyed import KeyedStream
    from ._keep import Cache, Journal, Keep, erase_answers
    from ._letters import Letter, read_letters
    from ._metrics import JobMetrics, OperatorMetrics, PolicyMetrics, QueueMetrics, ServiceMetrics, TaskMetrics
    from ._packet import StopSignal
    from ._policies import DeadLetter, DeadLetterQueue, Retry, Skip
    from ._process import CoProcessFunction, KeyContext, ProcessFunction, Timer
    from ._remote_environment import RemoteEnvironment
    from ._services import BaseService
    from ._services import BaseService as Service
    from ._spends import Spend, Usage
    from ._stream import DataStream
    from ._verdicts import Passing, Throttled
    from ._windowed import WindowedStream
    from ._windows import Count, Paired, Session, Sliding, Tumbling, Windowed, WindowPaired
else:
    #: Which modules have the names: each is imported when one of them is first asked for, as a worker process and many
    #: a program does without most.
    _LATER = {
        "_batched": ("batched",),
        "_call_policies": ("Breaker", "Concurrency", "Rate"),
        "_connected": ("ConnectedStreams",),
        "_environment": ("LocalEnvironment",),
        "_file_error": ("BadLine", "FileError"),
        "_functions": (
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
        ),
        "_handles": ("ServiceHandle",),
        "_job": ("JobFailed", "JobId", "Report"),
        "_joins": ("JoinedStreams",),
        "_keyed": ("KeyedStream",),
        "_keep": ("Cache", "Journal", "Keep", "erase_answers"),
        "_letters": ("Letter", "read_letters"),
        "_metrics": ("JobMetrics", "OperatorMetrics", "PolicyMetrics", "QueueMetrics", "ServiceMetrics", "TaskMetrics"),
        "_packet": ("StopSignal",),
        "_policies": ("DeadLetter", "DeadLetterQueue", "Retry", "Skip"),
        "_process": ("CoProcessFunction", "KeyContext", "ProcessFunction", "Timer"),
        "_remote_environment": ("RemoteEnvironment",),
        "_services": ("BaseService", "Service"),
        "_spends": ("Spend", "Usage"),
        "_stream": ("DataStream",),
        "_verdicts": ("Passing", "Throttled"),
        "_windowed": ("WindowedStream",),
        "_windows": ("Count", "Paired", "Session", "Sliding", "Tumbling", "Windowed", "WindowPaired"),
    }

    def __getattr__(name: str) -> Any:
        if name == "ops":
            return import_module(".ops", __name__)
        for module, names in _LATER.items():
            if name in names:
                found = globals()[name] = getattr(import_module(f".{module}", __name__), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


_installed.warn()

#: The version of the package, and of the engine in it.
__version__ = _version

__all__ = [
    "BadLine",
    "BaseCoMapFunction",
    "BaseFunction",
    "BaseJoinFunction",
    "BaseService",
    "BatchFunction",
    "Breaker",
    "Cache",
    "CoProcessFunction",
    "Concurrency",
    "ConnectedStreams",
    "Count",
    "DataStream",
    "DeadLetter",
    "DeadLetterQueue",
    "FileError",
    "FilterFunction",
    "FlatMapFunction",
    "JobFailed",
    "JobId",
    "JobMetrics",
    "JoinedStreams",
    "Journal",
    "Keep",
    "KeyByFunction",
    "KeyContext",
    "KeyedStream",
    "Letter",
    "LocalEnvironment",
    "MapFunction",
    "OperatorMetrics",
    "Paired",
    "Passing",
    "PolicyMetrics",
    "ProcessFunction",
    "QueueMetrics",
    "Rate",
    "RemoteEnvironment",
    "Report",
    "Retry",
    "Service",
    "ServiceError",
    "ServiceFuture",
    "ServiceHandle",
    "ServiceMetrics",
    "ServiceRefused",
    "Session",
    "SinkFunction",
    "Skip",
    "Sliding",
    "SourceFunction",
    "Spend",
    "StopSignal",
    "SubmitError",
    "TaskMetrics",
    "Throttled",
    "Timer",
    "Tumbling",
    "Usage",
    "WindowPaired",
    "Windowed",
    "WindowedStream",
    "WorkerLost",
    "batched",
    "erase_answers",
    "ops",
    "read_letters",
]
