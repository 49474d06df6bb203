"""Refuses results of functions and hooks that would have no effect: a coroutine that is not awaited, or a generator or
an async generator that is not iterated."""

from __future__ import annotations

from collections.abc import Coroutine
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Protocol

from ._sage import NotAwaited

#: Of these, nothing comes of itself.
UNAWAITED = frozenset({CoroutineType, AsyncGeneratorType})

#: Nor of these, where what a function returns is of no interest.
UNUSED = UNAWAITED | {GeneratorType}


def refuse(name: str, returned: Any) -> Exception:
    """Closes the result of a function, operator or hook of this name, and returns the error for it."""
    kind = type(returned)
    if kind is CoroutineType:
        returned.close()
        why = "a coroutine, and nothing awaits it; make it an `async def`, or await it in one"
    elif kind is AsyncGeneratorType:
        why = "an async generator, and nothing iterates over it; those are for an `async def` given to `flatmap`"
    else:
        why = "a generator, and nothing iterates over it; leave out its `yield`, or use `flatmap`"
    return NotAwaited(f"`{name}` returned {why}")


def awaited(name: str, returned: Any) -> Any:
    """The result of a function of this name. Raises if it has to be awaited."""
    if type(returned) in UNAWAITED:
        raise refuse(name, returned)
    return returned


def check_hook(name: str, returned: Any) -> None:
    """Raises if a hook returned something, though it should return nothing."""
    if type(returned) in UNUSED:
        raise refuse(name, returned)


class Awaited(Protocol):
    """What the engine has of a coroutine: see ``service.rs``."""

    def begin(self) -> Coroutine[Any, Any, Any]: ...
    def end(self, has_failed: bool) -> None: ...


async def counted(call: Awaited) -> Any:
    """Awaits a coroutine of a service's, for whom the call of its method has returned it, and tells the engine when it
    begins and when it is over."""
    coroutine = call.begin()
    try:
        result = await coroutine
    except BaseException as error:
        call.end(isinstance(error, Exception))
        raise
    call.end(False)
    return result
