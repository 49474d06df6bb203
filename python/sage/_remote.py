"""Chains of functions that run in worker processes, as their job sees them: see ``worker.py`` for the other side.

What crosses at the start is the maker of the functions, as cloudpickle has it: their code and what they capture, and
nothing of the steps before them. The thread of the replica's task sends batches and waits for results; while it waits,
it serves the calls of services that the functions make.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ._kinds import Part
from ._makers import ChainMaker, Maker
from ._portable import dumped, pickled
from ._pickling import packed_exception, unpacked_exception
from ._processes import Process, WorkerTold, command
from ._sage import Channel, SubmitError, WorkerLost, version
from ._wire import BATCH, CALL, CLOSE, CLOSED, CLOSING, FAILED, FINISH, HELLO, INIT, LINE, LOG, NAME, NAMED, READY
from ._wire import RESULT, RETURN, STOP, packed, unpacked

if TYPE_CHECKING:
    from ._context import ServiceCalls

#: How long a function may go on after a cancel before its worker is killed, in seconds.
_GRACE = 1.0


#: So many workers in a row may be lost with the same records.
_MOST_LOSSES = 2


class Answer(NamedTuple):
    """What a worker has answered to a batch; see ``RemoteChain`` in Rust."""

    results: list[Any]
    #: Of the last answer, how long it was at work on the batch, in seconds.
    took: float | None = None
    #: An exception, which function raised it with what it was at work, and how many records it was given by then.
    failure: tuple[BaseException, tuple[str, str] | None, int | None] | None = None


@dataclass(eq=False, repr=False)
class RemoteMaker(Maker):
    """Of functions that follow each other, in a worker."""

    #: Their maker, pickled; where the workers are, and whether another takes the place of one that ends by itself.
    pickled: bytes = b""
    where: str = ""
    is_replaced: bool = False

    def make(self, calls: ServiceCalls, replica: int, parallelism: int, pause: Any = None) -> RemoteChain:
        return RemoteChain(self, calls, replica, parallelism, pause)

    @property
    def name(self) -> str:
        """What the functions are called."""
        return " → ".join(part.name for part in self.parts)


def elsewhere(maker: ChainMaker, where: str, on_worker_loss: str) -> RemoteMaker:
    """The same in a worker. Raises ``SubmitError`` if it cannot be taken there."""
    is_replaced = on_worker_loss == "restart"
    if is_replaced and (keeps := [part.name for part in maker.parts if _keeps(part)]):
        raise SubmitError(
            f"`{keeps[0]}` keeps a state, which is lost with its worker: it cannot have `on_worker_loss=\"restart\"`"
        )
    data = pickled(maker)
    return RemoteMaker(maker.parts, maker.job, pickled=data, where=where, is_replaced=is_replaced)


def _keeps(part: Part) -> bool:
    return part.kind.keep is not None or callable(getattr(part.made[0], "get_state", None))


class RemoteChain:
    """The functions of one replica, in a worker of their own."""

    def __init__(self, maker: RemoteMaker, calls: ServiceCalls, replica: int, parallelism: int, pause: Any) -> None:
        self._maker = maker
        self._calls = calls
        self._replica = replica
        self._parallelism = parallelism
        self._pause = pause
        self._process: Process | None = None
        self._channel: Channel | None = None
        #: The batches under way; of the end of input, ``None``. How many records were before them, and how many
        #: before the first one that this worker was given.
        self._batches: list[list[Any] | None] = []
        self._before = 0
        self._first = 0
        #: How often the first of these was lost with its worker; and of all workers, how often, with how many records.
        self._losses = 0
        self._replaced = 0
        self._again = 0
        #: Whether the worker was told to end; and whether it has ended by itself.
        self._is_closing = False
        self._is_lost = False

    @property
    def _told(self) -> str:
        """What messages call the worker."""
        which = f" {self._replica}" if self._parallelism > 1 else ""
        pid = f" (process {self._process.pid})" if self._process is not None else ""
        return f"the worker{which} of `{self._maker.name}`{pid}"

    def open(self) -> None:
        """Starts the worker, which makes the functions."""
        self._begin()

    def _begin(self) -> None:
        self._is_lost = False
        self._process = Process(self._calls.guard, command())
        self._channel = Channel(os.dup(self._process.socket.fileno()), self._pause)
        its = self._next(HELLO)
        if its != version:
            raise RuntimeError(f"{self._told} has version {its} of the package, and not {version}")
        self._send(
            INIT,
            {
                "path": sys.path,
                "pickled": self._maker.pickled,
                "replica": self._replica,
                "parallelism": self._parallelism,
                "job_id": self._calls.job_id,
                "log_dir": self._calls.log_dir,
                "levels": _levels(),
            },
        )
        failure = self._next(READY)
        if failure is not None:
            raise unpacked_exception(failure)

    def send(self, records: list[Any]) -> None:
        """Sends a batch."""
        self._batches.append(records)
        self._retried(lambda: self._send(BATCH, records))

    def finish(self) -> None:
        """Says that there are no more records: it answers with what it kept until now."""
        self._batches.append(None)
        self._retried(lambda: self._send(FINISH, None))

    def receive(self) -> Answer:
        """The next answer."""
        answer: Answer | None = None
        while answer is None:
            answer = self._retried(lambda: self._next(RESULT))
        if answer.took is not None or answer.failure is not None:
            self._losses = 0
            self._before += len(self._batches.pop(0) or [])
        return answer

    def _retried(self, act: Callable[[], Any]) -> Any:
        """Does something with the worker. If that is lost, another one takes its place, which gets all batches again,
        and ``None`` is returned."""
        try:
            return act()
        except WorkerLost as lost:
            while True:
                self._losses += 1
                if not self._maker.is_replaced or self._losses > _MOST_LOSSES:
                    raise lost
                self._replaced += 1
                self._again += sum(len(batch or []) for batch in self._batches)
                self._maker.job.logger.warning("%s; another takes its place", lost)
                self._ended()
                try:
                    self._begin()
                    self._first = self._before
                    for batch in self._batches:
                        self._send(FINISH if batch is None else BATCH, batch)
                    return None
                except WorkerLost as again:
                    lost = again

    def close(self, is_whole: bool, left: float | None = None) -> list[str]:
        """Has the worker close its functions, and ends it. ``left`` is how long that may take. Returns what is to be
        noted in the report."""
        notes: list[str] = []
        if self._process is None:
            return notes
        failure = None
        try:
            if self._channel is not None and not self._is_lost:
                failure = self._closed(is_whole, left, notes)
        finally:
            if left_behind := self._ended():
                what = "1 process" if left_behind == 1 else f"{left_behind} processes"
                notes.append(f"{what} that functions in workers had started and left was killed")
            if self._replaced:
                records = f"{self._again:,} records were sent again, and may have been worked on twice"
                notes.append(f"{self._told} took the place of {self._replaced} that were lost: {records}")
        if failure is not None:
            raise failure
        return notes

    def _ended(self) -> int:
        """Ends the process, and keeps what it has come to. Says how many processes the workers have left, if it is the
        last of them."""
        self._channel = None
        process, self._process = self._process, None
        if process is None:
            return 0
        left = process.end()
        end = process.ended(0.0) or "has not ended"
        told = WorkerTold(self._maker.name, self._replica, process.pid, "", process.cpu, process.peak_bytes, end)
        self._calls.workers.append(told)
        return left

    def _closed(self, is_whole: bool, left: float | None, notes: list[str]) -> BaseException | None:
        assert self._channel is not None and self._process is not None, "it is open"
        try:
            if not is_whole:
                self._process.signal(signal.SIGTERM)
            self._is_closing = True
            grace = None if is_whole else _GRACE
            self._channel.send(CLOSE, 0, packed(is_whole), False, grace)
            self._next(CLOSING, grace)
            failure, nones = self._next(CLOSED, left)
        except TimeoutError:
            self._process.signal(signal.SIGKILL)
            notes.append(f"{self._told} was killed: a function had not returned {_GRACE:g} s after it was to end")
            return None
        except WorkerLost as lost:
            return lost if is_whole else None
        for step, number in nones.items():
            self._calls.nones.add(step, number)
        return None if failure is None else unpacked_exception(failure)

    # Frames.

    def _send(self, kind: int, value: Any) -> None:
        assert self._channel is not None, "it is open"
        try:
            self._channel.send(kind, 0, packed(value))
        except EOFError:
            raise self._lost() from None

    def _next(self, kind: int, timeout: float | None = None) -> Any:
        """What comes in the next frame of this kind. Does meanwhile what the worker asks for."""
        assert self._channel is not None, "it is open"
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            try:
                came, number, first, others = self._channel.receive(left, not self._is_closing)
            except EOFError:
                raise self._lost() from None
            value = unpacked(first, others)
            if came == kind:
                return Answer(*value) if kind == RESULT else value
            if came == FAILED and kind == RESULT:
                exception, function, record = value
                record = None if record is None else record + self._first
                return Answer([], None, (unpacked_exception(exception), function, record))
            if came in _ASKED:
                _ASKED[came](self, number, value)

    def _lost(self) -> WorkerLost:
        assert self._process is not None, "it is open"
        self._is_lost = True
        how = self._process.ended(1.0) or "has closed its connection"
        under_way = sum(len(batch or []) for batch in self._batches)
        had = f"; it had the records {self._before + 1:,} to {self._before + under_way:,}" if under_way else ""
        return WorkerLost(f"{self._told} {how}{had}")

    # What a worker asks for.

    def _called(self, number: int, call: Any) -> None:
        """A call of a service: on this thread, which waits anyway, or if it is not the worker's main thread that calls,
        on another one."""
        name, method, args, kwargs, timeout = call
        if number % 2 == 0:
            try:
                result = True, self._calls.call(name, *args, method=method, timeout=timeout, **kwargs)
            except BaseException as exception:
                result = False, exception
            self._return(number, *result)
            return
        try:
            future = self._calls.asynchronous(name, *args, method=method, timeout=timeout, **kwargs)
        except BaseException as exception:
            self._return(number, False, exception)
            return
        future.add_done_callback(lambda done: self._returned(number, done))

    def _returned(self, number: int, done: Any) -> None:
        try:
            result = True, done.result()
        except BaseException as exception:
            result = False, exception
        self._return(number, *result)

    def _return(self, number: int, is_result: bool, value: Any) -> None:
        channel = self._channel
        if channel is None:
            return  # it has ended meanwhile
        try:
            parts = packed((is_result, value if is_result else packed_exception(value)))
        except Exception as error:
            told = TypeError(f"the result of a service cannot be taken to a worker: {type(error).__name__}: {error}")
            parts = packed((False, packed_exception(told)))
        try:
            channel.send(RETURN, number, parts, not self._is_closing)
        except (EOFError, OSError):
            pass  # whoever waits for its results is told

    def _printed(self, _number: int, line: tuple[str, str]) -> None:
        stream, text = line
        which = f" {self._replica}" if self._parallelism > 1 else ""
        print(f"[{self._maker.name}{which}] {text}", file=sys.stderr if stream == "err" else sys.stdout, flush=True)

    def _logged(self, _number: int, record: dict[str, Any]) -> None:
        logger = logging.getLogger(record["name"])
        if logger.isEnabledFor(record["levelno"]):
            logger.handle(logging.makeLogRecord(record))

    def _stop(self, _number: int, _nothing: Any) -> None:
        run = self._calls.run
        if run is not None:
            run.begun.drain()

    def _named(self, number: int, name: str) -> None:
        """A name of the main module, which is not the main module there."""
        try:
            found = True, dumped(getattr(sys.modules["__main__"], name))
        except Exception as error:
            found = False, f"{type(error).__name__}: {error}".encode()
        if self._channel is not None:
            self._channel.send(NAMED, number, packed(found), not self._is_closing)


def _levels() -> dict[str, int]:
    """The levels of all loggers that have one; that of the root by an empty name."""
    known = logging.root.manager.loggerDict.items()
    levels = {name: logger.level for name, logger in known if isinstance(logger, logging.Logger) and logger.level}
    return {"": logging.root.level, **levels}


_ASKED: dict[int, Callable[[RemoteChain, int, Any], None]] = {
    CALL: RemoteChain._called,
    LINE: RemoteChain._printed,
    LOG: RemoteChain._logged,
    STOP: RemoteChain._stop,
    NAME: RemoteChain._named,
}
