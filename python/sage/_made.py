"""What a step has for its function, and how each replica makes an object of it, finds its hooks and ends it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from types import CodeType, FunctionType
from typing import Any

from ._awaiting import check_hook
from ._context import Context
from ._functions import BaseFunction, SinkFunction
from ._metronome import lock_of, releasing

#: A class with the arguments of its constructor, or a callable.
Made = tuple[Any, tuple[Any, ...], dict[str, Any]]


def constructed(
    cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: Context | None, kinds: Any = object
) -> Any:
    """Makes an object of a class of functions or services. If it is of these kinds, it has its context before its
    constructor runs."""
    new = cls.__new__
    made = new(cls) if new is object.__new__ else new(cls, *args, **kwargs)
    if isinstance(made, kinds):
        with suppress(AttributeError):  # a class with slots has no place for it
            made.ctx = context
    check_hook(f"{cls.__name__}.__init__", made.__init__(*args, **kwargs))
    return made


def is_function_class(function: Any) -> bool:
    """Whether it is a class of functions, of which each replica has an object: ours, or any that has ``execute``.
    Others, such as ``int``, are callables."""
    return isinstance(function, type) and (
        issubclass(function, BaseFunction) or callable(getattr(function, "execute", None))
    )


def is_async_iterable(records: Any) -> bool:
    """Whether it can be gone through by `async for` only."""
    kind = type(records)
    return hasattr(kind, "__aiter__") and not hasattr(kind, "__iter__")


def several(result: Any) -> list[Any]:
    """The records that the result of a flatmap is: those of an iterable; a text, bytes or any other object is one, and
    ``None`` is none."""
    if result is None:
        return []
    return [result] if isinstance(result, (str, bytes)) or not _is_iterable(result) else list(result)


def _is_iterable(result: Any) -> bool:
    kind = type(result)
    return getattr(kind, "__iter__", None) is not None or hasattr(kind, "__getitem__")


def asks_key(function: Any) -> bool:
    """Whether the code of a class of functions mentions ``get_key``, or the class says ``uses_key = True``. Only where
    a function asks for them do the keys of records come along."""
    if not (isinstance(function, type) and issubclass(function, BaseFunction)):
        return False
    if getattr(function, "uses_key", False):
        return True
    classes = [cls for cls in function.__mro__ if not cls.__module__.startswith(("sage._", "builtins"))]
    found = [value for cls in classes for value in vars(cls).values() if isinstance(value, _METHODS)]
    found += [getattr(value, name) for value in found for name in _WRAPS if hasattr(value, name)]
    return any(_mentions(getattr(value, "__code__", None)) for value in found)


#: What a class has its code in, and where of these the function is that was wrapped.
_METHODS = (FunctionType, staticmethod, classmethod, property, cached_property)
_WRAPS = ("__func__", "__wrapped__", "fget", "func")


def _mentions(code: Any) -> bool:
    if not isinstance(code, CodeType):
        return False
    return "get_key" in code.co_names or "get_key" in code.co_consts or any(map(_mentions, code.co_consts))


def called(made: Made, function: Any) -> Callable[..., Any]:
    """The callable of a replica's function that is called for each record."""
    call: Callable[..., Any] = function.execute if is_function_class(made[0]) else function
    return call


def instance(made: Made, context: Context) -> Any:
    """Makes the function of one replica: an object of the class, or the callable itself."""
    function, args, kwargs = made
    if not isinstance(function, type):
        return function
    made_instance = constructed(function, args, kwargs, context, BaseFunction)
    lock = lock_of(made_instance) if isinstance(made_instance, SinkFunction) else None
    if lock is not None:
        made_instance.__dict__["execute"] = releasing(made_instance.execute, lock)
    return made_instance


def hook(function: Any, name: str) -> Callable[[], Any] | None:
    """The method of this name of a function, with its context, if it has one that takes that."""
    method = getattr(function, name, None) if isinstance(function, BaseFunction) else None
    if not callable(method):
        return None
    try:
        inspect.signature(method).bind(function.ctx)
    except (TypeError, ValueError):
        return None
    return partial(method, function.ctx)


def endings(function: Any) -> list[tuple[str, Callable[[], Any]]]:
    """What is called of a function at its end, in this order, with the names of the methods."""
    calls = ("teardown", hook(function, "teardown")), ("close", getattr(function, "close", None))
    return [(name, call) for name, call in calls if callable(call)]
