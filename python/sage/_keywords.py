"""Says which keyword was meant where a program misspells one, and what is to be done before a method can be called.

Methods that pass unknown keywords on, such as ``map`` to the constructor of a class, look at them themselves: see
``_arguments``. The others are wrapped here. The wrapper has the signature and the documentation of the method, and
nothing is looked at unless keywords are given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import update_wrapper
from inspect import CO_COROUTINE, CO_VARKEYWORDS, signature, unwrap
from types import FunctionType
from typing import Any, TypeVar, cast

from ._arguments import LIKENESS, meant

_Named = TypeVar("_Named", bound=Callable[..., Any])


def spelt(named: _Named) -> _Named:
    """Has a function, or the constructor and the public methods of a class, name the keyword that was perhaps meant."""
    if not isinstance(named, type):
        return cast(_Named, _spelt(cast(FunctionType, named), named.__name__, 0))
    cls = named
    made: dict[FunctionType, Callable[..., Any]] = {}  # other names of a method are the same object
    for name, method in list(vars(cls).items()):
        if name != "__init__" and name.startswith("_"):
            continue
        if type(method) is FunctionType:
            if method not in made:
                made[method] = _spelt(method, cls.__name__ if name == "__init__" else name, 1)
            setattr(cls, name, made[method])
        elif isinstance(method, classmethod):
            setattr(cls, name, classmethod(_spelt(cast(FunctionType, method.__func__), name, 1)))
    return named


def _spelt(method: FunctionType, name: str, first: int) -> Callable[..., Any]:
    code = unwrap(method).__code__
    names = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    known = frozenset(names)
    if code.co_flags & CO_VARKEYWORDS or len(names) <= first:
        return method

    def check(kwargs: dict[str, Any]) -> None:
        for unknown in kwargs:
            if unknown not in known:
                raise TypeError(_no_parameter(name, unknown, names[first:]))

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            check(kwargs)
        return method(*args, **kwargs)

    async def wait(*args: Any, **kwargs: Any) -> Any:
        check(kwargs)
        return await method(*args, **kwargs)

    made = wait if code.co_flags & CO_COROUTINE else call
    # A function of the method's module, or doctest would take it for another's.
    there = FunctionType(made.__code__, method.__globals__, name, None, made.__closure__)
    return update_wrapper(there, method)


def _no_parameter(name: str, unknown: str, known: Sequence[str]) -> str:
    return f"`{name}` has no parameter `{unknown}`{meant(unknown, known)}"


def spell(error: TypeError, cls: type) -> None:
    """Has the interpreter's error for an unknown keyword of a method name the one that was perhaps meant: for a class
    that is not wrapped, as its methods are called for each record."""
    told = re.match(rf"{cls.__name__}\.(\w+)\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if told is not None:
        name, unknown = told.groups()
        known = [*signature(getattr(cls, name)).parameters][1:]
        error.args = (_no_parameter(name, unknown, known),)


def check_passed_on(method: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    """Raises for a keyword that a method passes on, as it knows no such, and that looks like one of its own."""
    from difflib import get_close_matches  # few methods have such

    known = [each.name for each in signature(method).parameters.values() if each.kind is not each.VAR_KEYWORD]
    for unknown in filter(str.isidentifier, kwargs):  # others are in the spelling of what they are passed on to
        if meant := get_close_matches(unknown, known, n=1, cutoff=LIKENESS):
            raise TypeError(f"`{method.__name__}` has no parameter `{unknown}`; did you mean `{meant[0]}`?")


def no_attribute(of: object, name: str, behind: type, first: str) -> AttributeError:
    """The error for an attribute that a stream does not have. If streams of the class ``behind`` have it, it says what
    is to be done ``first``."""
    kind = type(of).__name__
    if not name.startswith("_") and hasattr(behind, name):
        return AttributeError(f"`{kind}` has no `{name}`: {first}")
    # The interpreter says which one was perhaps meant.
    return AttributeError(f"'{kind}' object has no attribute '{name}'", name=name, obj=of)
