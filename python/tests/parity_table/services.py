"""Services, the context of functions and services, and futures of calls."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sage import MapFunction, StopSignal
from sage.kernel.api.service import PipelineBridge, PipelineService, PipelineServiceSource

from . import of, run, there

_PIPELINES = "sage.kernel.api.service sage.kernel.api.service.pipeline_service"


class Db:
    """Has the answer that a call asks for."""

    def process(self, *record: Any) -> Any:
        return record

    def search(self, query: str, k: int = 1) -> Any:
        return [query] * k


def within(do: Any) -> Any:
    """What a function of a job gives, of which a service `db` is."""

    class Does(MapFunction):
        def execute(self, record: Any) -> Any:
            return do(self)

    (result,) = run(lambda env: env.from_batch([1]).map(Does, keep_none=True), db=Db)
    return result


@there(
    "BaseService",
    "*args, **kwargs",
    "sage.core.api.service.base_service sage.core.api.service sage.kernel.api.service.base_service "
    "sage.kernel.api.service sage.common.service sage.common.service.base_service sage.platform.service "
    "sage.platform.service.base_service sage.runtime sage.runtime.service sage",
)
@of("BaseService", "setup", "")
@of("BaseService", "start", "")
@of("BaseService", "stop", "")
@of("BaseService", "cleanup", "")
def base_service(BaseService: Any) -> None:
    seen: list[str] = []

    class Life(BaseService):
        def __init__(self) -> None:
            super().__init__("passed", on=True)
            seen.append("init")

    for hook in ("setup", "start", "stop", "cleanup"):
        assert getattr(BaseService(), hook)() is None
        setattr(Life, hook, lambda self, hook=hook: seen.append(hook))
    run(lambda env: env.from_batch([1]), life=Life)
    assert seen == ["init", "setup", "start", "stop", "cleanup"]


@of("BaseService", "name")
@of("BaseService", "logger")
@of("BaseFunction", "name")
@of("BaseFunction", "logger")
def named(base: Any) -> None:
    made = type("Mine", (base,), {})()
    assert made.ctx is None and made.name == made.logger.name == "Mine"
    made._logger = logging.getLogger("own")
    assert made.logger.name == "own"


@of("BaseService", "call_service")
@of("BaseService", "call_service_async")
@of("BaseFunction", "call_service")
@of("BaseFunction", "call_service_async")
def called(base: Any) -> None:
    for call in ("call_service", "call_service_async"):
        with pytest.raises(RuntimeError, match="context not initialized"):
            getattr(base(), call)("db")
    options = {"method": "search", "timeout": 60.0, "k": 2}
    assert within(lambda f: f.call_service("db", 1, 2, timeout=None, method=None)) == (1, 2)
    assert within(lambda f: f.call_service("db", "q", **options)) == ["q", "q"]
    assert within(lambda f: f.call_service["db"].search("q")) == ["q"]
    assert within(lambda f: f.call_service_async("db", "q", **options).result()) == ["q", "q"]


@of("BaseFunction", "execute", "*args")
def execute(BaseFunction: Any) -> None:
    with pytest.raises(NotImplementedError, match="has no `execute`"):
        BaseFunction().execute(1)


@of("BaseFunction", "ctx")
@of("BaseService", "ctx")
def context(_: Any) -> None:
    def tell(function: Any) -> Any:
        ctx = function.ctx
        assert ctx.logger is function.logger and ctx.get_service("db").search("q") == ["q"]
        assert ctx.call_service("db", 1) == ctx.call_service_async("db", 1).result() == (1,)
        numbers = ctx.parallel_index, ctx.parallelism
        return ctx.name, ctx.env_name, len(ctx.env_uuid) > 8, numbers, ctx.get_key(), ctx.is_stop_requested()

    assert within(tell) == ("Does", "parity", True, (0, 1), None, False)
    keyed = lambda env: env.from_batch([1, 2]).keyby(str).map(Keyed)  # noqa: E731
    assert run(keyed) == ["1", "2"]
    assert within(lambda function: function.ctx.request_stop()) is None


class Keyed(MapFunction):
    def execute(self, record: Any) -> Any:
        return self.ctx.get_key()


@there("ServiceFuture", None, "sage")
@of("ServiceFuture", "result", "timeout=None")
@of("ServiceFuture", "exception", "timeout=None")
@of("ServiceFuture", "done", "")
@of("ServiceFuture", "running", "")
@of("ServiceFuture", "cancel", "")
@of("ServiceFuture", "cancelled", "")
@of("ServiceFuture", "add_done_callback", "fn, /")
def future(_: Any) -> None:
    seen: list[Any] = []

    def tell(function: Any) -> Any:
        made = function.call_service_async("db", 1)
        assert made.result(60) == (1,) and made.exception() is None and made.done()
        made.add_done_callback(lambda got: seen.append(got is made))
        return made.running(), made.cancel(), made.cancelled()

    assert within(tell) == (False, False, False) and seen == [True]


@there("PipelineBridge", "", _PIPELINES)
@of("PipelineBridge", "submit", "payload")
@of("PipelineBridge", "next", "timeout=0.1")
@of("PipelineBridge", "close", "")
@of("PipelineBridge", "is_closed")
def pipeline_bridge(PipelineBridge: Any) -> None:
    bridge = PipelineBridge()
    response = bridge.submit("why?")
    request = bridge.next(timeout=0)
    assert request.payload == "why?" and bridge.next(timeout=0) is None
    request.response_queue.put("because")
    assert response.get(timeout=1) == "because" and response.maxsize == 1
    bridge.close()
    assert bridge.is_closed and isinstance(bridge.next(), StopSignal)
    with pytest.raises(RuntimeError):
        bridge.submit("late")


@there("PipelineRequest", "payload, response_queue", _PIPELINES)
def pipeline_request(PipelineRequest: Any) -> None:
    request = PipelineRequest("payload", response_queue="queue")
    assert (request.payload, request.response_queue) == ("payload", "queue")


@there("PipelineService", "bridge, request_timeout=None", _PIPELINES)
@of("PipelineService", "process", "message")
@of("PipelineService", "stop", "")
def pipeline_service(PipelineService: Any) -> None:
    bridge = PipelineBridge()
    service = PipelineService(bridge, 0.01)
    with pytest.raises(TimeoutError):
        service.process("nobody answers")
    with pytest.raises(ValueError):
        service.process(None)
    service.stop()
    assert bridge.is_closed and service.process({"command": "shutdown"}) == {"status": "shutdown_ack"}


@there("PipelineServiceSource", "bridge, poll_interval=0.1", _PIPELINES)
@of("PipelineServiceSource", "execute", "data=None")
def pipeline_service_source(PipelineServiceSource: Any) -> None:
    bridge = PipelineBridge()
    source = PipelineServiceSource(bridge, poll_interval=0.01)
    bridge.submit({"n": 1}), bridge.submit(2)
    first, second = source.execute(), source.execute()
    assert (first["n"], second["data"], source.execute()) == (1, 2, None)
    assert set(first) == {"n", "_response_queue"} and set(second) == {"data", "_response_queue"}
    bridge.close()
    assert isinstance(source.execute(), StopSignal)


@there("PipelineServiceSink", "", _PIPELINES)
@of("PipelineServiceSink", "execute", "data")
def pipeline_service_sink(PipelineServiceSink: Any) -> None:
    def tell(function: Any) -> Any:
        return function.call_service("square", {"n": 3})

    def declare(env: Any) -> Any:
        bridge = PipelineBridge()
        env.register_service("square", PipelineService, bridge)
        requests = env.from_source(PipelineServiceSource, bridge)
        requests.map(lambda data: {**data, "n": data["n"] ** 2}).sink(PipelineServiceSink)

        class Tell(MapFunction):
            def execute(self, _record: Any) -> Any:
                return tell(self)

        return env.from_batch([1]).map(Tell)

    assert run(declare) == [{"n": 9}]
