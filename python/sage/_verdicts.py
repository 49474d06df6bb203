"""What an exception of a service means to its policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._arguments import said, seconds
from ._sage import ServiceError


@dataclass(frozen=True)
class Throttled:
    """What ``judge`` of a service's policy says of an exception by which the service asks for fewer calls: nobody calls
    it again before so many seconds have passed.

    >>> Throttled(after=2.5)
    Throttled(after=2.5)
    """

    after: float


@dataclass(frozen=True)
class Passing:
    """What ``judge`` of a service's policy says of an exception by which the service says when it will be well again:
    nobody calls it before so many seconds have passed. It counts against the service all the same.

    >>> Passing(after=30)
    Passing(after=30)
    """

    after: float


#: What an exception of a service may mean, as ``Verdict`` in Rust.
_VERDICTS = ("bad", "passing", "throttled", "denied", "outage")


#: How often a call is made again that was inside when the process of its service was lost.
MADE_AGAIN = 3


class Again(ServiceError):
    """A call of a service in a process of its own was inside when that was lost, and another takes its place: the
    policy makes the call again, so that it is no caller's."""


def judged_by(judge: Callable[[Exception], Any] | None) -> Callable[[BaseException], tuple[str, float | None]]:
    """What the engine asks for the meaning of an exception: a word, and perhaps after how many seconds the service may
    be called again."""

    def means(error: BaseException) -> tuple[str, float | None]:
        if not isinstance(error, Exception):
            return "bad", None
        if isinstance(error, Again):
            return "again", None
        told = None if judge is None else judge(error)
        if told is None:
            return usual(error)
        for word, kind in (("throttled", Throttled), ("passing", Passing)):
            if isinstance(told, kind):
                return word, seconds(f"`after` of a {kind.__name__}", told.after)
        if told in _VERDICTS:
            return told, None
        words = ", ".join(f'"{word}"' for word in _VERDICTS)
        raise ValueError(f"`judge` says one of {words}, or gives a Throttled, a Passing or None, not {said(told)}")

    return means


#: How far is looked for what is behind an exception.
_MOST_BEHIND = 8


def usual(error: Exception) -> tuple[str, float | None]:
    """What an exception means where nobody says otherwise. It may say so itself, as an ``LlmError`` does."""
    verdict = getattr(error, "verdict", None)
    if verdict in _VERDICTS:
        return str(verdict), _after(error) if verdict in ("throttled", "passing") else None
    status, after = _status(error), _after(error)
    if status == 429 or (status is None and after is not None):
        return "throttled", after
    if status is not None:
        if status in (401, 402, 403, 407):
            return "denied", None
        # 408, 409 and 425 may come out otherwise the next time.
        is_bad = 400 <= status < 500 and status not in (408, 409, 425)
        return ("bad", None) if is_bad and after is None else ("passing", after)
    behind: BaseException | None = error
    for _ in range(_MOST_BEHIND):
        if isinstance(behind, ConnectionError):
            return "outage", None
        if behind is None:
            break
        # A program's own error may come of having met another; a library's, as that of a client, stands for it.
        is_for_it = not behind.__suppress_context__ and type(behind).__module__ != "builtins"
        behind = behind.__cause__ or (behind.__context__ if is_for_it else None)
    return "passing", None


def _status(error: Exception) -> int | None:
    """The status by which an HTTP server has answered, as clients tell it."""
    response = getattr(error, "response", None)
    for place in (error, response):
        for name in ("status_code", "status", "code"):
            status = getattr(place, name, None)
            if isinstance(status, int) and 100 <= status < 600:
                return int(status)
    return None


def _after(error: Exception) -> float | None:
    """After how many seconds the service said that it may be called again."""
    after = getattr(error, "retry_after", None)
    if after is None:
        headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
        get = getattr(headers, "get", None)
        after = get("retry-after") or get("Retry-After") if callable(get) else None
    try:
        return None if after is None else seconds("", float(after))
    except (TypeError, ValueError):
        return None  # such as a date
