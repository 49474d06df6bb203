"""Checks what a program gives a step: its function, the arguments of that, and the keywords of the step."""

from __future__ import annotations

import inspect
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from . import _kinds as kinds
from ._arguments import check_call, meant, name_too, seconds, shown, truth, warn, whole
from ._config import check_workers
from ._functions import BaseFunction, FlatMapFunction, MapFunction
from ._made import is_function_class
from ._policies import OPTIONS
from ._sage import Binding, Spec

#: What the methods take beside a function and the arguments of its constructor.
_KEYWORDS = ("name", "parallelism", *OPTIONS)

#: What some of them take besides, by their kinds.
_OWN = {"map": ("keep_none",), "keyby": ("strategy",)}

#: In how many replicas a step may run: each has a thread.
MOST_REPLICAS = 65_536

#: How many records a batch may have.
MOST_BATCHED = 1 << 24

#: How many records an async function has in flight unless a program says otherwise.
_IN_FLIGHT = 64


def batches_of(size: Any, within: Any) -> Spec:
    """How records are gathered."""
    size = whole("the size of a batch", size, 1, MOST_BATCHED)
    time = None if within is None else seconds("`within`", within, more=True, hint="; leave it out for none")
    return Spec.Batch(size, time)


def workers_of(given: Any, kind: kinds.Kind, name: str) -> str | None:
    """Where a function runs whose step says it."""
    workers = check_workers(given)
    if workers is not None and kind.ends:
        raise ValueError(f"`{name}` is a sink, which runs in the job's own process; leave out `workers`")
    return workers


def ray_of(options: dict[str, Any], kind: kinds.Kind, name: str) -> dict[str, Any]:
    """What a worker takes whose step says it."""
    from .ray._demands import takes  # few programs have one

    if kind.ends:
        raise ValueError(f"`{name}` is a sink, which runs in the job's own process; leave out `ray`")
    if options.get("workers", "ray") != "ray":
        raise ValueError(f"`ray` is for workers of a Ray cluster, which `{name}` has none of; leave out one of both")
    return takes(f"`ray` of `{name}`", options["ray"])


def flight_of(kind: kinds.Kind, options: dict[str, Any]) -> Spec:
    """How several records are worked on at a time."""
    if kind.asks_for:
        raise TypeError(f"{kind.asks_for} of a record cannot come from an async function; get it in a `map` before")
    in_flight = whole("`in_flight`", options.get("in_flight", _IN_FLIGHT), 1, 1 << 20)
    timeout = options.get("timeout")
    if timeout is not None:
        timeout = seconds("a timeout", timeout, more=True, hint="; leave it out for none")
    ordered = truth("`ordered`", options.get("ordered", True))
    return Spec.Async(in_flight, ordered, timeout, kind.ends)


def is_async(function: Any) -> bool:
    """Whether calling it gives something to be awaited: an ``async def``, or a class whose ``execute`` is one."""
    if isinstance(function, type):
        function = getattr(function, "execute", None)
    # Of a function that nothing is marked on, it is known at once. This is asked of every step of every job.
    if type(function) is BuiltinFunctionType:
        return False
    plain = function.__func__ if type(function) is MethodType else function
    if type(plain) is FunctionType and not plain.__dict__:
        return bool(plain.__code__.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR))
    if isinstance(getattr(function, "__self__", None), Binding):
        return bool(function.is_async)
    calls = function, getattr(function, "__call__", None)
    return any(inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call) for call in calls)


def check_not_async(kind: str, function: Any, name: str | None = None) -> None:
    """Raises for a function that has to be awaited, where it is not."""
    if is_async(function):
        what = f"`{name or name_of(function)}` is async, and `{kind}` awaits nothing"
        raise TypeError(f"{what}; do the async part in a `map` before it, and give its results to `{kind}`")


def name_of(function: Any) -> str:
    """The default name of an operator."""
    name = getattr(function, "__name__", None) or type(function).__name__
    return "lambda" if name == "<lambda>" else shown(str(name))


def check_parallelism(parallelism: Any) -> int:
    """The number of replicas, if it can be one; 1 of ``None``."""
    return 1 if parallelism is None else whole("parallelism", parallelism, 1, MOST_REPLICAS)


def check_class(
    method: str, base: type, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None
) -> None:
    """Raises for what is no class below ``base``, and for arguments that its constructor does not take."""
    if not (isinstance(function, type) and issubclass(function, base)):
        raise TypeError(f"`{method}` needs a {base.__name__} class, not {function!r}")
    name_too(function, name, args, kwargs)
    check_call(function, args, kwargs, ("name", "parallelism"))


def check_plain(kind: str, function: Any, name: str | None = None) -> None:
    """Raises for what cannot be called with a record, or has to be awaited."""
    check_function(kinds.MAP, function, (), {})
    check_not_async(kind, function, name)


def check_function(
    kind: kinds.Kind, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None
) -> None:
    """Raises for what cannot be called, and for arguments that nothing would read."""
    base = "" if kind.base is None else kind.base.__name__
    if isinstance(function, BaseFunction):
        raise TypeError(f"pass the class `{type(function).__name__}` and its arguments, not an object of it")
    if not callable(function):
        hint = f"; pass the class `{type(function).__name__}` and its arguments" if hasattr(function, "execute") else ""
        raise TypeError(f"`{kind.name}` needs a function or a {base}, not {function!r}{hint}")
    is_class, known = is_function_class(function), (*_KEYWORDS, *_OWN.get(kind.name, ()))
    _check_generator(kind, function, function.execute if is_class else function)
    if kind is not kinds.FLATMAP and isinstance(function, type) and issubclass(function, FlatMapFunction):
        warn(f"`{kind.name}` of `{name_of(function)}`, a FlatMapFunction: what it collects goes nowhere; use `flatmap`")
    if is_class:
        name_too(function, name, args, kwargs)
        check_call(function, args, kwargs, known)
        return
    for unknown in kwargs:
        raise TypeError(
            f"`{kind.name}` has no parameter `{unknown}`{meant(unknown, known)} "
            f"(to call `{name_of(function)}` with more than a record, use functools.partial)"
        )
    if args and isinstance(function, type):
        # A type such as `int` or `str` is a callable like any other.
        raise TypeError(f"`{function.__name__}` is not a {base}, so it takes no arguments here")
    if args:
        raise TypeError(f"`{name_of(function)}` is called with a record; bind other arguments with functools.partial")


def _check_generator(kind: kinds.Kind, function: Any, call: Any) -> None:
    """Raises where what is called is a generator function and the generator would not be gone through; warns where that
    is unusual."""
    if kind.base is MapFunction and function is print:
        warn("`print` returns None, and a `map` drops what becomes None; `stream.print()` ends a stream so")
    if type(call) is not FunctionType or not call.__code__.co_flags & inspect.CO_GENERATOR:
        return
    name = name_of(function)
    if kind.no_generator:
        raise TypeError(f"`{name}` is a generator function, and {kind.no_generator}; use `return`, not `yield`")
    if kind.base is MapFunction:
        warn(f"`{name}` is a generator function: `map` makes each record a generator, `flatmap` gives what it yields")
