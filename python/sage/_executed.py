"""How sources are called that a program has written as a function or a class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._awaiting import UNAWAITED, refuse
from ._context import Context
from ._made import Made, called
from ._metronome import lock_of
from ._packet import StopSignal
from ._sage import Nothing


class Executed:
    """Calls a source as ``executed`` does, and again after it has raised, which a generator could not."""

    def __init__(self, made: Made, function: Any, name: str) -> None:
        self._arguments = made, function, False, name
        self._records = executed(*self._arguments)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._records)
        except StopIteration:
            raise
        except BaseException:
            self._records = executed(*self._arguments, is_again=True)
            raise


def _stopped() -> StopSignal:
    return StopSignal()


def executed(made: Made, function: Any, is_batch: bool, name: str, is_again: bool = False) -> Iterator[Any]:
    """Calls a source of this name until it says that there is no more: one of a batch says so with ``None`` too. With
    ``is_again`` its last call has raised: a ``StopIteration`` is no end then, but that of a generator that raised."""
    execute = called(made, function)

    def end() -> None:
        nonlocal execute
        execute = _stopped

    context = getattr(function, "ctx", None)
    if isinstance(context, Context):
        context._end = end
        if context._stops:
            return
    gives_none = getattr(function, "_gives_none", False)
    awaited = getattr(function, "_awaited", None)
    lock = lock_of(function)
    while True:
        while lock is not None and (wait := lock.awaited()) is not None:
            yield wait
        try:
            record = execute()
        except StopIteration:
            if is_again:
                raise
            return
        is_again = False
        if type(record) in UNAWAITED:
            raise refuse(name, record)
        if record is None and not gives_none:
            if is_batch:
                return
            # It has nothing just now: the engine sees whether the job goes on.
            yield Nothing if awaited is None else awaited()
        elif isinstance(record, StopSignal):
            return
        else:
            if lock is not None:
                lock.lock_after_send()
            yield record
