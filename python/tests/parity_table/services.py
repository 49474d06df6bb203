"""Services, the context of functions and services, and futures of calls."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sage import MapFunction

from . import later, of, run, there

_LATER = "sage.kernel.api.service"


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


for _name in ("PipelineBridge", "PipelineRequest", "PipelineService", "PipelineServiceSource", "PipelineServiceSink"):
    later(_name, _LATER, "pipelines as services")
later("OpenAIGenerator", "sage.libs.rag.generator sage.middleware.operators.rag", "steps for retrieval")
later("QAPromptor", "sage.libs.rag.promptor sage.middleware.operators.rag", "steps for retrieval")
