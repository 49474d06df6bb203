"""A worker process as its job sees it: its start, the frames to and from it, what it asks for, and what it came to.

Chains of functions (``_remote.py``) and services of their own processes (``_isolated.py``) have one each.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ._pickling import packed_exception
from ._portable import dumped
from ._processes import WorkerTold
from ._sage import Cancelled, Channel, version
from ._wire import AWAITED, CALL, DROP, HELLO, LINE, LOG, NAME, NAMED, RETURN, STATE, STOP, packed, size, unpacked

if TYPE_CHECKING:
    from ._context import ServiceCalls
    from ._places import Place, Started
    from ._sage import Pause


class Closed(Exception):
    """The process has ended, or has closed its connection."""


class WorkerProcess:
    """A process, and the socket to it. It has begun when it was made."""

    def __init__(
        self,
        calls: ServiceCalls,
        place: Place,
        who: str,
        name: str,
        replica: int = 0,
        label: str = "",
        pause: Pause | None = None,
        program: str = "",
        left: float | None = None,
    ) -> None:
        self._calls = calls
        self._who = who
        #: What the report calls it, and what its lines begin with.
        self._name = name
        self._replica = replica
        self._label = label or name
        #: Whether its waits go on though the job is being cancelled, as it was told to end.
        self.is_closing = False
        #: What is awaited for it, by the numbers of its calls.
        self._awaited: dict[int, Any] = {}
        self.process: Started = place.start(name, replica, pause, program, left)
        #: ``None`` when it has ended.
        self.channel: Channel | None = None
        # What services give it to await is awaited there.
        calls.loop.hold()
        try:
            self.channel = Channel(os.dup(self.process.socket.fileno()), pause)
        except BaseException:
            calls.loop.release()
            self.process.end()
            raise

    @property
    def told(self) -> str:
        """What messages call it."""
        on = f" on {self.process.node}" if self.process.node else ""
        return f"{self._who} (process {self.process.pid}{on})"

    def greet(self, timeout: float | None = None) -> None:
        """Waits until it has begun. Raises ``RuntimeError`` for one of another version."""
        kind, _, its = self.next(timeout)
        its, *here = its if kind == HELLO else ("?",)
        if its != version:
            raise RuntimeError(f"{self.told} has version {its} of the package, and not {version}")
        self.process.began(*here)

    def circumstances(self) -> dict[str, Any]:
        """What each process has to know of its job's."""
        calls = self._calls
        return {"path": sys.path, "job_id": calls.job_id, "log_dir": calls.log_dir, "levels": _levels()}

    def send(self, kind: int, value: Any, number: int = 0, timeout: float | None = None) -> int:
        """Sends a frame; returns how many bytes it has. Raises ``Closed``."""
        parts = packed(value)
        self.send_parts(kind, number, parts, timeout)
        return size(parts)

    def send_parts(self, kind: int, number: int, parts: list[Any], timeout: float | None = None) -> None:
        """As ``send``, of what is packed already."""
        try:
            self._open().send(kind, number, parts, not self.is_closing, timeout)
        except EOFError:
            raise Closed from None

    def next(self, timeout: float | None = None) -> tuple[int, int, Any]:
        """The next frame: its kind, its number and what is in it. Raises ``Closed``."""
        kind, number, first, others = self.receive(timeout)
        return kind, number, unpacked(first, others)

    def next_now(self, awaits: bool) -> tuple[int, int, Any] | None:
        """As ``next``; ``None`` when there is none, nor comes at once where it is awaited."""
        return self._opened(lambda: self._open().receive_now(awaits))

    def receive(self, timeout: float | None = None) -> tuple[int, int, bytes, list[bytes | bytearray]]:
        """As ``next``, without looking into it."""
        try:
            return self._open().receive(timeout, not self.is_closing)
        except EOFError:
            raise Closed from None

    def next_beside(self, descriptor: int) -> tuple[int, int, Any] | None:
        """As ``next``, whether or not the job is being cancelled; ``None`` when a descriptor can be read instead."""
        return self._opened(lambda: self._open().receive_beside(descriptor))

    @staticmethod
    def _opened(receive: Callable[[], Any]) -> tuple[int, int, Any] | None:
        try:
            came = receive()
        except EOFError:
            raise Closed from None
        if came is None:
            return None
        kind, number, first, others = came
        return kind, number, unpacked(first, others)

    def _open(self) -> Channel:
        """The channel; no variable has it, which the traceback of an exception would keep, and with it descriptors."""
        if self.channel is None:
            raise Closed
        return self.channel

    def how(self) -> str:
        """How it has ended, when ``Closed`` was raised."""
        return self.process.ended(1.0) or "has closed its connection"

    def end(self, lingers: float | None = None) -> int:
        """Ends the process, which has so many seconds to end by itself, and keeps what it has come to. Says how many
        processes all of the job's have left, if it is the last of them."""
        for number in list(self._awaited):
            self._drop(number)
        self.channel = None
        process = self.process
        left = process.end() if lingers is None else process.end(lingers)
        end = process.ended(0.0) or "has not ended"
        where = process.pid, process.node, process.guard
        told = WorkerTold(self._name, self._replica, *where, process.cpu, process.peak_bytes, end)
        self._calls.workers.append(told)
        self._calls.loop.release()
        return left

    def signal(self, number: int) -> None:
        """Sends it a signal, unless it has ended."""
        self.process.signal(number)

    # What it asks for.

    def heed(self, kind: int, number: int, value: Any) -> None:
        """Does what it asks for by a frame, if that is none of its answers."""
        if kind in _ASKED:
            _ASKED[kind](self, number, value)

    def call(self, number: int, call: Any) -> None:
        """Calls a service for it, on this thread."""
        *asked, is_later = call
        try:
            result = True, self._calls.made(*asked)
        except BaseException as exception:
            result = False, exception
        self.answer(number, *result, is_later)

    def call_beside(self, number: int, call: Any) -> None:
        """Has another thread call a service for it."""
        *asked, is_later = call
        try:
            future = self._calls.made_beside(*asked)
        except BaseException as exception:
            self.answer(number, False, exception)
            return
        future.add_done_callback(lambda done: self._returned(number, done, is_later))

    def _called(self, number: int, call: Any) -> None:
        """On this thread, which waits anyway, or if it is not the worker's main thread that calls, on another one."""
        (self.call if number % 2 == 0 else self.call_beside)(number, call)

    def _returned(self, number: int, done: Any, is_later: bool) -> None:
        try:
            result = True, done.result()
        except BaseException as exception:
            result = False, exception
        self.answer(number, *result, is_later)

    def answer(self, number: int, is_result: bool, value: Any, is_later: bool = False) -> None:
        """Says what a call of a service has come to. What is to be awaited for that is, on the job's loop; with
        ``is_later`` the worker is told, and goes on meanwhile."""
        if not is_result or not hasattr(type(value), "__await__"):
            self._answer(number, is_result, value)
            return
        try:
            begun = self._calls.loop.begun()
            if begun.thread is threading.current_thread():
                raise RuntimeError(
                    "an async function waits here, on the job's event loop, for a service that calls an async method "
                    "of another one, which is to run on that loop: make what the function calls async, and await it"
                )
            loop = begun.loop
            if is_later:
                self.send(AWAITED, None, number)
            loop.call_soon_threadsafe(self._await, number, value, loop)
        except RuntimeError as error:  # or the loop has ended
            with suppress(AttributeError):  # it is no coroutine
                value.close()
            self._answer(number, False, error, True)
        except (Closed, OSError):
            pass  # as below

    def _await(self, number: int, awaitable: Any, loop: Any) -> None:
        """On the loop."""
        from asyncio import Task  # it is there already

        async def settle() -> None:
            try:
                result = True, await awaitable
            except BaseException as exception:  # the loop has to go on, whatever it is
                result = False, exception
            self._awaited.pop(number, None)
            with suppress(Cancelled):  # the worker is ended
                self._answer(number, *result, True)

        self._awaited[number] = Task(settle(), loop=loop)

    def _drop(self, number: int, _nothing: Any = None) -> None:
        """Nobody waits for this any more."""
        task = self._awaited.get(number)
        if task is not None:
            with suppress(RuntimeError):  # the loop has ended
                task.get_loop().call_soon_threadsafe(task.cancel)

    def _answer(self, number: int, is_result: bool, value: Any, was_awaited: bool = False) -> None:
        try:
            parts = packed((is_result, value if is_result else packed_exception(value), was_awaited))
        except Exception as error:
            told = TypeError(f"the result of a service cannot be taken to a worker: {type(error).__name__}: {error}")
            parts = packed((False, packed_exception(told), was_awaited))
        try:
            self.send_parts(RETURN, number, parts)
        except (Closed, OSError):
            pass  # whoever waits for its results is told

    def _printed(self, _number: int, line: tuple[str, str]) -> None:
        stream, text = line
        print(f"[{self._label}] {text}", file=sys.stderr if stream == "err" else sys.stdout, flush=True)

    def _logged(self, _number: int, record: dict[str, Any]) -> None:
        logger = logging.getLogger(record["name"])
        if logger.isEnabledFor(record["levelno"]):
            logger.handle(logging.makeLogRecord(record))

    def _stop(self, _number: int, _nothing: Any) -> None:
        run = self._calls.run
        if run is not None:
            run.begun.drain()

    def _state(self, number: int, _nothing: Any) -> None:
        run = self._calls.run
        with suppress(Closed):  # as above
            self.send(NAMED, "ended" if run is None else run.begun.state, number)

    def _named(self, number: int, name: str) -> None:
        """A name of the main module, which is not the main module there."""
        try:
            found = True, dumped(getattr(sys.modules["__main__"], name))
        except Exception as error:
            found = False, f"{type(error).__name__}: {error}".encode()
        try:
            self.send(NAMED, found, number)
        except Closed:
            pass  # as above


def left_behind(count: int) -> list[str]:
    """What the report notes of processes that ``WorkerProcess.end`` says were left."""
    if not count:
        return []
    what = "1 process" if count == 1 else f"{count} processes"
    return [f"{what} that workers had started and left was killed"]


def _levels() -> dict[str, int]:
    """The levels of all loggers that have one; that of the root by an empty name."""
    known = logging.root.manager.loggerDict.items()
    levels = {name: logger.level for name, logger in known if isinstance(logger, logging.Logger) and logger.level}
    return {"": logging.root.level, **levels}


_ASKED: dict[int, Callable[[WorkerProcess, int, Any], None]] = {
    CALL: WorkerProcess._called,
    DROP: WorkerProcess._drop,
    LINE: WorkerProcess._printed,
    LOG: WorkerProcess._logged,
    STOP: WorkerProcess._stop,
    STATE: WorkerProcess._state,
    NAME: WorkerProcess._named,
}
