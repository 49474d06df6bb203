"""Checks the arguments that a program gives: numbers, times, names, and the arguments of its classes.

A mistake that would show later, or never, is an error here. An unusual argument that may be meant gets one warning.
"""

from __future__ import annotations

import inspect
import operator
import os
import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

#: How many characters a message has of a value.
_MOST_SAID = 200

#: What the engine can count to.
_MOST_COUNT = (1 << 63) - 1

#: The times, in milliseconds, that the engine can count.
_MOST_MILLIS = (1 << 63) - 1


def said(value: Any) -> str:
    """The value as a message has it: not too long, and whatever its own ``repr`` does."""
    try:
        text = repr(value)
    except Exception:  # its own, and no part of the message
        return f"a {type(value).__name__}"
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]}…"


def whole(what: str, value: Any, least: int = 1, most: int = _MOST_COUNT) -> int:
    """The value as an ``int``, if it is a whole number within these limits; one of numpy's is, a ``bool`` is not."""
    if type(value) is int and least <= value <= most:
        return value
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        is_open = most == _MOST_COUNT and (number or 0) < most
        limits = f"of at least {least:,}" if is_open else f"from {least:,} to {most:,}"
        raise ValueError(f"{what} is a whole number {limits}, not {said(value)}")
    return number


def seconds(what: str, value: Any, least: float = 0.0, *, more: bool = False, hint: str = "") -> float:
    """The value in seconds, if it is a number or a ``timedelta`` of at least ``least``; with ``more``, of more."""
    number = value.total_seconds() if isinstance(value, timedelta) else _number(value)
    # Not-a-number fails every comparison.
    is_in = number is not None and (number > least if more else number >= least) and number <= 1e12
    if number is None or not is_in:
        limit = f"of at least {least:g}" if least else "that is not negative, in"
        phrase = f"{what} is more than {least:g} seconds" if more else f"{what} is a time {limit} seconds"
        raise ValueError(f"{phrase}, not {said(value)}{hint}")
    return number


def length(what: str, value: Any) -> float:
    """A length of event time in seconds, rounded to milliseconds as moments are."""
    return round(seconds(what, value) * 1000) / 1000


def _number(value: Any) -> float | None:
    """The value as a float, if it is a number of any kind, but no ``bool``."""
    kind = type(value)
    if isinstance(value, (str, bytes, bytearray)) or kind.__name__ in ("bool", "bool_"):
        return None
    if not hasattr(kind, "__float__"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def millis(time: Any) -> int:
    """A moment in milliseconds since 1970, of seconds or of a ``datetime``: the nearest, as the nearest number to 32.3
    is less than that."""
    kind = type(time)
    moment: int
    try:
        if kind is float:
            moment = round(time * 1000)
        elif kind is int:
            moment = time * 1000
        else:
            moment = _other_millis(time)
    except (ValueError, OverflowError, TypeError):
        raise _no_time(time) from None
    if not -_MOST_MILLIS <= moment <= _MOST_MILLIS:
        raise _no_time(time)
    return moment


def _other_millis(time: Any) -> int:
    """The same of less common types."""
    if isinstance(time, datetime):
        return round(time.timestamp() * 1000)
    if not isinstance(time, bool) and hasattr(type(time), "__index__"):
        return operator.index(time) * 1000
    number = _number(time)
    if number is None:
        raise TypeError
    # A `Decimal` or a `Fraction` is exact; numpy's small floats, which have an `item`, are not once multiplied.
    is_exact = hasattr(time, "as_integer_ratio") and not hasattr(time, "item")
    rounded: int = round((time if is_exact else number) * 1000)
    return rounded


def _no_time(time: Any) -> Exception:
    is_number = isinstance(time, (int, datetime)) and not isinstance(time, bool) or _number(time) is not None
    kind = ValueError if is_number else TypeError
    return kind(f"a time is a finite number of seconds since 1970, or a `datetime`, not {said(time)}")


def text(what: str, value: Any) -> str:
    """The value, if it is a text that can be written in UTF-8 and has no NUL in it, as a name must be."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a text, not {said(value)}")
    if value.isprintable():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} cannot be written in UTF-8: it has half a character, {said(value)}") from None
    if "\0" in value:
        raise ValueError(f"{what} cannot have a NUL in it: {said(value)}")
    return value


def folder(what: str, value: Any) -> str:
    """The path of a folder: a text, or an object for one, such as a ``Path``."""
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"{what} is the path of a folder, not {said(value)}")
    return path


def shown(value: str) -> str:
    """The text for display only: a mark replaces each part that cannot be written in UTF-8."""
    # What is printable has neither halves of characters nor NULs.
    return value if value.isprintable() else value.encode("utf-8", "replace").decode().replace("\0", "?")


def truth(what: str, value: Any) -> bool:
    """The value, if it says yes or no by its type: a text never does."""
    if isinstance(value, (str, bytes)) or value is None:
        raise TypeError(f"{what} is True or False, not {said(value)}")
    return bool(value)


def numbered(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def meant(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the names that were perhaps meant, or all there are."""
    from difflib import get_close_matches  # only for a message

    known = list(known)
    close = get_close_matches(name, known, n=2)
    if close:
        return f"; did you mean {' or '.join(f'`{other}`' for other in close)}?"
    return f"; it takes {', '.join(f'`{other}`' for other in known)}" if known else ""


#: How like two keys are, from 0 to 1, for one to be the other misspelt.
LIKENESS = 0.85


def check_spelling(what: str, given: Iterable[Any], known: Iterable[str]) -> None:
    """Raises for a key of a configuration that looks like a misspelt known one. Every other key is the program's."""
    known = list(known)
    for key in given:
        if isinstance(key, str) and key not in known:
            from difflib import get_close_matches  # only for keys that are not ours

            similar = key.lower().replace("-", "_").replace(" ", "_")
            if get_close_matches(similar, known, cutoff=LIKENESS):
                raise ValueError(f"{what} has a key `{key}`, which nothing reads{meant(similar, known)}")


def like(name: str, there: Iterable[str], none: str) -> str:
    """The end of a message about a name that is not there: the names that were perhaps meant, or all."""
    from difflib import get_close_matches  # only for a message

    there = list(there)
    names = ", ".join(get_close_matches(name, there, n=3) or there)
    return f"did you mean one of these: {names}?" if names else none


def parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of a constructor, by name; none of a type without a signature, such as ``int``."""
    try:
        return inspect.signature(cls).parameters
    except (TypeError, ValueError):
        return {}


def check_call(cls: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Iterable[str] = ()) -> None:
    """Raises for arguments that the constructor of a class, or a function that makes an object, does not take.

    ``options`` are the keywords that the method itself takes, which may have been meant.
    """
    is_class = isinstance(cls, type)
    name = getattr(cls, "__name__", type(cls).__name__)
    if is_class and getattr(cls.__init__, "_takes_anything", False):
        # The constructor of our base classes, which takes whatever a subclass passes on, and reads nothing.
        if kwargs:
            unknown = next(iter(kwargs))
            raise TypeError(f"`{name}` has no parameter `{unknown}`{meant(unknown, options)}")
        if args:
            raise TypeError(f"`{name}` has no `__init__`, so nothing would read the arguments {said(args)}")
        return
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):
        return  # a type without a signature, such as `int`
    parameters = signature.parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        there = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        for unknown in kwargs:
            if unknown not in there:
                raise TypeError(f"`{name}` has no parameter `{unknown}`{meant(unknown, [*there, *options])}")
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"`{name}{signature}` cannot be called with what is given: {error}") from None


def name_too(cls: Any, name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Adds the name that a program gives a step to the arguments of its class, if its constructor has a parameter for
    that, or takes any: classes show it. Constructors of our base classes read nothing."""
    if name is None or getattr(cls.__init__, "_takes_anything", False):
        return
    own = parameters(cls)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values())
    if (takes_any or "name" in own) and "name" not in list(own)[: len(args)]:
        kwargs["name"] = name


def check_none_left(method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Iterable[str]) -> None:
    """Raises for arguments of a method that nothing reads."""
    for unknown in kwargs:
        raise TypeError(f"`{method}` has no parameter `{unknown}` here{meant(unknown, options)}")
    if args:
        raise TypeError(f"`{method}` takes arguments for a class only, and nothing would read {said(args)}")


def warn(message: str) -> None:
    """Warns of what may be a mistake, at the line of the program that called the package."""
    import sys  # only for a warning

    level, frame = 1, sys._getframe(0)
    package = __name__.partition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
