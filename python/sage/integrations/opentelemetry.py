"""Spans of jobs for OpenTelemetry: ``pip install 'sage-dataflow[opentelemetry]'``.

>>> from sage.integrations.opentelemetry import trace
>>> env = trace(LocalEnvironment("traced"))
>>> kept = env.from_batch([1, 2]).map(abs).collect()
>>> job = env.submit(autostop=True)

A job is a span, from ``submit`` to the end of its cleanup, below the span that is current where it is submitted. Below
it are spans of its tasks, which are its threads, and of calls of its services. Functions and services find the job's
span as the current one: what they trace themselves is below it, or below that of the call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace as api
except ModuleNotFoundError as missing:
    raise ImportError(
        "`sage.integrations.opentelemetry` needs OpenTelemetry: pip install 'sage-dataflow[opentelemetry]'",
        name=missing.name,
    ) from missing

from .. import _sage
from .._arguments import whole
from .._batched import Together
from .._environment import LocalEnvironment
from .._jobmanager import GONE
from .._keywords import spelt
from .._services import HOOKS

if TYPE_CHECKING:
    from .._running import Run

__all__ = ["trace"]

_Environment = TypeVar("_Environment", bound=LocalEnvironment)

#: The state of a task that works.
_RUNNING = "running"


@spelt
def trace(
    env: _Environment, *, tracer_provider: api.TracerProvider | None = None, one_call_in: int = 64
) -> _Environment:
    """Has every job of an environment traced from here on. Returns the environment.

    ``one_call_in``: of so many calls of each method of a service, one is a span (1 or more; default 64): the first, and
    then every 64th. ``tracer_provider`` is by default the global one.

    >>> from sage.integrations.opentelemetry import trace
    >>> env = trace(LocalEnvironment("traced"), one_call_in=10)
    >>> lengths = env.from_batch(["tea"]).map(len).collect()
    >>> job = env.submit(autostop=True)
    >>> lengths
    [3]
    """
    if not isinstance(env, LocalEnvironment):
        raise TypeError(f"`trace` is for environments whose jobs run in this process, not for {env!r}")
    every = whole("`one_call_in`", one_call_in)
    env._observers.append(_Tracing(api.get_tracer("sage", _sage.version, tracer_provider), every))
    return env


class _Tracing:
    """Traces the jobs of one environment."""

    def __init__(self, tracer: api.Tracer, every: int) -> None:
        self._tracer = tracer
        self._every = every

    @contextmanager
    def begins(self, run: Run) -> Iterator[None]:
        """Inside of the block, a job is started: its threads have the context of it."""
        span = self._tracer.start_span(f"job {run.name}", attributes={"sage.environment": run.name})
        token = contexts.attach(api.set_span_in_context(span))
        try:
            yield
        except BaseException as error:
            if not hasattr(run, "job"):  # such as a pipeline that cannot run
                span.record_exception(error)
                span.set_status(api.StatusCode.ERROR, str(error))
                span.end()
            raise
        finally:
            contexts.detach(token)
            if hasattr(run, "job"):
                span.set_attribute("sage.job", run.job.id)
                run.at_end.append(lambda: self._ends(span, run.job))

    def _ends(self, span: api.Span, job: _sage.Job) -> None:
        """The job is over."""
        end = _nanos(job.ended_at)
        self._tell_tasks(api.set_span_in_context(span), job, end)
        if job.signal is not None:
            span.set_attribute("sage.signal", job.signal)
        if job.error is None:
            span.set_status(api.StatusCode.OK)
        else:
            if isinstance(job.exception, Exception):
                span.record_exception(job.exception)
            span.set_status(api.StatusCode.ERROR, job.error)
        span.end(end)

    def _tell_tasks(self, parent: contexts.Context, job: _sage.Job, end: int | None) -> None:
        begun: dict[str, float] = {}
        for at, what, name, state in job.history():
            if what != "task":
                continue
            if state == _RUNNING:
                begun.setdefault(name, at)
            elif state in GONE or state == "abandoned":
                if name not in begun:
                    continue
                attributes = {"sage.task": name, "sage.state": state}
                begin = _nanos(begun.pop(name))
                span = self._tracer.start_span(f"task {name}", parent, attributes=attributes, start_time=begin)
                span.end(_nanos(at))

    def service(self, name: str, instance: Any) -> Any:
        """A service whose calls are traced."""
        kind = type(instance)
        traced = type(kind.__name__, (_Traced,), {"__module__": kind.__module__, "__doc__": kind.__doc__})
        return traced(self._tracer, name, instance, self._every)


class _Traced:
    """Stands for a service: its methods are the service's, with a span around some of their calls."""

    def __init__(self, tracer: api.Tracer, name: str, instance: Any, every: int) -> None:
        self.__dict__["_sage_traced"] = tracer, name, instance, every

    def __getattr__(self, method: str) -> Any:
        tracer, name, instance, every = self.__dict__["_sage_traced"]
        found = getattr(instance, method)
        if method.startswith("_") or method in HOOKS or not callable(found):
            return found
        # Kept, so that it is found first from here on.
        made: Any
        if isinstance(found, Together):
            # A batch is a call.
            made = Together(_spanned(tracer, name, method, found.together, every), found.batching)
        else:
            made = _spanned(tracer, name, method, found, every)
        kept = self.__dict__[method] = made
        return kept

    def __dir__(self) -> list[str]:
        return dir(self.__dict__["_sage_traced"][2])


def _spanned(tracer: api.Tracer, service: str, method: str, call: Any, every: int) -> Callable[..., Any]:
    """A method that is a span in one of so many calls."""
    number = count()
    attributes = {"sage.service": service, "sage.method": method}

    def plain(*args: Any, **kwargs: Any) -> Any:
        if next(number) % every:
            return call(*args, **kwargs)
        span = tracer.start_span(f"{service}.{method}", attributes=attributes)
        try:
            with api.use_span(span):
                result = call(*args, **kwargs)
        except BaseException:
            span.end()
            raise
        if inspect.iscoroutine(result):
            return _awaited(span, result)
        span.end()
        return result

    async def awaits(*args: Any, **kwargs: Any) -> Any:
        result = plain(*args, **kwargs)
        return await result

    return update_wrapper(awaits if inspect.iscoroutinefunction(call) else plain, call)


async def _awaited(span: api.Span, coroutine: Any) -> Any:
    with api.use_span(span, end_on_exit=True):
        return await coroutine


def _nanos(moment: float | None) -> int | None:
    return None if moment is None else int(moment * 1e9)
