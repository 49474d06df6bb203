"""A function that several records are worked on with at a time, in a worker, as its job sees it.

What is in flight, its order, timeouts, further attempts and dead letters are the engine's, as they are for functions of
this process: this is a runner like those of ``_async`` and ``_in_flight``. A thread of its own sends the records that
are to begin, with their numbers, and those that were given up; it gives the engine what the worker answers. See
``_worker_flight.py`` for the other side.
"""

from __future__ import annotations

import select
import signal
from typing import TYPE_CHECKING, Any

from ._pickling import unpacked_exception
from ._remote import GRACE, MOST_LOSSES, Remote, RemoteMaker
from ._sage import Bridge, Cancelled, WorkerLost
from ._threads import joined, started
from ._wire import ANSWER, ASK, CANCEL, CLOSE, CLOSING, HURRY
from ._worker_process import Closed, WorkerProcess

if TYPE_CHECKING:
    from ._context import ServiceCalls


class RemoteFlight(Remote):
    """Has a worker call a function for several records at a time."""

    def __init__(self, maker: RemoteMaker, calls: ServiceCalls, replica: int, parallelism: int, pause: Any) -> None:
        super().__init__(maker, calls, replica, parallelism, pause)
        timeouts = maker.job.timeouts
        # The worker itself waits as long, and then says what has not ended.
        self.patience, self._patience_left = timeouts.cancel + GRACE, timeouts.drain + GRACE
        self.has_pauses = maker.has_pauses
        self.notes: list[str] = []
        #: What is in flight, by its number; the records themselves only where another worker may need them.
        self._records: dict[int, Any] = {}
        #: Whether the worker is to be told of a drain.
        self._hurries = False
        #: Whether all is done, when the end has begun; whether the worker was told of that, and has ended its calls.
        self._is_whole: bool | None = None
        self._is_told = False
        self._has_ended = False
        #: What the worker has come to, when its function is closed; or that it was lost, if no record says so.
        self._told: dict[str, Any] | None = None
        self._lost_idle: WorkerLost | None = None
        self.bridge = Bridge()
        try:
            self._open()
            self._thread = started(self._run, f"sage-{maker.name}")
        except BaseException:
            worker = self._worker
            if worker is not None and not self._is_lost:
                self._closed(worker, False, self.notes)
            self._ended()
            # As in `finish_close`.
            del self.bridge
            raise

    def _open(self) -> None:
        self._begin()
        if self._worker is not None:
            # The engine says how long calls may go on.
            self._worker.is_closing = True

    # On the thread.

    def _run(self) -> None:
        try:
            while not self._is_over():
                pass
        except (WorkerLost, Cancelled) as lost:
            self._refuse(lost)
        finally:
            self.bridge.ended()

    def _is_over(self) -> bool:
        """Works with a worker until its function is closed, or it is lost and another has taken its place."""
        try:
            while not self._has_ended:
                self._step()
            assert self._worker is not None and self._is_whole is not None, "it was told to close"
            self._told = self._closes(self._worker, self._is_whole, self.notes)
            return True
        except WorkerLost as lost:
            while True:
                self._losses += 1
                if not self._maker.is_replaced or self._losses > MOST_LOSSES or self._is_whole is not None:
                    raise lost
                self._replaced += 1
                self._again += len(self._records)
                self._maker.job.logger.warning("%s; another takes its place", lost)
                self._ended()
                try:
                    self._open()
                    self._ask(list(self._records.items()))
                    return False
                except WorkerLost as again:
                    lost = again

    def _step(self) -> None:
        """Sends what there is to send, and waits for a frame or for more of that."""
        begin, given_up = self.bridge.take()
        if given_up:
            for number in given_up:
                self._records.pop(number, None)
            self._send(CANCEL, given_up)
        if begin:
            self._records.update(begin if self._maker.is_replaced else ((number, None) for number, _ in begin))
            self._ask(begin)
            del begin
        if self._hurries:
            self._hurries = False
            self._send(HURRY, None)
        if self._is_whole is not None and not self._is_told:
            self._is_told = True
            self._send(CLOSE, self._is_whole)
        worker = self._worker
        assert worker is not None, "it has begun"
        try:
            came = worker.next_beside(self.bridge.fileno())
        except Closed:
            raise self._lost() from None
        if came is not None:
            self._heed(worker, *came)

    def _ask(self, records: list[tuple[int, Any]]) -> None:
        if not records:
            return
        try:
            self._send(ASK, records)
        except WorkerLost:
            raise
        except Exception as error:  # one of them cannot be pickled
            if len(records) > 1:
                for record in records:
                    self._ask([record])
                return
            number = records[0][0]
            del self._records[number]
            self.bridge.failed(number, error)
            self.bridge.send()

    def _heed(self, worker: WorkerProcess, kind: int, number: int, value: Any) -> None:
        if kind == ANSWER:
            self._losses = 0
            for number, word, what in value:
                self._answer(number, word, what)
            self.bridge.send()
        elif kind == CLOSING:
            self._has_ended = True
            self.bridge.ended()
        else:
            worker.heed(kind, number, value)

    def _answer(self, number: int, word: str, what: Any) -> None:
        if word == "begun":
            self.bridge.begins(number)
            return
        self._records.pop(number, None)
        if word == "done":
            self.bridge.done(number, what)
        elif word == "raised":
            self.bridge.failed(number, unpacked_exception(what))
        else:
            self.bridge.refuse(what)

    def _refuse(self, why: BaseException) -> None:
        """The worker is lost: so is what is in flight, and what would be."""
        if not self._records and isinstance(why, WorkerLost) and self._is_whole is not False:
            self._lost_idle = why
        for number in self._records:
            self.bridge.failed(number, why)
        self._records.clear()
        self.bridge.send()
        poll = select.poll()
        poll.register(self.bridge.fileno(), select.POLLIN)
        while self._is_whole is None:
            poll.poll()
            begin, _ = self.bridge.take()
            for number, _ in begin:
                self.bridge.failed(number, why)
                self._lost_idle = None
            self.bridge.send()

    def _had(self) -> str:
        count = len(self._records)
        return f"{count:,} record{'s' * (count != 1)} in flight" if count else ""

    # For the engine.

    def hurry(self) -> None:
        """The job is drained: what waits to be tried again is tried at once."""
        self._hurries = True
        self.bridge.wake()

    def blocked(self) -> str:
        """Why nothing can be given up any more."""
        return "a worker" if self._worker is None else f"{self._worker.told} takes nothing any more"

    def begin_close(self, is_cancelled: bool) -> float:
        """Has the worker end its calls. Returns how long to wait for that, in seconds."""
        self._is_whole = not is_cancelled
        self.bridge.wake()
        return self.patience if is_cancelled else self._patience_left

    def finish_close(self) -> str | None:
        """Waits until the worker has closed its function, and is gone. It is killed if it has not ended its calls:
        nothing is left behind."""
        worker = self._worker
        assert worker is not None, "it has begun"
        is_killed = not self._has_ended and not self._is_lost
        if is_killed:
            worker.signal(signal.SIGKILL)
            self.notes.append(f"{worker.told} was killed, as it had not ended its calls")
        failure: BaseException | None = None
        try:
            joined(self._thread)
            if self._told is not None:
                failure = self._counted(self._told)
                if (left := self._told["left"]) is not None:
                    worker.signal(signal.SIGKILL)
                    self.notes.append(f"{worker.told} was killed: {left}")
        finally:
            self.notes += self._over(worker)
            # Its descriptors are not to stay open for as long as a traceback refers to this object.
            del self.bridge
        failure = failure or (None if is_killed else self._lost_idle)
        if failure is not None:
            raise failure
        return None
