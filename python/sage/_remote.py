"""Chains of functions that run in worker processes, as their job sees them: see ``worker.py`` for the other side.

What crosses at the start is the maker of the functions, as cloudpickle has it: their code and what they capture, and
nothing of the steps before them. The thread of the replica's task sends batches and waits for results; while it waits,
it serves the calls of services that the functions make.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ._kinds import Part
from ._makers import ChainMaker, FlightMaker, Maker
from ._portable import pickled
from ._pickling import packed_exception, unpacked_exception
from ._sage import Cancelled, Channel, SubmitError, WorkerLost
from ._wire import BATCH, CALL, CLOSE, CLOSED, CLOSING, FAILED, FINISH, INIT, PART, READY, RESULT, packed
from ._wire import packed_records, size
from ._worker_process import Closed, WorkerProcess, left_behind

if TYPE_CHECKING:
    from ._context import ServiceCalls

#: How long a function may go on after a cancel before its worker is killed, in seconds, and half of what the job waits
#: then at most.
GRACE = 1.0

#: Of what the job waits after a cancel, the part that closing may take before the worker is killed.
CLOSES = 0.75

#: So many workers in a row may be lost with the same records.
MOST_LOSSES = 2


class Answer(NamedTuple):
    """What a worker has answered to a batch; see ``RemoteChain`` in Rust."""

    results: list[Any]
    #: Of the last answer, how long it was at work on the batch, in seconds.
    took: float | None = None
    #: An exception, which function raised it with what it was at work, and how many records it was given by then.
    failure: tuple[BaseException, tuple[str, str] | None, int | None] | None = None


class Failed(NamedTuple):
    """What a function has raised in a worker: the exception, which function it was, and at which record."""

    exception: Any
    function: tuple[str, str] | None
    record: int | None


@dataclass(eq=False, repr=False)
class RemoteMaker(Maker):
    """Of functions that follow each other, in a worker."""

    #: Their maker, pickled; where the workers are, and whether another takes the place of one that ends by itself.
    pickled: bytes = b""
    where: str = ""
    #: What each takes of a Ray cluster, where their steps say it.
    takes: Mapping[str, Any] = field(default_factory=dict)
    is_replaced: bool = False
    #: Whether several records are in flight; and whether something waits to be tried again there.
    is_flight: bool = False
    #: Whether the job is told what has come of each record, as a policy decides on them.
    is_judged: bool = False
    has_pauses: bool = False

    def make(self, calls: ServiceCalls, replica: int, parallelism: int, pause: Any = None) -> Any:
        if not self.is_flight:
            return RemoteChain(self, calls, replica, parallelism, pause)
        from ._remote_flight import RemoteFlight  # few jobs have some

        return RemoteFlight(self, calls, replica, parallelism, pause)

    @property
    def name(self) -> str:
        """What the functions are called."""
        return " → ".join(part.name for part in self.parts)


def elsewhere(
    maker: ChainMaker | FlightMaker, where: str, on_worker_loss: str, takes: Mapping[str, Any], is_judged: bool
) -> RemoteMaker:
    """The same in a worker. Raises ``SubmitError`` if it cannot be taken there."""
    is_replaced = on_worker_loss == "restart"
    if is_replaced and (keeps := [part.name for part in maker.parts if _keeps(part)]):
        raise SubmitError(
            f"`{keeps[0]}` keeps a state, which is lost with its worker: it cannot have `on_worker_loss=\"restart\"`"
        )
    data, is_flight = pickled(maker), isinstance(maker, FlightMaker)
    has_pauses = is_flight and any(map(maker.is_restarted, maker.parts))
    made = RemoteMaker(maker.parts, maker.job, pickled=data, where=where, is_replaced=is_replaced, takes=takes)
    return replace(made, is_flight=is_flight, has_pauses=has_pauses, is_judged=is_judged)


def _keeps(part: Part) -> bool:
    return part.kind.keep is not None or callable(getattr(part.made[0], "get_state", None))


class Remote:
    """The functions of one replica, in a worker of their own."""

    def __init__(self, maker: RemoteMaker, calls: ServiceCalls, replica: int, parallelism: int, pause: Any) -> None:
        self._maker = maker
        self._calls = calls
        self._replica = replica
        self._parallelism = parallelism
        self._pause = pause
        self._worker: WorkerProcess | None = None
        #: How often the same records were lost with a worker; and of all workers, how often, with how many records.
        self._losses = 0
        self._replaced = 0
        self._again = 0
        #: Whether the worker has ended by itself.
        self._is_lost = False

    def _begin(self) -> None:
        self._is_lost = False
        name = self._maker.name
        which = f" {self._replica}" if self._parallelism > 1 else ""
        who, label = f"the worker{which} of `{name}`", f"{name}{which}"
        place = self._calls.place(self._maker)
        worker = self._worker = WorkerProcess(self._calls, place, who, name, self._replica, label, self._pause)
        try:
            worker.greet()
        except Closed:
            raise self._lost() from None
        told = {"pickled": self._maker.pickled, "replica": self._replica, "parallelism": self._parallelism}
        self._send(INIT, {**worker.circumstances(), **told, "is_judged": self._maker.is_judged})
        failure = self._next(READY)
        if failure is not None:
            raise unpacked_exception(failure)

    def _over(self, worker: WorkerProcess) -> list[str]:
        """Ends the last of the processes. Returns what is to be noted in the report."""
        notes = left_behind(self._ended())
        if self._replaced:
            records = f"{self._again:,} records were sent again, and may have been worked on twice"
            notes.append(f"{worker.told} took the place of {self._replaced} that were lost: {records}")
        return notes

    def _ended(self) -> int:
        """Ends the process. Says how many processes the workers have left, if it is the last of them."""
        worker, self._worker = self._worker, None
        return 0 if worker is None else worker.end()

    def _closed(self, worker: WorkerProcess, is_whole: bool, notes: list[str]) -> BaseException | None:
        grace = min(GRACE, self._maker.job.timeouts.cancel / 2)
        try:
            if not is_whole:
                worker.signal(signal.SIGTERM)
            worker.is_closing = True
            worker.send(CLOSE, is_whole, timeout=grace)
            if not is_whole:
                self._next(CLOSING, grace)
            told = self._closes(worker, is_whole, notes)
        except TimeoutError:
            worker.signal(signal.SIGKILL)
            notes.append(f"{worker.told} was killed: a function had not returned {grace:g} s after it was to end")
            return None
        except Closed:
            return self._lost() if is_whole else None
        except WorkerLost as lost:
            return lost if is_whole else None
        return None if told is None else self._counted(told)

    def _closes(self, worker: WorkerProcess, is_whole: bool, notes: list[str]) -> dict[str, Any] | None:
        """What the worker has come to, when its functions are closed. It may take its time for that until the job is
        cancelled: ``None`` if it was killed then."""
        limit = self._maker.job.timeouts.cancel * CLOSES
        told: dict[str, Any]
        try:
            try:
                worker.is_closing = not is_whole
                told = self._next(CLOSED, None if is_whole else limit)
            except Cancelled:
                worker.is_closing = True
                worker.signal(signal.SIGTERM)
                told = self._next(CLOSED, limit)
            return told
        except TimeoutError:
            worker.signal(signal.SIGKILL)
            notes.append(f"{worker.told} was killed: a function had not closed {limit:g} s after the job was cancelled")
            return None

    def _counted(self, told: dict[str, Any]) -> BaseException | None:
        """Adds what the worker has counted to the job's counts. Returns the exception that closing has raised."""
        for step, number in told["nones"].items():
            self._calls.nones.add(step, number)
        if self._calls.restarts is not None:
            self._calls.restarts.add(*told["restarts"])
        failure = told["failure"]
        return None if failure is None else unpacked_exception(failure)

    # Frames.

    def _send(self, kind: int, value: Any) -> int:
        return self._send_parts(kind, packed(value))

    def _send_parts(self, kind: int, parts: list[Any]) -> int:
        assert self._worker is not None, "it has begun"
        try:
            self._worker.send_parts(kind, 0, parts)
        except Closed:
            raise self._lost() from None
        return size(parts)

    def _next(self, kind: int, timeout: float | None = None, waits: bool = True) -> Any:
        """What comes in the next frame of this kind. Does meanwhile what the worker asks for. Unless it is to be waited
        for, ``None`` if it is not there."""
        assert self._worker is not None, "it has begun"
        until = None if timeout is None else time.monotonic() + timeout
        # A function that has called a service may well call it again.
        has_called = False
        while True:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            try:
                frame = self._worker.next(left) if waits else self._worker.next_now(has_called)
            except Closed:
                raise self._lost() from None
            if frame is None:
                return None
            came, number, value = frame
            if came == kind:
                return value
            if came == FAILED and kind == RESULT:
                return Failed(*value)
            self._worker.heed(came, number, value)
            has_called = came == CALL

    def _lost(self) -> WorkerLost:
        assert self._worker is not None, "it has begun"
        self._is_lost = True
        had = self._had()
        return WorkerLost(f"{self._worker.told} {self._worker.how()}{had and f'; it had {had}'}")

    def _had(self) -> str:
        """The records under way, in words."""
        raise NotImplementedError


class RemoteChain(Remote):
    """Of functions that follow each other: works on batches."""

    def __init__(self, maker: RemoteMaker, calls: ServiceCalls, replica: int, parallelism: int, pause: Any) -> None:
        super().__init__(maker, calls, replica, parallelism, pause)
        #: The batches under way; of the end of input, ``None``. How many records were before them, and how many
        #: before the first one that this worker was given.
        self._batches: list[list[Any] | None] = []
        self._before = 0
        self._first = 0
        #: Answers that came before that to a record which is tried again.
        self._early: list[Answer] = []

    def open(self) -> None:
        """Starts the worker, which makes the functions."""
        self._begin()

    def send(self, records: list[Any]) -> int:
        """Sends a batch. Returns how many bytes it has, as far as that is known."""
        self._batches.append(records)
        return self._retried(lambda: self._give(records)) or 0

    def finish(self) -> None:
        """Says that there are no more records: it answers with what it kept until now."""
        self._batches.append(None)
        self._retried(lambda: self._send(FINISH, None))

    def _give(self, records: list[Any]) -> int:
        try:
            parts = packed_records(records)
        except Exception:
            return sum(self._give_each(records))
        return self._send_parts(BATCH, parts)

    def _give_each(self, records: list[Any]) -> Iterator[int]:
        """Gives the records of a batch one by one: one of them cannot be sent, or all are too large for one frame. What
        cannot be sent comes back as the failure of its record, at its turn."""
        number = self._before - self._first
        for batch in self._batches:
            if batch is records:
                break
            number += len(batch or [])
        for left, record in zip(range(len(records) - 1, -1, -1), records):
            number += 1
            try:
                parts = packed_records((record, None, number, left == 0))
            except Exception as error:
                yield self._send(PART, (None, packed_exception(error), number, left == 0))
                if not self._maker.is_judged:
                    return
            else:
                yield self._send_parts(PART, parts)

    @property
    def channel(self) -> Channel | None:
        """The connection to the worker."""
        return None if self._worker is None else self._worker.channel

    def receive(self, waits: bool) -> Answer | None:
        """The next answer. Unless it is to be waited for, ``None`` if it is not there."""
        return self._early.pop(0) if self._early else self._received(waits)

    def again(self, record: Any) -> Answer:
        """Has the worker work on a record once more, behind the batches under way. Returns the answer."""
        self.send([record])
        outcomes: list[Any] = []
        while True:
            is_its = len(self._batches) == 1
            answer = self._received(True)
            assert answer is not None, "it was waited for"
            if not is_its:
                self._early.append(answer)
                continue
            outcomes += answer.results
            if not self._batches:
                self._before -= 1
                return answer._replace(results=outcomes)

    def _received(self, waits: bool) -> Answer | None:
        answer: Answer | None = None
        while answer is None:
            answer = self._retried(lambda: self._answered(waits))
            if answer is None and not waits:
                return None
        if self._maker.is_judged and answer.results:
            # Another worker does not get them again.
            batch = self._batches[0]
            assert batch is not None, "these were its records"
            self._before += len(answer.results)
            del batch[: len(answer.results)]
        if answer.took is not None or answer.failure is not None:
            self._losses = 0
            self._before += len(self._batches.pop(0) or [])
        return answer

    def _answered(self, waits: bool) -> Answer | None:
        told = self._next(RESULT, waits=waits)
        if told is None:
            return None
        if not isinstance(told, Failed):
            results, took = told
            if self._maker.is_judged:
                results = [each if type(each) is list else unpacked_exception(each) for each in results]
            return Answer(results, took)
        record = None if told.record is None else told.record + self._first
        return Answer([], None, (unpacked_exception(told.exception), told.function, record))

    def _had(self) -> str:
        under_way = sum(len(batch or []) for batch in self._batches)
        return f"the records {self._before + 1:,} to {self._before + under_way:,}" if under_way else ""

    def _retried(self, act: Callable[[], Any]) -> Any:
        """Does something with the worker. If that is lost, another one takes its place, which gets all batches again,
        and ``None`` is returned."""
        try:
            return act()
        except WorkerLost as lost:
            while True:
                self._losses += 1
                if not self._maker.is_replaced or self._losses > MOST_LOSSES:
                    raise lost
                self._replaced += 1
                self._again += sum(len(batch or []) for batch in self._batches)
                self._maker.job.logger.warning("%s; another takes its place", lost)
                self._ended()
                try:
                    self._begin()
                    self._first = self._before
                    for batch in self._batches:
                        self._send(FINISH, None) if batch is None else self._give(batch)
                    return None
                except WorkerLost as again:
                    lost = again

    def close(self, is_whole: bool) -> list[str]:
        """Has the worker close its functions, and ends it. Returns what is to be noted in the report."""
        notes: list[str] = []
        worker = self._worker
        if worker is None:
            return notes
        failure = None
        try:
            if not self._is_lost:
                failure = self._closed(worker, is_whole, notes)
        finally:
            notes += self._over(worker)
        if failure is not None:
            raise failure
        return notes
