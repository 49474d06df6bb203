"""Functions with a state for each key and with timers, on one stream or on several."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from ._arguments import millis
from ._awaiting import check_hook
from ._chain import close_all
from ._functions import BaseFunction
from ._job_loop import JobLoop
from ._keywords import spell


class Timer(NamedTuple):
    """A moment at which ``on_timer`` is called.

    >>> Timer(at=60.0, clock=False)
    Timer(at=60.0, clock=False)
    """

    #: In seconds since 1970.
    at: float
    #: Whether it follows the clock, and not the times of records.
    clock: bool


class KeyContext:
    """The context of ``on_record`` and ``on_timer``: the key, its state and its timers, and the output.

    >>> class Number(ProcessFunction):
    ...     def on_record(self, record, key):
    ...         key.state = (key.state or 0) + 1
    ...         key.push((key.key, key.state))
    >>> env = LocalEnvironment("numbers")
    >>> numbers = env.from_batch(["tea", "pot", "tea"]).keyby(lambda word: word).process(Number).collect()
    >>> job = env.submit(autostop=True)
    >>> numbers
    [('tea', 1), ('pot', 1), ('tea', 2)]
    """

    def __init__(self, state: Any, key: Any, now: int, watermark: int) -> None:
        #: The state of the key: ``None`` for a new key. Set it, and the next call finds the new state.
        self.state = state
        #: The key.
        self.key = key
        #: The time now, by the clock, in seconds since 1970.
        self.now = now / 1000
        #: Every record before this moment has come, in seconds since 1970; ``None`` before the first such moment.
        self.watermark = None if watermark == -(1 << 63) else watermark / 1000
        self._wishes: list[tuple[Any, ...]] = []
        self._forget = False

    def push(self, record: Any) -> None:
        """Sends a record on.

        >>> class Twice(ProcessFunction):
        ...     def on_record(self, record, key):
        ...         key.push(record)
        ...         key.push(record)
        >>> env = LocalEnvironment("twice")
        >>> records = env.from_batch([1]).keyby(abs).process(Twice).collect()
        >>> job = env.submit(autostop=True)
        >>> records
        [1, 1]
        """
        self._wishes.append((record,))

    def set_timer(self, at: float | datetime, *, clock: bool = False) -> None:
        """Sets a timer: ``on_timer`` is called when every record before ``at`` has come; with ``clock``, when the clock
        reaches ``at``. ``at`` is in seconds since 1970, or a ``datetime``. At the end of input all timers fire.

        >>> class LastOfMinute(ProcessFunction):
        ...     def on_record(self, second, key):
        ...         key.state = second
        ...         key.set_timer(second // 60 * 60 + 60)
        ...     def on_timer(self, timer, key):
        ...         key.push((timer.at, key.state))
        >>> env = LocalEnvironment("minutes")
        >>> seconds = env.from_batch([5, 30, 70]).with_timestamps(lambda second: second)
        >>> last = seconds.keyby(lambda second: second // 60).process(LastOfMinute).collect()
        >>> job = env.submit(autostop=True)
        >>> last
        [(60.0, 30), (120.0, 70)]
        """
        self._wishes.append((True, millis(at), clock))

    def cancel_timer(self, at: float | datetime, *, clock: bool = False) -> None:
        """Cancels a timer.

        >>> class Silence(ProcessFunction):
        ...     def on_record(self, second, key):
        ...         if key.state is not None:
        ...             key.cancel_timer(key.state)
        ...         key.state = second + 60
        ...         key.set_timer(key.state)
        ...     def on_timer(self, timer, key):
        ...         key.push(f"silent since {timer.at - 60:g}")
        >>> env = LocalEnvironment("silence")
        >>> seconds = env.from_batch([5, 30]).with_timestamps(lambda second: second).keyby(lambda second: "all")
        >>> told = seconds.process(Silence).collect()
        >>> job = env.submit(autostop=True)
        >>> told
        ['silent since 30']
        """
        self._wishes.append((False, millis(at), clock))

    def forget(self) -> None:
        """Forgets the state of the key, and cancels its timers.

        >>> class Pairs(ProcessFunction):
        ...     def on_record(self, record, key):
        ...         if key.state is None:
        ...             key.state = record
        ...         else:
        ...             key.push((key.state, record))
        ...             key.forget()
        >>> env = LocalEnvironment("pairs")
        >>> pairs = env.from_batch([1, 2, 3, 4]).keyby(lambda n: "all").process(Pairs).collect()
        >>> job = env.submit(autostop=True)
        >>> pairs
        [(1, 2), (3, 4)]
        """
        self._forget = True


class ProcessFunction(BaseFunction):
    """A function that is called for each record of a keyed stream, and for each timer that was set.

    >>> class Changes(ProcessFunction):
    ...     def on_record(self, record, key):
    ...         if record != key.state:
    ...             key.push(record)
    ...         key.state = record
    >>> env = LocalEnvironment("changes")
    >>> changes = env.from_batch([1, 1, 2, 1]).keyby(lambda n: "all").process(Changes).collect()
    >>> job = env.submit(autostop=True)
    >>> changes
    [1, 2, 1]
    """

    def on_record(self, record: Any, key: KeyContext) -> None:
        """Called for a record. Override it."""
        raise NotImplementedError(f"{type(self).__name__} has no `on_record`")

    def on_timer(self, timer: Timer, key: KeyContext) -> None:
        """Called when a timer fires. Override it if you set timers."""
        raise NotImplementedError(f"{type(self).__name__} sets timers and has no `on_timer`")


class CoProcessFunction(BaseFunction):
    """A function that is called for each record of connected streams with keys, and for each timer that was set.

    All the streams share the state of a key. A record of stream N goes to ``on_recordN(record, key)``. A subclass has
    such a method for each of its streams, from 0.

    >>> class Known(CoProcessFunction):
    ...     def on_record0(self, name, key):
    ...         key.state = True
    ...     def on_record1(self, name, key):
    ...         key.push((name, bool(key.state)))
    >>> env = LocalEnvironment("known")
    >>> names, asked = env.from_batch(["ada"]), env.from_batch(["ben"])
    >>> told = names.connect(asked).keyby(lambda name: name).coprocess(Known).collect()
    >>> job = env.submit(autostop=True)
    >>> told
    [('ben', False)]
    """

    def on_timer(self, timer: Timer, key: KeyContext) -> None:
        """Called when a timer fires. Override it if you set timers."""
        raise NotImplementedError(f"{type(self).__name__} sets timers and has no `on_timer`")


#: The next state, what is to be done, and whether the key is to be forgotten.
Done = tuple[Any, list[tuple[Any, ...]], bool]


class Runner:
    """Calls the function of a replica for the engine."""

    def __init__(self, function: Any, streams: int, loop: JobLoop) -> None:
        self._function = function
        self._loop = loop
        is_connected = isinstance(function, CoProcessFunction)
        self._take: Callable[[Any, KeyContext], Any] = _taker(function, streams) if is_connected else function.on_record

    def record(self, state: Any, key: Any, now: int, watermark: int, record: Any) -> Done:
        """Takes a record."""
        context = KeyContext(state, key, now, watermark)
        try:
            returned = self._take(record, context)
        except TypeError as error:
            spell(error, KeyContext)
            raise
        check_hook(f"{type(self._function).__name__}.on_record", returned)
        return context.state, context._wishes, context._forget

    def timer(self, state: Any, key: Any, now: int, watermark: int, timer: tuple[int, bool]) -> Done:
        """Takes a timer."""
        context = KeyContext(state, key, now, watermark)
        at, clock = timer
        try:
            returned = self._function.on_timer(Timer(at / 1000, clock), context)
        except TypeError as error:
            spell(error, KeyContext)
            raise
        check_hook(f"{type(self._function).__name__}.on_timer", returned)
        return context.state, context._wishes, context._forget

    def close(self) -> None:
        """Closes the function."""
        close_all([self._function], self._loop)


def _taker(function: CoProcessFunction, streams: int) -> Callable[[Any, KeyContext], Any]:
    """What takes a record of connected streams, which comes with its key and the number of its stream."""
    methods = [getattr(function, f"on_record{index}") for index in range(streams)]

    def take(tagged: tuple[Any, int, Any], context: KeyContext) -> Any:
        _key, index, record = tagged
        return methods[index](record, context)

    return take
