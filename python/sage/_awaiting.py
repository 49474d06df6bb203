"""Refuses results of functions and hooks that would have no effect: a coroutine that is not awaited, or a generator or
an async generator that is not iterated."""

from __future__ import annotations

from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from ._sage import NotAwaited

#: Of these, nothing comes of itself.
UNAWAITED = frozenset({CoroutineType, AsyncGeneratorType})

#: Nor of these, where what a function returns is of no interest.
UNUSED = UNAWAITED | {GeneratorType}


def refuse(name: str, returned: Any) -> Exception:
    """The error for what a function, operator or hook of this name returned, which is closed."""
    kind = type(returned)
    if kind is CoroutineType:
        returned.close()
        why = "a coroutine, which nobody awaits; make it an `async def`, or have one await it"
    elif kind is AsyncGeneratorType:
        why = "an async generator, which nobody goes through; those are for an `async def` given to `flatmap`"
    else:
        why = "a generator, which nobody goes through; leave out its `yield`, or use `flatmap`"
    return NotAwaited(f"`{name}` returned {why}")


def awaited(name: str, returned: Any) -> Any:
    """What a function of this name returned, unless it is to be awaited."""
    if type(returned) in UNAWAITED:
        raise refuse(name, returned)
    return returned


def check_hook(name: str, returned: Any) -> None:
    """Raises for what a hook returned that should have returned nothing."""
    if type(returned) in UNUSED:
        raise refuse(name, returned)
