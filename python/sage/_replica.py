"""Functions that are made anew when they raise, where a job has ``fault_tolerance``.

A replica of a function is what fails and is replaced: the object that raised is closed, its calls over, and a new one
takes its place after the delay and gets the same record. Nothing else of a chain is touched: what the functions before
it made of the record is there, in the loop. What a function gives for a record goes on when it has succeeded, so the
results of a flatmap are gathered first.

Of a callable no other one can be made: it is called again. A step's ``retry`` comes first and calls the same object;
its ``on_error`` comes last.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from ._checkpoints import Checkpoint, not_kept
from ._faults import Faults
from ._made import is_function_class
from ._kinds import Part
from ._policies import Retry
from ._restarts import Restarts
from ._sage import Cancelled, NotAwaited, StateNotKept

if TYPE_CHECKING:
    from ._context import JobContext

#: What is no failure of a record, and fails the job.
FATAL = (NotAwaited, StateNotKept)


@dataclass(eq=False)
class Made:
    """An object of a function, what is called of it, and how many calls are under way."""

    function: Any
    calls: list[Callable[..., Any]]
    inside: int = 0
    is_old: bool = False


class Attempts:
    """What was tried for one record: calls, and new objects that could not be made. An exception that leaves a ``with``
    of it tells the engine how often. It is fatal where no object is there any more: that is no fault of this record."""

    def __init__(self, replica: Replica) -> None:
        self.count = 0
        #: Whether the next is the last, as the job is drained.
        self.is_last = False
        self._replica = replica

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, exception: Any, _trace: object) -> None:
        if kind is None or not issubclass(kind, Exception):
            return
        with suppress(Exception):  # a class may refuse to have an attribute set
            if self._replica.made is None:
                exception._sage_is_fatal = True
            if self.count > 1:
                exception._sage_attempts = self.count


@dataclass(eq=False)
class Replica:
    """The function of one replica, and those that take its place."""

    part: Part
    job: JobContext
    restarts: Restarts
    number: int
    retry: Retry | None
    #: Makes an object of the function, ready for use; says what is called of it; ends it.
    make: Callable[[], Any]
    bind: Callable[[Any], list[Callable[..., Any]]]
    end: Callable[[Any], Any]
    pause: Callable[[float], Any]
    made: Made | None = None
    #: Why there is none.
    _broken: BaseException | None = None
    _failures: list[float] = field(default_factory=list)
    #: Those that still have calls under way; what the end of others raised.
    _old: list[Made] = field(default_factory=list)
    _errors: list[BaseException] = field(default_factory=list)
    _checkpoint: Checkpoint | None = None
    #: How many records there were, and how many of them since the last checkpoint; when the next one is due.
    _records: int = 0
    _since: int = 0
    _due: float = 0.0
    _keeps_state: bool = False
    _is_busy: bool = False
    _is_over: bool = False
    _change: threading.Condition = field(default_factory=threading.Condition)

    @property
    def name(self) -> str:
        """That of its step."""
        return self.part.name

    @property
    def faults(self) -> Faults:
        """What becomes of it."""
        assert self.job.faults is not None, "only a job that has them makes replicas"
        return self.job.faults

    @property
    def logger(self) -> logging.Logger:
        """That of its step."""
        return self.job.logger.getChild(self.name)

    def begin(self) -> Any:
        """Makes the first object, and returns it."""
        self.made = self._bound(self.make())
        return self.made.function

    def _bound(self, function: Any) -> Made:
        kept = self.faults.checkpoints
        is_class = is_function_class(self.part.made[0])
        self._keeps_state = is_class and callable(getattr(function, "get_state", None))
        if kept is not None and self._checkpoint is None and self._keeps_state:
            if not callable(getattr(function, "restore_state", None)):
                raise TypeError(f"`{type(function).__name__}` has `get_state` and no `restore_state`")
            self._checkpoint = Checkpoint(kept.folder, self.job.environment, self.name, self.number)
        return Made(function, self.bind(function))

    # Failures.

    def failed(self, exception: BaseException, is_last: bool = False) -> float:
        """The function, or the making of a new one, has raised: returns how long to wait for the next. Raises the
        exception if there is to be none."""
        self._failures.append(monotonic())
        delay = None if is_last else self.faults.delay(self._failures)
        if delay is None:
            raise exception
        again = "a new instance takes over" if is_function_class(self.part.made[0]) else "it is called again"
        self.logger.warning("%s: %s; %s in %g s", type(exception).__name__, exception, again, delay)
        return delay

    def not_made(self, exception: BaseException, attempts: Attempts) -> float:
        """As ``failed``, of the making of a new one for a record."""
        attempts.count += 1
        self._broken = exception
        return self.failed(exception, attempts.is_last)

    def retire(self, exception: BaseException) -> Made | None:
        """There is no object any more. Returns the one to be ended, unless it has calls under way."""
        made, self.made, self._broken = self.made, None, exception
        self.restarts.count(self.name, lost=self._since)
        self._since = 0
        if made is None:
            return None
        made.is_old = True
        self._old.append(made)
        return made if made.inside == 0 else None

    def took_over(self, function: Any) -> None:
        """A new object is there, with its state."""
        if self._is_over:
            raise Cancelled("the job is over")
        self.made, self._broken = self._bound(function), None
        self.restarts.count(self.name, restarts=1)

    def state(self) -> dict[Any, Any] | None:
        """What a new object is given; ``None`` if nothing was kept."""
        return None if self._checkpoint is None else self._checkpoint.state()

    def noted(self, made: Made, error: BaseException) -> None:
        """The end of an object that was replaced has raised: the job is told at its end."""
        self._errors.append(error)
        self.logger.error("the end of an instance that was replaced has failed", exc_info=error)

    def forget(self, made: Made) -> bool:
        """Says whether an object is still to be ended, and that it is from here on."""
        if made not in self._old:
            return False
        self._old.remove(made)
        return True

    def raise_errors(self) -> None:
        """Raises what the ends of those that were replaced have raised."""
        errors, self._errors = self._errors, []
        if len(errors) > 1:
            told = "; ".join(f"{type(error).__name__}: {error}" for error in errors)
            raise RuntimeError(f"instances that were replaced have failed at their end: {told}") from errors[0]
        if errors:
            raise errors[0]

    # States.

    def done(self, made: Made) -> None:
        """A record was worked on."""
        if not self._keeps_state:
            return
        self._records += 1
        if made is self.made:
            self._since += 1
        else:
            self.restarts.count(self.name, lost=1)

    def is_due(self) -> bool:
        """Whether the state is to be kept now."""
        return self._checkpoint is not None and self._since > 0 and monotonic() >= self._due

    def kept(self, state: Any) -> None:
        """Keeps it."""
        if self._checkpoint is not None:
            self.restarts.wrote(self._checkpoint.path)
            self._checkpoint.keep(state, self._records)
            self._since = 0
            self.postpone()

    def postpone(self) -> None:
        """The next state is due after the interval."""
        assert self.faults.checkpoints is not None, "it has a checkpoint"
        self._due = monotonic() + self.faults.checkpoints.interval

    @property
    def patience(self) -> float:
        """How long a call that was given up is waited for before a state is kept, in seconds."""
        return self.job.timeouts.cancel

    # On a thread, or on several.

    def run(self, index: int, *arguments: Any) -> Any:
        """Calls one of the calls, of whichever object is there, until it succeeds or no more is to be made."""
        attempts = Attempts(self)
        while True:
            made = self._enter()
            try:
                result = self._tried(made.calls[index], arguments, attempts)
            except FATAL:
                self._leave(made)
                raise
            except Exception as exception:
                self._leave(made)
                with attempts:
                    self._replace(made, exception, attempts)
            except BaseException:
                self._leave(made)
                raise
            else:
                self._leave(made, is_done=index == 0)
                return result

    def _tried(self, call: Callable[..., Any], arguments: tuple[Any, ...], attempts: Attempts) -> Any:
        """Calls it as often as the step's retry says."""
        failures, is_last = 0, self.retry is None
        while True:
            attempts.count += 1
            try:
                return call(*arguments)
            except Exception as exception:
                failures += 1
                if is_last or not self.is_retried(exception, failures):
                    raise
            is_last = not self.pause(self.wait(failures))

    def is_retried(self, exception: BaseException, failures: int) -> bool:
        """Whether the same object is called again after so many failures."""
        retry = self.retry
        if retry is None or failures >= retry.attempts or isinstance(exception, FATAL):
            return False
        if not isinstance(exception, retry.on):
            return False
        self.restarts.count(self.name, retries=1)
        return True

    def wait(self, failures: int) -> float:
        """How long to wait after so many failures, before the same object is called again."""
        assert self.retry is not None, "only a step that has one asks"
        return min(self.retry.first * 2.0 ** min(failures - 1, 1000), self.retry.longest)

    def _enter(self) -> Made:
        with self._change:
            self._change.wait_for(lambda: not self._is_busy)
            if self.is_due() and self.made is not None:
                made, self._is_busy = self.made, True
                try:
                    self._change.wait_for(lambda: made.inside == 0 or self._is_over, self.patience)
                    if made.inside == 0:
                        self.keep()
                    else:
                        self.postpone()
                finally:
                    self._is_busy = False
                    self._change.notify_all()
            if self.made is None:
                assert self._broken is not None, "it was made, or has failed"
                raise self._broken
            self.made.inside += 1
            return self.made

    def keep(self) -> None:
        """Keeps the state of the object, which nobody calls just now."""
        if self.made is None:
            return
        try:
            state = self.made.function.get_state()
        except Exception as error:
            raise not_kept(self.name, error) from error
        self.kept(state)

    def _leave(self, made: Made, is_done: bool = False) -> None:
        with self._change:
            made.inside -= 1
            if is_done:
                self.done(made)
            ends = made.is_old and made.inside == 0
            self._change.notify_all()
        if ends:
            self._end_old(made)

    def _replace(self, made: Made, exception: BaseException, attempts: Attempts) -> None:
        """Has a new object take the place of one that raised. Raises the exception if there is to be none."""
        with self._change:
            self._change.wait_for(lambda: not self._is_busy)
            if made is not self.made:
                # The failure of another record has had it replaced.
                if attempts.is_last:
                    raise exception
                return
            delay = self.failed(exception, attempts.is_last)
            self._is_busy = True
            ended = self.retire(exception)
        try:
            if ended is not None:
                self._end_old(ended)
            for rest in self.renewals(delay, attempts):
                attempts.is_last = not self.pause(rest)
        finally:
            with self._change:
                self._is_busy = False
                self._change.notify_all()

    def renewals(self, delay: float, attempts: Attempts) -> Iterator[float]:
        """Makes a new object after each of these delays, until one could be made. Raises if that was the last."""
        while True:
            yield delay
            try:
                return self.renew()
            except Exception as exception:
                delay = self.not_made(exception, attempts)

    def renew(self) -> None:
        """Makes a new object, and gives it the state that was kept."""
        function = self.make()
        try:
            if (state := self.state()) is not None:
                function.restore_state(state)
            self.took_over(function)
        except BaseException:
            with suppress(Exception):  # what failed first is what is told
                self.end(function)
            raise

    def _end_old(self, made: Made) -> None:
        with self._change:
            if not self.forget(made):
                return
        try:
            self.end(made.function)
        except Exception as error:
            self.noted(made, error)

    def end_old(self) -> None:
        """Ends what was replaced, where its calls are over."""
        for made in [made for made in self._old if made.inside == 0]:
            self._end_old(made)

    def stop(self) -> None:
        """The job is over, or being cancelled: nothing is waited for any more."""
        with self._change:
            self._is_over = True
            self._change.notify_all()

    def close(self) -> None:
        """Ends the object that is there, and those that still have calls under way."""
        self._is_over = True
        for made in list(self._old):
            self._end_old(made)
        last, self.made = self.made, None
        try:
            if last is not None:
                self.end(last.function)
        finally:
            self.raise_errors()
