"""Runs the functions of one replica for a job in another process: what the worker program does.

A job starts it; see ``_remote.py`` for the other side. Its standard input is the socket to the job. It ends when the
job says so, when the socket is closed, or with the process that started it.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import pickle
import select
import signal
import stat
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ._context import JobContext, ServiceCalls, _call
from ._handles import ServiceHandle
from ._makers import FlightMaker
from ._pickling import packed_exception, unpacked_exception
from ._sage import Channel, WorkerChain, caller, die_with_parent, version
from ._wire import AWAITED, BATCH, CALL, CLOSE, CLOSED, CLOSING, FAILED, FINISH, HELLO, INIT, LINE, LOG, NAME, NAMED
from ._wire import PART, READY, RESULT, RETURN, STATE, STOP, packed, packed_records, unpacked

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from ._later import Later
    from ._served import Served
    from ._worker_flight import WorkerFlight

_Waiter = TypeVar("_Waiter", "SimpleQueue[Any]", "Later")

#: How many calls of a function's own threads may be under way, as in a job's own process.
_MOST_CALLS = 64


class Link:
    """The socket to the job. Several threads may wait for answers: one of them reads, and hands on what is not its
    own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._channel: Channel | Forked = Channel(descriptor)
        #: What else a process is to forget that a function has forked off.
        self.forgets: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._change = threading.Condition(self._lock)
        self._is_reading = False
        #: How many threads wait for the one that reads.
        self._waiting = 0
        self._answers: dict[int, Any] = {}
        #: Whether a thread always reads; and where the answers go that others wait for then, each for its own.
        self.is_read = False
        self._waiters: dict[int, SimpleQueue[Any] | Later] = {}
        #: Methods of services that have turned out to be async: coroutines need not wait to be told so.
        self._async: set[tuple[Any, ...]] = set()
        #: What the job has sent besides.
        self._frames: list[tuple[int, Any]] = []
        self._numbers = itertools.count(1)
        self._main = threading.get_ident()

    def greet(self) -> None:
        """Says that it has begun, and what it is."""
        self.send(HELLO, (version, os.getpid(), os.uname().nodename))

    def send(self, kind: int, value: Any, number: int = 0) -> None:
        """Sends a frame."""
        self.send_parts(kind, number, (packed_records if kind == RESULT else packed)(value))

    def send_parts(self, kind: int, number: int, parts: list[Any]) -> None:
        """Sends a frame of what is packed."""
        try:
            self._channel.send(kind, number, parts)
        except OSError:
            leave()

    def forked(self) -> None:
        """This process is one that a function has forked off. It lets go of the socket, which is the worker's."""
        nothing = os.open(os.devnull, os.O_RDWR)
        # Another thread, which is not there, may have been at work with the channel, so that it stays.
        os.dup2(nothing, self._descriptor, inheritable=False)
        os.close(nothing)
        self._channel = Forked()
        self.forgets()

    def ask(self, kind: int, value: Any) -> Any:
        """Sends a question, and waits for the answer."""
        number = self._number()
        if self._reads_here():
            self.send(kind, value, number)
            return unpacked(*self._wait(number))
        return unpacked(*self._sent(number, kind, value, SimpleQueue()).get())

    def call(self, call: tuple[Any, ...]) -> Any:
        """Calls a service. A method that is async gives its result; in a coroutine, something to await, as it does in
        the job's process."""
        if (loop := _loop_here()) is None:
            return outcome(*self.ask(CALL, (*call, False)))
        from ._later import Later, given  # asyncio is there already

        if self._reads_here():
            is_result, value, was_awaited = self.ask(CALL, (*call, False))
            return (given if was_awaited else outcome)(is_result, value, was_awaited)
        service_and_method, is_known = call[:2], call[:2] in self._async
        later = Later(self, self._number(), loop, is_known)
        self._sent(later.number, CALL, (*call, not is_known), later)
        if not is_known and (answer := later.get()) is not None:
            return outcome(*unpacked(*answer))
        self._async.add(service_and_method)
        return later.awaited()

    def _number(self) -> int:
        """That of the next question; an odd one, if it is not the main thread's."""
        return next(self._numbers) * 2 + (threading.get_ident() != self._main)

    def _reads_here(self) -> bool:
        """Whether this thread itself reads what it waits for."""
        return not self.is_read or threading.get_ident() == self._main

    def _sent(self, number: int, kind: int, value: Any, waiter: _Waiter) -> _Waiter:
        """Sends a question whose answer another thread reads, for ``waiter``."""
        self._waiters[number] = waiter
        try:
            self.send(kind, value, number)
        except BaseException:
            del self._waiters[number]
            raise
        return waiter

    def next(self) -> tuple[int, Any]:
        """What the job has sent besides answers: the kind and the value. For the main thread."""
        kind, (first, others) = self._wait(None)
        return kind, unpacked(first, others)

    def _wait(self, number: int | None) -> Any:
        while True:
            with self._lock:
                while True:
                    if number is None and self._frames:
                        return self._frames.pop(0)
                    if number in self._answers:
                        return self._answers.pop(number)
                    if not self._is_reading:
                        break
                    self._waiting += 1
                    self._change.wait()
                    self._waiting -= 1
                self._is_reading = True
            try:
                kind, came, first, others = self._channel.receive()
            except BaseException:
                with self._lock:
                    self._is_reading = False
                    self._change.notify_all()
                raise
            with self._lock:
                self._is_reading = False
                if kind == AWAITED:
                    self._waiters[came].put(None)
                elif came in self._waiters:
                    self._waiters.pop(came).put((first, others))
                elif kind in (RETURN, NAMED):
                    self._answers[came] = first, others
                else:
                    self._frames.append((kind, (first, others)))
                if self._waiting:
                    self._change.notify_all()


class Forked:
    """In place of the channel, where a function has forked off a process: that is none of the job's, and ends when it
    comes out of the function."""

    def send(self, kind: int, _number: int, parts: list[Any]) -> None:
        """Prints what was printed or logged, as nobody else does."""
        if kind in (CALL, NAME, STATE, STOP):
            raise RuntimeError("a process that a function has forked off cannot ask its job for anything")
        if kind == LINE:
            stream, text = unpacked(parts[0], parts[1:])
            os.write(2 if stream == "err" else 1, f"{text}\n".encode())
        elif kind == LOG:
            record = unpacked(parts[0], parts[1:])
            os.write(2, f"{record['levelname']}:{record['name']}:{record['msg']}\n".encode())
        else:
            os._exit(kind == FAILED)

    def receive(self) -> Any:
        """Ends the process."""
        os._exit(0)


def leave() -> NoReturn:
    """Ends the process for the error at hand, which it cannot tell its job: such as after a function has closed the
    descriptor of its socket."""
    with suppress(Exception):
        traceback.print_exc(file=sys.__stderr__)
    os._exit(1)


def outcome(is_result: bool, value: Any, _was_awaited: bool) -> Any:
    """What a call of a service has come to."""
    if is_result:
        return value
    raise unpacked_exception(value)


def _loop_here() -> Any:
    """The event loop that runs on this thread, if one does."""
    asyncio: Any = sys.modules.get("asyncio.events")  # it is there, if one does
    return None if asyncio is None else asyncio._get_running_loop()


class RemoteService:
    """A service of the job, by its name."""

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self.name = name

    def call(
        self, method: str | None, args: Any, kwargs: dict[str, Any], timeout: float | None, changes: Any = None
    ) -> Any:
        """Calls it."""
        return self._link.call((self.name, method, args, kwargs, timeout, changes))

    def method(self, method: str, changes: Any, _is_async: bool = False) -> Any:
        """What calls a method of it."""
        return lambda *args, **kwargs: self.call(method, args, kwargs, None, changes)


class JobElsewhere:
    """The job, for functions and services that ask how far it is, or ask for its end."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def begun(self) -> JobElsewhere:
        """See ``Run.begun``."""
        return self

    @property
    def state(self) -> str:
        """How far it is."""
        return str(self._link.ask(STATE, None))

    def drain(self) -> None:
        """Ends the sources."""
        self._link.send(STOP, None)


class Calls(ServiceCalls):
    """Calls the services of the job."""

    def __init__(self, job: JobContext, link: Link) -> None:
        super().__init__(job, {})
        self.run: Any = JobElsewhere(link)
        self._link = link
        # Such as after a function has closed the loop's descriptors.
        self.loop.on_failure = leave
        self._threads: ThreadPoolExecutor | None = None
        services: Any = self._handles
        services.update({name: RemoteService(link, name) for name in job.services})
        self.call = caller(services, _call, lambda _, name: ServiceHandle(binding(name)))

    def asynchronous(
        self, name: str, /, *args: Any, method: str | None = None, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """As a call, on another thread: returns a future."""
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor  # few functions need it

            self._threads = ThreadPoolExecutor(_MOST_CALLS, "sage-calls")
        return self._threads.submit(self.call, name, *args, method=method, timeout=timeout, **kwargs)

    def end(self) -> None:
        """Waits for what is under way."""
        if self._threads is not None:
            self._threads.shutdown()


class Printed(io.TextIOBase):
    """Standard output or error: sends whole lines to the job."""

    def __init__(self, link: Link, stream: str) -> None:
        self._link = link
        self._stream = stream
        self._lock = threading.Lock()
        self._begun = ""

    def write(self, text: str) -> int:
        """Writes text."""
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._link.send(LINE, (self._stream, line))
        return len(text)

    def finish(self) -> None:
        """What was begun is a line."""
        if self._begun:
            self.write("\n")

    def writable(self) -> bool:
        """It is."""
        return True


class Logged(logging.Handler):
    """Sends what is logged to the job, whose handlers see to it."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        """Sends a record, as text where it could not be pickled."""
        try:
            told = dict(record.__dict__, msg=record.getMessage(), args=None, exc_info=None)
            if record.exc_info:
                told["exc_text"] = record.exc_text or logging.Formatter().formatException(record.exc_info)
            told = {name: value for name, value in told.items() if isinstance(value, (str, int, float, type(None)))}
            self._link.send(LOG, told)
        except Exception:
            self.handleError(record)


class Main(types.ModuleType):
    """Stands for the main module of the program: it has what records and functions turn out to need of it."""

    def __init__(self, link: Link) -> None:
        super().__init__("__main__")
        self.__dict__["_link"] = link

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        is_there, value = self._link.ask(NAME, name)
        if not is_there:
            raise AttributeError(value.decode())
        found = self.__dict__[name] = pickle.loads(value)
        return found


class Worker:
    """The functions of a replica, and the job that they work for."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._is_ending = False
        #: The first is readable from then on. No lock, which a handler of signals may find taken by its own thread.
        self._ends, self._ended = os.pipe()
        os.set_blocking(self._ended, False)
        self._chain: WorkerChain | None = None
        self._flight: WorkerFlight | None = None
        self._is_judged = False
        self._functions: Any = None
        self._calls: Calls | None = None
        link.forgets = self._forget

    def _forget(self) -> None:
        """In a process that a function has forked off, that function is the last."""
        self._is_ending = True
        if self._chain is not None:
            self._chain.cut()
        if self._flight is not None:
            self._flight.forget()

    def end(self, *_: Any) -> None:
        """The handler of SIGTERM: what is under way is dropped behind the record that is worked on."""
        self._is_ending = True
        with suppress(BlockingIOError):
            os.write(self._ended, b"x")

    def pause(self, seconds: float) -> bool:
        """Between two attempts: says whether all of the time has passed."""
        select.select([self._ends], [], [], min(seconds, threading.TIMEOUT_MAX))
        return not self._is_ending

    def run(self) -> None:
        """Runs until the job says that it is over."""
        self._link.greet()
        while True:
            kind, value = self._link.next()
            if kind == INIT:
                self._begin(value)
            elif kind == BATCH and not self._is_ending:
                (self._work_each if self._is_judged else self._work)(value)
            elif kind == PART and not self._is_ending:
                self._work_part(*value)
            elif kind == FINISH and not self._is_ending:
                assert self._chain is not None, "it has begun"
                self._chain.finish()
                self._work(None)
            elif kind == CLOSE:
                self._close(value)
                return
            elif self._flight is not None:
                self._flight.heed(kind, value)

    def _begin(self, told: dict[str, Any]) -> None:
        sys.path[:] = told["path"]
        for name, level in told["levels"].items():
            logging.getLogger(name or None).setLevel(level)
        failure = None
        try:
            maker = pickle.loads(told["pickled"])
            calls = self._calls = Calls(maker.job, self._link)
            calls.job_id, calls.log_dir = told["job_id"], told["log_dir"]
            functions = maker.make(calls, told["replica"], told["parallelism"], self.pause)
            if isinstance(maker, FlightMaker):
                from ._worker_flight import WorkerFlight  # many workers have none

                self._flight = WorkerFlight(self._link, functions, maker.is_timed)
            else:
                self._functions, self._is_judged = functions, told["is_judged"]
                self._chain = WorkerChain(functions, maker.takes, maker.gives)
        except BaseException as exception:
            failure = packed_exception(exception)
        self._link.send(READY, failure)

    def _work_part(self, record: Any, failure: Any, number: int, is_last: bool) -> None:
        """Works on one record of a batch, or says what the job has told of one that it could not send."""
        if failure is None:
            (self._work_each if self._is_judged else self._work)([record], is_last)
        elif self._is_judged:
            self._link.send(RESULT, ([failure], 0.0 if is_last else None))
        else:
            self._fail(failure, None, number)

    def _fail(self, failure: Any, function: tuple[str, str] | None, number: int | None) -> None:
        """The job fails by this: nothing of what has been sent behind it is worked on."""
        self._is_ending = True
        self._link.send(FAILED, (failure, function, number))

    def _work(self, records: list[Any] | None, is_last: bool = True) -> None:
        assert self._chain is not None, "it has begun"
        begun = time.perf_counter()
        if records is not None:
            self._chain.feed(records)
            del records
        gathered: list[Any] = []
        sent = begun
        while not self._is_ending:
            results, failure = self._chain.work()
            if failure is not None:
                exception, function, record = failure
                self._fail(packed_exception(exception), function, record)
                return
            if results is None:
                self._answer(gathered, time.perf_counter() - begun if is_last else None)
                return
            gathered += results
            now = time.perf_counter()
            if gathered and now - sent > _SOON:
                self._answer(gathered, None)
                gathered, sent = [], now

    def _work_each(self, records: list[Any], is_last: bool = True) -> None:
        """Says what has come of each record."""
        assert self._chain is not None, "it has begun"
        begun, waiting, is_done = time.perf_counter(), iter(records), False
        while not is_done and not self._is_ending:
            outcomes, is_done = self._chain.each(waiting)
            # What is no `Exception` ends the job.
            self._is_ending |= any(not isinstance(each, (list, Exception)) for each in outcomes)
            told = [each if type(each) is list else packed_exception(each) for each in outcomes]
            took = time.perf_counter() - begun if is_done and is_last else None
            try:
                self._link.send(RESULT, (told, took))
            except Exception as error:
                if isinstance(error, (EOFError, OSError)):
                    raise
                # What is one of them too many for a frame goes in several.
                for number, each in enumerate(told, 1):
                    self._link.send(RESULT, ([_sendable(each)], took if number == len(told) else None))

    def _answer(self, results: list[Any], took: float | None) -> None:
        try:
            self._link.send(RESULT, (results, took))
        except Exception as error:
            if isinstance(error, (EOFError, OSError)):
                raise
            told = unsendable(results, error)
            if told is not error or len(results) == 1:
                self._fail(packed_exception(told), None, None)
                return
            # They are too large for one frame together.
            half = len(results) // 2
            self._answer(results[:half], None)
            self._answer(results[half:], took)

    def _close(self, is_whole: bool) -> None:
        told: dict[str, Any] = {"failure": None, "left": None, "nones": {}, "restarts": ({}, [])}
        if self._flight is not None:
            self._flight.end(is_whole)
        self._link.send(CLOSING, None)
        self._chain, chain = None, self._chain
        try:
            if self._flight is not None:
                told["left"] = self._flight.close()
            if chain is not None:
                chain.close()
            if self._functions is not None:
                self._functions.close()
        except BaseException as exception:
            told["failure"] = packed_exception(exception)
        if (calls := self._calls) is not None:
            calls.end()
            told["nones"] = calls.nones.told()[0]
            if calls.restarts is not None:
                told["restarts"] = calls.restarts.told(), calls.restarts.files
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, Printed):
                stream.finish()
        self._link.send(CLOSED, told)
        if self._flight is not None:
            self._flight.over()


#: What has come out goes on after so many seconds, though the batch is not done.
_SOON = 0.005


def _sendable(outcome: Any) -> Any:
    """What has come of a record, as its results or what was raised; that they cannot be pickled, if so."""
    try:
        packed(outcome)
        return outcome
    except Exception as error:
        return packed_exception(unsendable(outcome, error))


def unsendable(results: list[Any], error: Exception) -> Exception:
    """Says which result it is that cannot be pickled."""
    for result in results:
        try:
            packed(result)
        except Exception as exception:
            kind = type(result).__qualname__
            return TypeError(
                f"a result of type `{kind}` cannot be pickled, and so not leave its worker: "
                f"{type(exception).__name__}: {exception}"
            )
    return error


#: That of this process, while it is a worker.
_link: Link | None = None


def _forked() -> None:
    if _link is not None:
        _link.forked()


os.register_at_fork(after_in_child=_forked)


def binding(name: str) -> Any:
    """What calls a service of the job, for handles."""
    assert _link is not None, "it is a worker"
    return RemoteService(_link, name)


@contextmanager
def standing_in(link: Link) -> Iterator[None]:
    """Makes this process the job's: its main module, and where what is printed and logged goes."""
    global _link
    _link, logged = link, Logged(link)
    before = sys.modules["__main__"], sys.argv[:], sys.stdout, sys.stderr
    sys.modules["__main__"], sys.argv[:] = Main(link), [""]
    sys.stdout, sys.stderr = Printed(link, "out"), Printed(link, "err")
    logging.root.addHandler(logged)
    try:
        yield
    finally:
        logging.root.removeHandler(logged)
        sys.modules["__main__"], sys.argv[:], sys.stdout, sys.stderr = before
        _link = None


#: For whoever starts it by hand.
_STRANGER = (
    "sage.worker: a job starts this program itself, with a socket as its standard input; to have functions run in "
    'worker processes, start your own program, with `LocalEnvironment("x", workers="processes")` in it'
)


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def begun(descriptor: int, program: str) -> tuple[Link, Worker | Served]:
    """The socket to the job, and what works for it: ``"service"``, or the functions of a replica."""
    # What functions here run is a part of the job, and not a job of the program that its reaper is told of.
    os.environ.pop("SAGE_JOB_SOCKET", None)
    if program == "service":
        from ._served import Served, ServiceLink  # most workers run functions

        served = ServiceLink(descriptor)
        return served, Served(served)
    link = Link(descriptor)
    return link, Worker(link)


def main() -> None:
    """Runs the worker."""
    if not _is_socket(0):
        print(_STRANGER, file=sys.stderr)
        sys.exit(2)
    die_with_parent()
    descriptor = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    link, works = begun(descriptor, "".join(sys.argv[1:]))
    signal.signal(signal.SIGTERM, works.end if isinstance(works, Worker) else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with standing_in(link):
            works.run()
        # One that was sent before the job said that it is over may come late, and is not what has ended this process.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except EOFError:
        os._exit(1)  # the job's process is gone
    except BaseException:
        leave()
