"""Services in processes of their own, as their job sees them: see ``_served.py`` for the other side.

The engine has a stand-in for the service's object: calls, hooks and their order are as for any other service. What is
called is sent to the process with a number, and the calling thread waits for what comes of it. Meanwhile it serves the
calls of other services that its own call leads to there: so to the engine they come from this service, as they would
here. One thread reads what the process sends, and gives it to whoever waits.

Invariants:
 1. The engine knows that the process is gone before those that waited for it do, unless another takes its place.
 2. Whoever waits is given an answer, or is told that there will be none: when the process is gone, when the service has
    stopped, or a moment after the job was cancelled.
 3. The process is gone when ``cleanup`` or a failed constructor returns, whatever it was at.
 4. Another process takes the place of one that is gone only while the service serves: after its ``setup``, and before
    its ``stop`` begins, which waits for one that is being set up. No call goes to another process than it began with.
 5. A process is killed for a call that is past its timeout only while another may take its place or could have: so a
    service that was given no restarts is left alone. A call with a policy that meets the change says so by ``Again``,
    and the engine makes it again; it holds those to come from before the first of them is told until the change is
    over.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ._pickling import unpacked_exception
from ._sage import HookOverdue, ServiceError, WorkerLost
from ._threads import joined, started
from ._verdicts import Again
from ._waiting import AFTER_CANCEL, Awaiting, Came, Late, Waiting, left_until
from ._wire import CALL, CLOSE, DROP, HOOK, INVOKE, INVOKED, SERVE, packed, unpacked
from ._worker_process import Closed, WorkerProcess, left_behind

if TYPE_CHECKING:
    from ._batched import Batching
    from ._context import ServiceCalls

#: How long a process that is to end may take at least, in seconds.
_GRACE = 1.0

#: Of the time that ``stop`` has, the part that is kept for calls to end whose answers are not waited for any more.
_KEPT = 0.25

#: So often is looked whether a process that begins too late is there to be killed, in seconds.
_SOON = 0.05

#: How long an async call that was cancelled, as it is past its timeout, may take to end, in seconds.
_PATIENCE = 1.0

#: For whoever waits, in place of an answer: the process is gone; it is, and another takes its place; the service has
#: stopped; or another process has begun.
_GONE, _REPLACED, _STOPPED, _BEGUN = -1, -2, -3, -4


class Made(NamedTuple):
    """What a process tells of the service that it has made."""

    #: The name of its class.
    kind: str
    #: The names of its methods: all public ones, those that a call may mean which names none, and async ones.
    methods: list[str]
    usual: list[str]
    awaited: list[str]
    #: Those that answer requests together.
    batched: dict[str, Batching]
    #: Those that take the idempotency key of a call.
    keyed: list[str]


class Isolated:
    """A service in a process of its own."""

    def __init__(
        self, name: str, pickled: bytes, calls: ServiceCalls, restarts: int, setup: float, has_policy: bool = False
    ) -> None:
        self._name = name
        self._pickled = pickled
        self._calls = calls
        self._setup = setup
        #: Guards what follows.
        self._change = threading.Condition()
        #: Whoever waits, by the number of its call.
        self._waiting: dict[int, Waiting | Awaiting] = {}
        self._numbers = itertools.count(1)
        #: Whether calls are taken no more; whether the process was told to end; and how it has ended by itself.
        self._is_stopped = False
        self._is_ending = False
        self._how: str | None = None
        #: How many processes may yet take the place of others, and what is said when all have; whether the service
        #: serves; whether its process is killed for calls past their timeout; and while another process begins, who
        #: waits for it.
        self._restarts = restarts
        self._most, self._used_up = restarts, ""
        self._serves = False
        self._has_policy = has_policy
        self._kills = has_policy and restarts > 0
        self._beginning: list[Waiting | Awaiting] | None = None
        #: The async calls that were cancelled past their timeout, and have not ended.
        self._overdue: set[int] = set()
        #: How earlier processes have ended that this job has not killed.
        self._lost: list[str] = []
        self._readers: list[threading.Thread] = []
        #: When the first process began, of the clock ``monotonic``.
        self._begun = monotonic()
        self._worker = self._process()

    def _process(self) -> WorkerProcess:
        who = f"the process of service `{self._name}`"
        place = self._calls.place(self._name)
        process = WorkerProcess(self._calls, place, who, self._name, program="service", left=self._setup)
        self._is_there = True
        #: Why it was killed, if it was.
        self._why = ""
        return process

    def _make(self, until: float) -> Made:
        self._worker.greet(left_until(until))
        self._readers.append(started(self._read, f"sage-{self._name}", self._worker))
        told = {**self._worker.circumstances(), "pickled": self._pickled}
        return Made(*self._asked(SERVE, told, "its constructor", until))

    def begin(self, left: float) -> Made:
        """Has the process make the service."""
        until = self._begun + left
        is_late = False
        try:
            return self._make(until)
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

    def setup(self, left: float) -> None:
        """As ``hook``; from then on, another process may take the place of this one."""
        self.hook("setup", left)
        with self._change:
            self._serves = True

    def stop(self, left: float) -> None:
        """As ``hook``, and waits for the calls inside. Those that do not end are given up."""
        left *= 1 - _KEPT
        until = monotonic() + left
        with self._change:
            self._serves, self._restarts, self._kills = False, 0, False
            # One that is late is killed, as soon as there is a process.
            patience = left / 2
            while not self._change.wait_for(lambda: self._beginning is None, patience):
                self._worker.signal(signal.SIGKILL)
                patience = _SOON
            self._serves = False
        try:
            if self._how is None:
                self.hook("stop", left_until(until) or 0.0)
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
            lost = [f"{how}, and its cleanup could not run" for how in self._lost]
            if self._how is not None:
                lost.append(f"{self._worker.told} {self._how}, and its cleanup could not run")
            else:
                self.hook("cleanup", left)
            if lost:
                # The engine knows it of a service that no other process took the place of.
                self._calls.lost(self._name)
                raise WorkerLost("; ".join(lost))
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
        if self._is_there:
            self._release(worker)
        for reader in self._readers:
            joined(reader)

    def _release(self, worker: WorkerProcess) -> None:
        self._is_there = False
        with worker.process.socket.dup() as ours:
            self._calls.notes += left_behind(worker.end(0.0))
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)  # processes that it has left may have the other end

    # Another process takes the place of one that is gone.

    def _kill(self, worker: WorkerProcess, what: str) -> None:
        """Kills the process, as a call is past its timeout there. The thread that reads sees to what comes of it."""
        with self._change:
            if not (self._kills and self._serves and worker is self._worker) or self._why:
                return
            self._why = f" ({what} was past its timeout)"
        worker.signal(signal.SIGKILL)

    def _replace(self, lost: WorkerProcess, how: str) -> None:
        """On the thread that has read what the former one sent."""
        told = f"{lost.told} {how}"
        _logger(self._calls).warning("%s; another takes its place", told)
        try:
            self._release(lost)
            self._calls.replaced(self._name, told)
            if not self._why or lost.process.ended(0.0) is None:
                self._lost.append(told)
            until = monotonic() + self._setup
            self._worker = self._process()
            self._make(until)
            self.hook("setup", left_until(until) or 0.0)
        except BaseException as error:
            self._calls.lost(self._name)
            with self._change:
                self._how = self._how or f"could not be set up: {type(error).__name__}: {error}"
        with self._change:
            self._serves = self._how is None
            waiting, self._beginning = self._beginning or [], None
            self._change.notify_all()
        self._calls.hold(self._name, False)
        for each in waiting:
            each.put((_BEGUN, 0, b"", []))

    # Calls.

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a method of the service."""
        left = self._until_timeout()
        until = None if left is None else monotonic() + left
        try:
            return self._asked(INVOKE, (method, args, kwargs), f"`{method}`", until)
        except Late:
            late = f"within {AFTER_CANCEL:g} s after the job was cancelled"
            raise ServiceError(f"service `{self._name}` did not answer `{method}` {late}") from None

    async def awaited(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls an async method of the service."""
        waiting = Awaiting(asyncio.get_running_loop())
        while (begun := self._begin(INVOKE, waiting)) is None:
            await waiting.future
            waiting = Awaiting(asyncio.get_running_loop())
        worker, number = begun
        try:
            self._send(worker, INVOKE, number, (method, args, kwargs), f"`{method}`")
            return self._answer(INVOKE, await waiting.future, f"`{method}`")
        except asyncio.CancelledError:
            self._drop(worker, number, f"`{method}`")
            raise
        finally:
            self._forget(number)

    def _drop(self, worker: WorkerProcess, number: int, what: str) -> None:
        """Has an async call cancelled. If it goes on past its timeout all the same, the process is killed."""

        def look() -> None:
            if number in self._overdue:
                self._kill(worker, what)

        if (left := self._until_timeout()) is not None:
            self._overdue.add(number)
            asyncio.get_running_loop().call_later(left + _PATIENCE, look)
        with suppress(Closed, OSError):
            worker.send(DROP, None, number)

    def _until_timeout(self) -> float | None:
        """In how many seconds the call at hand is past its timeout, if its process is killed for that."""
        if not self._kills:
            return None
        from ._call_policies import DEADLINE  # few programs have one

        deadline = DEADLINE.get()
        left: float | None = None if deadline is None else deadline.until_timeout()
        return left

    def _asked(self, kind: int, value: Any, what: str, until: float | None) -> Any:
        """Sends something, and waits for what comes of it. A call that is not answered until then is killed with the
        process, and waited for until that is gone."""
        waiting = Waiting()
        while (begun := self._begin(kind, waiting)) is None:
            waiting.get(until)
        worker, number = begun
        is_overdue = False
        try:
            self._send(worker, kind, number, value, what)
            while True:
                try:
                    came = waiting.get(until)
                except Late:
                    if kind != INVOKE or until is None or monotonic() < until:
                        raise
                    until, is_overdue = None, True
                    self._kill(worker, what)
                    continue
                if came[0] == _GONE and is_overdue:
                    came = _REPLACED, *came[1:]  # whichever it is, the engine knows that it is past its timeout
                if came[0] != CALL:
                    return self._answer(kind, came, what)
                self._serve(worker, worker.call, came)
        finally:
            self._forget(number)

    def _begin(self, kind: int, waiting: Waiting | Awaiting) -> tuple[WorkerProcess, int] | None:
        """The process that is to be asked, and a number for what comes of it. ``None`` for a call while another process
        begins: ``waiting`` is told when it has."""
        with self._change:
            if self._beginning is not None and kind == INVOKE:
                if self._has_policy:
                    raise Again(f"another process of service `{self._name}` begins")
                self._beginning.append(waiting)
                return None
            if self._how is not None or (self._is_stopped and kind == INVOKE):
                state = "stopping" if self._how is None else "lost"
                raise ServiceError(f"service `{self._name}` is not serving: it is {state}")
            number = next(self._numbers) % (1 << 32)
            self._waiting[number] = waiting
            return self._worker, number

    def _forget(self, number: int) -> None:
        with self._change:
            del self._waiting[number]
            self._change.notify_all()

    def _send(self, worker: WorkerProcess, kind: int, number: int, value: Any, what: str) -> None:
        try:
            parts = packed(value)
        except Exception as error:
            which, why = _culprit(value, error) if kind == INVOKE else ("what makes it", error)
            raise TypeError(
                f"{which} of {what} cannot be taken to the process of service `{self._name}`: "
                f"{type(why).__name__}: {why}"
            ) from None
        with suppress(Closed):  # who reads tells whoever waits
            worker.send_parts(kind, number, parts)

    def _answer(self, kind: int, came: Came, what: str) -> Any:
        if came[0] in (_GONE, _REPLACED):
            lost = WorkerLost if kind != INVOKE else ServiceError
            lost = Again if came[0] == _REPLACED and self._has_policy else lost
            raise lost(f"{came[2].decode()} while it was in {what}{self._used_up}")
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

    def _read(self, worker: WorkerProcess) -> None:
        while True:
            try:
                came = worker.receive()
            except Exception:  # it is gone, or what it sends is nothing that can be read
                break
            with suppress(Exception):  # such as of the program's own stream, where a line is printed
                self._deliver(worker, came)
        with self._change:
            is_ending = self._is_ending
        how = "was ended" if is_ending else worker.how() + self._why
        with self._change:
            is_replaced = self._serves and self._restarts > 0 and not is_ending
            if is_replaced:
                self._calls.hold(self._name, True)
                self._serves, self._restarts, self._beginning = False, self._restarts - 1, []
                self._overdue.clear()
                waiting = list(self._waiting.values())
        if not is_replaced:
            if not is_ending:
                self._calls.lost(self._name)
            with self._change:
                self._how = self._how if is_ending else how
                if self._serves and not is_ending and self._most:
                    self._used_up = ", and as many processes have taken its place as may"
                self._serves = False
                waiting = list(self._waiting.values())
        told = f"{worker.told} {how}".encode()
        for each in waiting:
            each.put((_REPLACED if is_replaced else _GONE, 0, told, []))
        if is_replaced:
            self._replace(worker, how)

    def _deliver(self, worker: WorkerProcess, came: Came) -> None:
        kind, number, first, others = came
        if kind == INVOKED:
            self._overdue.discard(number)
            waiting = self._waiting.get(number)
            if waiting is not None:
                waiting.put(came)
        elif kind == CALL:
            # The number has that of the call that caused this one.
            waiting = self._waiting.get(number >> 32)
            if isinstance(waiting, Waiting):
                waiting.put(came)
            else:
                self._serve(worker, worker.call_beside, came)
        else:
            worker.heed(kind, number, unpacked(first, others))

    @staticmethod
    def _serve(worker: WorkerProcess, serve: Callable[[int, Any], None], came: Came) -> None:
        """Calls another service for it."""
        _, number, first, others = came
        try:
            call = unpacked(first, others)
        except Exception as error:
            worker.answer(number, False, error)
        else:
            serve(number, call)


def _logger(calls: ServiceCalls) -> logging.Logger:
    return logging.getLogger(f"sage.{calls.environment}")


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
