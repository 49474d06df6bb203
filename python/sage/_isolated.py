"""Services in processes of their own, as their job sees them: see ``_served.py`` for the other side.

The engine has a stand-in for the service's object: calls, hooks and their order are as for any other service. What is
called is sent to the process with a number, and the calling thread waits for what comes of it. Meanwhile it serves the
calls of other services that its own call leads to there: so to the engine they come from this service, as they would
here. One thread reads what the process sends, and gives it to whoever waits.

Invariants:
 1. The engine knows that the process is gone before those that waited for it do.
 2. Whoever waits is given an answer, or is told that there will be none: when the process is gone, when the service has
    stopped, or a moment after the job was cancelled.
 3. The process is gone when ``cleanup`` or a failed constructor returns, whatever it was at.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ._pickling import unpacked_exception
from ._sage import HookOverdue, ServiceError, WorkerLost
from ._services import USUAL, no_method
from ._threads import joined, started
from ._waiting import AFTER_CANCEL, Awaiting, Came, Late, Waiting, left_until
from ._wire import CALL, CLOSE, DROP, HOOK, INVOKE, INVOKED, SERVE, packed, unpacked
from ._worker_process import Closed, WorkerProcess, left_behind

if TYPE_CHECKING:
    from ._context import ServiceCalls

#: How long a process that is to end may take at least, in seconds.
_GRACE = 1.0

#: Of the time that ``stop`` has, the part that is kept for calls to end whose answers are not waited for any more.
_KEPT = 0.25

#: For whoever waits, in place of an answer: the process is gone, or the service has stopped.
_GONE, _STOPPED = -1, -2


class Made(NamedTuple):
    """What a process tells of the service that it has made."""

    #: The name of its class.
    kind: str
    #: The names of its methods: all public ones, those that a call may mean which names none, and async ones.
    methods: list[str]
    usual: list[str]
    awaited: list[str]


class Isolated:
    """A service in a process of its own."""

    def __init__(self, name: str, calls: ServiceCalls) -> None:
        self._name = name
        self._calls = calls
        #: Guards what follows.
        self._change = threading.Condition()
        #: Whoever waits, by the number of its call.
        self._waiting: dict[int, Waiting | Awaiting] = {}
        self._numbers = itertools.count(1)
        #: Whether calls are taken no more; whether the process was told to end; and how it has ended by itself.
        self._is_stopped = False
        self._is_ending = False
        self._how: str | None = None
        self._reader: threading.Thread | None = None
        self._worker = WorkerProcess(calls, f"the process of service `{name}`", name, program="service")

    def begin(self, pickled: bytes, left: float) -> Made:
        """Has the process make the service."""
        until = monotonic() + left
        is_late = False
        try:
            self._worker.greet(left)
            self._reader = started(self._read, f"sage-{self._name}")
            told = {**self._worker.circumstances(), "pickled": pickled}
            return Made(*self._asked(SERVE, told, "its constructor", until))
        except BaseException as error:
            is_late = isinstance(error, (Late, TimeoutError)) and monotonic() > until
            lost = f"{self._worker.told} {self._worker.how()}" if isinstance(error, Closed) else ""
            self._end(until, is_late)
            if lost:
                raise WorkerLost(lost) from None
            if is_late:
                raise _overdue(left) from None
            raise

    def hook(self, name: str, left: float) -> None:
        """Has the process run a hook."""
        try:
            self._asked(HOOK, name, f"`{name}`", monotonic() + left)
        except Late:
            raise _overdue(left) from None

    def stop(self, left: float) -> None:
        """As ``hook``, and waits for the calls inside. Those that do not end are given up."""
        left *= 1 - _KEPT
        until = monotonic() + left
        try:
            if self._how is None:
                self.hook("stop", left)
        finally:
            with self._change:
                self._change.wait_for(lambda: not self._waiting, left_until(until))
                self._is_stopped = True
                inside = list(self._waiting.values())
            for waiting in inside:
                waiting.put((_STOPPED, 0, b"", []))
            if inside:
                calls = "1 call was" if len(inside) == 1 else f"{len(inside)} calls were"
                ended = f"{self._worker.told}, which was ended with what was left"
                self._calls.notes.append(f"{calls} still inside {ended}")

    def cleanup(self, left: float) -> None:
        """As ``hook``, and ends the process."""
        until = monotonic() + left
        is_late = False
        try:
            if self._how is not None:
                raise WorkerLost(f"{self._worker.told} {self._how}, and its cleanup could not run")
            self.hook("cleanup", left)
        except HookOverdue:
            is_late = True
            raise
        finally:
            self._end(until, is_late)

    def _end(self, until: float, is_late: bool) -> None:
        """Ends the process, which has until then to end by itself unless it is late already."""
        with self._change:
            self._is_ending = True
        worker = self._worker
        if not is_late and self._how is None:
            with suppress(Closed, OSError):
                worker.send(CLOSE, None)
            worker.process.ended(max(until - monotonic(), _GRACE))
        with worker.process.socket.dup() as ours:
            self._calls.notes += left_behind(worker.end(0.0))
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)  # processes that it has left may have the other end
            if self._reader is not None:
                joined(self._reader)

    # Calls.

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a method of the service."""
        try:
            return self._asked(INVOKE, (method, args, kwargs), f"`{method}`", None)
        except Late:
            late = f"within {AFTER_CANCEL:g} s after the job was cancelled"
            raise ServiceError(f"service `{self._name}` did not answer `{method}` {late}") from None

    async def awaited(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls an async method of the service."""
        waiting = Awaiting(asyncio.get_running_loop())
        number = self._begin(INVOKE, waiting)
        try:
            self._send(INVOKE, number, (method, args, kwargs), f"`{method}`")
            return self._answer(INVOKE, await waiting.future, f"`{method}`")
        except asyncio.CancelledError:
            with suppress(Closed, OSError):
                self._worker.send(DROP, None, number)
            raise
        finally:
            self._forget(number)

    def _asked(self, kind: int, value: Any, what: str, until: float | None) -> Any:
        """Sends something, and waits for what comes of it."""
        waiting = Waiting()
        number = self._begin(kind, waiting)
        try:
            self._send(kind, number, value, what)
            while True:
                came = waiting.get(until)
                if came[0] != CALL:
                    return self._answer(kind, came, what)
                self._serve(self._worker.call, came)
        finally:
            self._forget(number)

    def _begin(self, kind: int, waiting: Waiting | Awaiting) -> int:
        with self._change:
            if self._how is not None or (self._is_stopped and kind == INVOKE):
                state = "stopping" if self._how is None else "lost"
                raise ServiceError(f"service `{self._name}` is not serving: it is {state}")
            number = next(self._numbers) % (1 << 32)
            self._waiting[number] = waiting
        return number

    def _forget(self, number: int) -> None:
        with self._change:
            del self._waiting[number]
            self._change.notify_all()

    def _send(self, kind: int, number: int, value: Any, what: str) -> None:
        try:
            parts = packed(value)
        except Exception as error:
            which, why = _culprit(value, error) if kind == INVOKE else ("what makes it", error)
            raise TypeError(
                f"{which} of {what} cannot be taken to the process of service `{self._name}`: "
                f"{type(why).__name__}: {why}"
            ) from None
        with suppress(Closed):  # who reads tells whoever waits
            self._worker.send_parts(kind, number, parts)

    def _answer(self, kind: int, came: Came, what: str) -> Any:
        if came[0] == _GONE:
            lost = WorkerLost if kind != INVOKE else ServiceError
            raise lost(f"{self._worker.told} {self._how} while it was in {what}")
        if came[0] == _STOPPED:
            raise ServiceError(f"service `{self._name}` has stopped, and {what} had not returned")
        try:
            is_result, value = unpacked(*came[2:])
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise TypeError(f"the result of {what} of service `{self._name}` cannot be read here: {told}") from error
        if is_result:
            return value
        raise unpacked_exception(value)

    # The thread that reads.

    def _read(self) -> None:
        while True:
            try:
                came = self._worker.receive()
            except Exception:  # it is gone, or what it sends is nothing that can be read
                break
            with suppress(Exception):  # such as of the program's own stream, where a line is printed
                self._deliver(came)
        with self._change:
            is_ending = self._is_ending
        if not is_ending:
            how = self._worker.how()
            self._calls.lost(self._name)
            with self._change:
                self._how = how
        with self._change:
            waiting = list(self._waiting.values())
        for each in waiting:
            each.put((_GONE, 0, b"", []))

    def _deliver(self, came: Came) -> None:
        kind, number, first, others = came
        if kind == INVOKED:
            waiting = self._waiting.get(number)
            if waiting is not None:
                waiting.put(came)
        elif kind == CALL:
            # The number has that of the call that caused this one.
            waiting = self._waiting.get(number >> 32)
            if isinstance(waiting, Waiting):
                waiting.put(came)
            else:
                self._serve(self._worker.call_beside, came)
        else:
            self._worker.heed(kind, number, unpacked(first, others))

    def _serve(self, serve: Callable[[int, Any], None], came: Came) -> None:
        """Calls another service for it."""
        _, number, first, others = came
        try:
            call = unpacked(first, others)
        except Exception as error:
            self._worker.answer(number, False, error)
        else:
            serve(number, call)


def _overdue(left: float) -> HookOverdue:
    return HookOverdue(f"did not come back within {left:.3g} s; the process of the service is ended")


def _culprit(call: tuple[str, tuple[Any, ...], dict[str, Any]], error: Exception) -> tuple[str, Exception]:
    """Which argument of a call cannot be pickled, and why."""
    _, args, kwargs = call
    for name, value in [*enumerate(args, 1), *kwargs.items()]:
        try:
            packed(value)
        except Exception as why:
            return f"argument {name}" if isinstance(name, int) else f"argument `{name}`", why
    return "an argument", error


class StandIn:
    """The object of the service, as the engine has it: it calls the methods there."""

    def __init__(self, isolated: Isolated, made: Made) -> None:
        self.__dict__["_sage"] = isolated, made

    def __getattr__(self, name: str) -> Any:
        isolated, made = self.__dict__["_sage"]
        if name in USUAL and name not in made.usual:
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return isolated.call(name, args, kwargs)

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await isolated.awaited(name, args, kwargs)

        awaited.__qualname__ = name
        found = self.__dict__[name] = awaited if name in made.awaited else call
        return found


class IsolatedHooks:
    """As ``Hooks``, of a service in a process of its own."""

    def __init__(self, name: str, pickled: bytes, calls: ServiceCalls, left: float) -> None:
        self._isolated = Isolated(name, calls)
        self._made = self._isolated.begin(pickled, left)
        self.instance = StandIn(self._isolated, self._made)

    def setup(self, left: float) -> None:
        """Runs ``setup``, then ``start`` or ``start_running``."""
        self._isolated.hook("setup", left)

    def stop(self, left: float) -> None:
        """Runs ``stop`` or ``terminate``, and has calls end."""
        self._isolated.stop(left)

    def cleanup(self, left: float) -> None:
        """Runs ``cleanup`` or ``close``, and ends the process."""
        self._isolated.cleanup(left)

    def explain(self, method: str, error: AttributeError) -> AttributeError:
        """See ``Hooks.explain``; of calls, the process has done so."""
        made = self._made
        is_there = method not in USUAL or method in made.usual
        return error if is_there else no_method(made.kind, method, made.methods)
