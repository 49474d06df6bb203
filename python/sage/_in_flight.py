"""Functions that work on several records at a time, on threads; and what those on an event loop have in common with
them: see ``_async``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from ._awaiting import UNAWAITED, UNUSED, refuse
from ._chain import close_all
from ._functions import COLLECTED
from ._job_loop import JobLoop
from ._kinds import FLATMAP, SINK, Kind
from ._sage import Bridge
from ._stacks import where_stuck
from ._threads import joined, started

#: How many threads call a function that is not async, at most.
MOST_THREADS = 256

#: How many of those that are left are told in full.
_MOST_TOLD = 3


@dataclass(frozen=True)
class Flight:
    """How a step works on several records at a time."""

    kind: Kind
    name: str
    #: Counts a result that is no record.
    count_none: Callable[[], int]
    #: How many records are in flight.
    most: int
    #: Whether each has a limited time.
    is_timed: bool
    #: How long calls that were given up may take to end, in seconds, and what a function leaves behind.
    patience: float
    patience_left: float


def method_of(function: Any) -> Callable[[Any], Any]:
    # Of a class with `execute`, an object was made.
    called: Callable[[Any], Any] = function.execute if hasattr(function, "execute") else function
    return called


def told(left: list[str]) -> str:
    more = [f"and {len(left) - _MOST_TOLD} more"] if len(left) > _MOST_TOLD else []
    return "\n".join([*left[:_MOST_TOLD], *more])


def as_it_is(results: list[Any], _record: Any) -> list[Any]:
    return results


def results_of(flight: Flight) -> Callable[[Any, Any], list[Any]]:
    kind = flight.kind
    assert kind.result is not None, "what works on several records at a time is of a kind that has it"
    return partial(_some, flight.count_none, kind.result) if kind.drops_none else kind.result


def _some(
    count_none: Callable[[], int], results: Callable[[Any, Any], list[Any]], result: Any, record: Any
) -> list[Any]:
    if result is None:
        count_none()
        return []
    return results(result, record)


class ThreadRunner:
    """Calls the function of a replica on threads, each for one record at a time.

    The function is made and closed on the task's thread. A call that has taken too long keeps its thread until it
    returns, while another thread takes its place: see ``Bridge``.
    """

    #: For the report, at the end.
    notes: tuple[str, ...] = ()

    def __init__(
        self, flight: Flight, make: Callable[[], Any], loop: JobLoop, anew: Callable[..., Any] | None = None
    ) -> None:
        self.patience = flight.patience
        self._flight = flight
        self._loop = loop
        self._refused = UNUSED if flight.kind is SINK else UNAWAITED
        #: What makes the function anew when it raises, if something does.
        self._replica: Any = None
        if anew is not None:
            from ._restarts import Halt

            self._pause = Halt()
            self._replica = anew(bind=self._bound, pause=self._pause)
        self._function = make() if anew is None else self._replica.begin()
        self.bridge = Bridge(min(flight.most, MOST_THREADS))
        #: That of the task's thread: what the program had set when it submitted the job.
        self._context = copy_context()
        self._guard = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._inside: set[threading.Thread] = set()
        self._start()

    def _start(self) -> None:
        with self._guard:
            for thread in self._threads:
                if not thread.is_alive():
                    joined(thread)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(started(self._run, f"sage-{self._flight.name}"))

    def _run(self) -> None:
        self._context.copy().run(self._work)

    def _work(self) -> None:
        bridge = self.bridge
        if self._replica is None:
            results, call = results_of(self._flight), method_of(self._function)
        else:
            results, call = as_it_is, partial(self._replica.run, 0)
        thread = threading.current_thread()
        while (taken := bridge.next()) is not None:
            number, record, is_last = taken
            if is_last:
                try:
                    self._start()
                except RuntimeError:  # the system gives no more
                    bridge.not_started()
            self._inside.add(thread)
            try:
                collected: list[Any] = []
                COLLECTED.set(collected)
                # What was returned is gone through here, as a generator does its work then.
                answer = [*results(self._checked(call(record)), record)]
                answer = self._with(collected, answer)
            except BaseException as exception:  # whatever it is, the engine has to hear of it
                self._inside.discard(thread)
                bridge.failed(number, exception)
            else:
                self._inside.discard(thread)
                bridge.done(number, answer)
                del answer
            del taken, record, collected

    def _with(self, collected: list[Any], returned: list[Any]) -> list[Any]:
        return [*collected, *returned] if collected and self._flight.kind is FLATMAP else returned

    def _checked(self, returned: Any) -> Any:
        if type(returned) in self._refused:
            raise refuse(self._flight.name, returned)
        return returned

    def _bound(self, function: Any) -> list[Callable[[Any], list[Any]]]:
        """What gives all that goes on of a record."""
        results, call = results_of(self._flight), method_of(function)

        def answer(record: Any) -> list[Any]:
            collected: list[Any] = []
            COLLECTED.set(collected)
            return self._with(collected, [*results(self._checked(call(record)), record)])

        return [answer]

    @property
    def has_pauses(self) -> bool:
        """Whether something waits to be tried again, and is to be told of a drain."""
        return self._replica is not None

    def hurry(self) -> None:
        """The job is drained: what waits to be tried again is tried at once."""
        self._pause.hurry()

    def begin_close(self, _is_cancelled: bool) -> float:
        """Ends the threads that are in no call. Returns how long to wait for the others, in seconds."""
        if self._replica is not None:
            self._pause.cancel()
            self._replica.stop()
        self.bridge.close()
        return self.patience

    def finish_close(self) -> str | None:
        """Closes the function. Returns a description of the work that has not ended, if any."""
        with self._guard:
            stuck = [thread for thread in self._threads if thread in self._inside]
            ended = [thread for thread in self._threads if thread not in stuck]
            self._threads = stuck
        for thread in ended:
            joined(thread)
        left = [f"a call has not returned; its thread is left, here:\n{where_stuck(t.ident or 0)}" for t in stuck]
        if self._replica is not None:
            self._replica.close()
        elif hasattr(self._function, "execute"):
            close_all([self._function], self._loop)
        return told(left) if left else None

    def blocked(self) -> str:
        """Threads never block the others."""
        return ""
