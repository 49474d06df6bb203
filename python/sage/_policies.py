"""Error policies: what happens to records on which a function raises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ._arguments import parameters, said, seconds, whole
from ._keywords import spelt

if TYPE_CHECKING:
    from ._stream import DataStream


@spelt
@dataclass(frozen=True)
class Skip:
    """Skips the records on which a function raises an ``Exception``. The report counts them.

    The job fails when one replica would skip more than ``at_most`` records, or has skipped more than the share
    ``at_most_share`` (0.0 to 1.0). Default: no limit.

    >>> env = LocalEnvironment("numbers")
    >>> numbers = env.from_batch(["1", "two", "3"]).map(int, on_error=Skip(at_most=10)).collect()
    >>> job = env.submit(autostop=True)
    >>> numbers
    [1, 3]
    """

    at_most: int | None = None
    at_most_share: float | None = None


@spelt
@dataclass(frozen=True)
class Retry:
    """Calls a function again with a record on which it raised: ``attempts`` times in all (1 or more), ``first`` seconds
    after the first failure, then twice as long each time, ``longest`` seconds at most. When the last attempt fails,
    ``on_error`` applies.

    ``on`` is the class of exceptions after which it is called again, or a tuple of classes, such as ``(TimeoutError,
    ConnectionError)``. Any other exception ends the attempts. Default: ``Exception``. ``SystemExit`` and
    ``KeyboardInterrupt``, which are not an ``Exception``, fail the job at once, whatever ``retry`` and ``on_error``
    say.

    >>> answers = iter([TimeoutError(), "hello"])
    >>> def ask(question):
    ...     answer = next(answers)
    ...     if isinstance(answer, Exception):
    ...         raise answer
    ...     return answer
    >>> env = LocalEnvironment("asked")
    >>> told = env.from_batch(["who?"]).map(ask, retry=Retry(3, first=0.01, on=TimeoutError)).collect()
    >>> job = env.submit(autostop=True)
    >>> told
    ['hello']
    """

    attempts: int = 3
    first: float = 0.1
    longest: float = 10.0
    on: type[Exception] | tuple[type[Exception], ...] = Exception


class DeadLetterQueue:
    """Sends the records on which a function raises to another place, each as a ``Letter``. The job goes on.

    ``to`` is the path of a file, to which each letter is appended as a line of JSON, whatever its record is.
    ``read_letters`` reads the file; only its owner can read a new file. Or ``to`` is a sink: a function, or a
    ``SinkFunction`` class with the arguments of its constructor. Without ``to``, the letters are a stream, ``letters``:

    >>> from sage import LocalEnvironment
    >>> env = LocalEnvironment("numbers")
    >>> dead = DeadLetterQueue()
    >>> numbers = env.from_batch(["1", "two"]).map(int, on_error=dead).collect()
    >>> words = dead.letters.map(lambda letter: letter.record).collect()
    >>> _ = env.submit(autostop=True)
    >>> numbers, words
    ([1], ['two'])
    """

    def __init__(
        self, to: str | PathLike[str] | Callable[..., Any] | None = None, *args: Any, **kwargs: Any
    ) -> None:
        self._streams: list[DataStream[Any]] = []
        self._given, self.to = to, cast(Any, None)
        if to is None and not args and not kwargs:
            return
        if not callable(to) and not isinstance(to, (str, PathLike)):
            raise TypeError(f"dead letters go to the path of a file, a function or a SinkFunction class, not to {to!r}")
        self.args: tuple[Any, ...] = args
        self.kwargs = kwargs
        self.to = to
        if not callable(to):
            from ._letters import LetterFile  # here, as few programs need it

            self.to, self.args = LetterFile, (fspath(to),)

    def __repr__(self) -> str:
        return "<DeadLetterQueue>" if self._given is None else f"<DeadLetterQueue to {said(self._given)}>"

    @property
    def letters(self) -> DataStream[Any]:
        """The letters of all operators that have this as their ``on_error``, as a stream. It must end in a sink.

        Only for a queue without ``to``, and only after those operators were declared.

        >>> env = LocalEnvironment("numbers")
        >>> dead = DeadLetterQueue()
        >>> numbers = env.from_batch(["1", "two"]).map(int, on_error=dead).collect()
        >>> words = dead.letters.map(lambda letter: letter.record).collect()
        >>> job = env.submit(autostop=True)
        >>> words
        ['two']
        """
        from ._connected import ConnectedStreams

        if self.to is not None:
            raise ValueError("these dead letters go to `to`; a DeadLetterQueue without `to` has a stream of them")
        if not self._streams:
            raise ValueError("no operator has this DeadLetterQueue as its `on_error` yet, so there are no letters")
        first, *others = self._streams
        letters = ConnectedStreams(first._environment, [first])
        for other in others:
            letters = letters.connect(other)
        return letters._merged()


#: The older name, which programs use.
DeadLetter = DeadLetterQueue

#: Keywords that say how an operator runs, unless the constructor of its class has one of that name.
OPTIONS = ("on_error", "retry", "in_flight", "ordered", "timeout", "workers", "on_worker_loss", "ray")


def split_options(function: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Takes the keywords that are options of the operator out of those for the constructor, and returns them."""
    if kwargs.keys().isdisjoint(OPTIONS):
        return {}
    own = parameters(function) if isinstance(function, type) else {}
    return {name: kwargs.pop(name) for name in OPTIONS if name in kwargs and name not in own}


class Policy(NamedTuple):
    """The engine's policy for a record that fails by itself."""

    retry: Retry | None = None
    skip: Skip | None = None
    letters: bool = False

    def __bool__(self) -> bool:
        return any(self)


#: Of most steps: the first exception fails the job.
FAIL = Policy()


def retried(retry: Any) -> Retry | None:
    """The ``Retry`` that a number of attempts or a ``Retry`` is, checked."""
    if retry is None:
        return None
    if isinstance(retry, int) and not isinstance(retry, bool):
        retry = Retry(retry)
    if not isinstance(retry, Retry):
        raise TypeError(f"`retry` is a number of attempts or a Retry, not {retry!r}")
    attempts = whole("`attempts` of a Retry, which makes at least one attempt,", retry.attempts, 1, (1 << 32) - 1)
    first = seconds("`first` of a Retry", retry.first)
    longest = seconds("`longest` of a Retry, which is not less than its `first`,", retry.longest, first)
    classes = retry.on if isinstance(retry.on, tuple) else (retry.on,)
    if not classes or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in classes):
        raise TypeError(f"`on` of a Retry is a class of exceptions or a tuple of them, not {retry.on!r}")
    return Retry(attempts, first, longest, classes)


def policy(options: dict[str, Any]) -> tuple[Policy, DeadLetterQueue | None]:
    """The engine's policy from the options ``on_error`` and ``retry``, and the place of dead letters."""
    if not options:
        return FAIL, None
    retry = retried(options.get("retry"))
    on_error = options.get("on_error", "fail")
    if on_error == "skip":
        on_error = Skip()
    if isinstance(on_error, Skip):
        most, share = on_error.at_most, on_error.at_most_share
        if most is not None:
            most = whole("`at_most` of a Skip", most, 0)
        if share is not None and (isinstance(share, (bool, str)) or not 0 <= share <= 1):
            raise ValueError(f"`at_most_share` of a Skip is a share from 0.0 to 1.0, not {share!r}")
        return Policy(retry, Skip(most, None if share is None else float(share))), None
    if isinstance(on_error, DeadLetterQueue):
        return Policy(retry, letters=True), on_error
    if on_error != "fail":
        hint = f"; write `{on_error.__name__}()`" if on_error in (Skip, DeadLetterQueue) else ""
        raise ValueError(f'`on_error` is "fail", "skip", a Skip or a DeadLetterQueue, not {on_error!r}{hint}')
    return Policy(retry), None
