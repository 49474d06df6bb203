"""Methods of services that answer requests together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import update_wrapper
from inspect import iscoroutinefunction
from typing import Any, Generic, NamedTuple, TypeVar, overload

from ._arguments import seconds, whole
from ._keywords import spelt

S = TypeVar("S")
Q = TypeVar("Q")
R = TypeVar("R")
A = TypeVar("A")


class Batching(NamedTuple):
    """How requests are put together: see ``batch.rs``."""

    size: int
    within: float
    most_cost: int | None
    cost: Callable[[Any], int] | None


class Together(Generic[Q, A]):
    """Such a method of an object. A call has one request; ``together`` answers several."""

    def __init__(self, together: Callable[[list[Q]], Any], batching: Batching) -> None:
        self.together = together
        self.batching = batching
        update_wrapper(self, together)

    def __call__(self, request: Q, /) -> A:
        """Answers one request, where no engine is there that puts several together."""
        answered: Any
        if iscoroutinefunction(self.together):
            answered = self._awaited(request)
        else:
            answered = _only(self.__name__, self.together([request]))  # type: ignore[attr-defined]
        return answered  # type: ignore[no-any-return]

    async def _awaited(self, request: Q) -> Any:
        return _only(self.__name__, await self.together([request]))  # type: ignore[attr-defined]


def _only(name: str, answers: Any) -> Any:
    answers = list(answers)
    if len(answers) != 1:
        raise ValueError(f"`{name}` gave {len(answers)} answers to a batch of 1 request")
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


class BatchMethod(Generic[S, Q, A]):
    """A method that ``batched`` has made."""

    def __init__(self, function: Callable[[S, list[Q]], Any], batching: Batching) -> None:
        self.batching = batching
        self._function = function
        update_wrapper(self, function)

    def __set_name__(self, owner: type, name: str) -> None:
        self.__name__ = name

    def __call__(self, instance: S, request: Q, /) -> A:
        """As a call of the method of this object."""
        made: Together[Q, A] = self.__get__(instance)
        return made(request)

    @overload
    def __get__(self, instance: None, owner: type) -> BatchMethod[S, Q, A]: ...
    @overload
    def __get__(self, instance: S, owner: type | None = None) -> Together[Q, A]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return Together(self._function.__get__(instance), self.batching)


class _Decorator:
    def __init__(self, batching: Batching) -> None:
        self._batching = batching

    @overload
    def __call__(
        self, function: Callable[[S, list[Q]], Awaitable[Sequence[R | Exception]]]
    ) -> BatchMethod[S, Q, Awaitable[R]]: ...
    @overload
    def __call__(self, function: Callable[[S, list[Q]], Sequence[R | Exception]]) -> BatchMethod[S, Q, R]: ...
    def __call__(self, function: Any) -> Any:
        if not callable(function):
            raise TypeError(f"`batched` is for a method that takes a list of requests, not {function!r}")
        return BatchMethod(function, self._batching)


@spelt
def batched(
    size: int, *, within: float = 0.01, cost: Callable[[Any], int] | None = None, most_cost: int | None = None
) -> _Decorator:
    """Makes a method of a service answer requests together. The method takes a list of requests and returns as many
    answers in their order; its callers call it with one request, and get one answer.

    A batch has at most ``size`` requests: 1 or more. It is sent when it is full, or ``within`` seconds after its first
    request came (default: 0.01; 0: at once, with what has come meanwhile). With ``most_cost``, its requests cost no
    more than that together; ``cost`` says of a request what it costs, a whole number from 0 on (default: 1). A request
    that costs more goes alone.

    An exception among the answers is raised in the caller of that request alone. If the method raises, each caller gets
    that; where the policy's ``judge`` says that it means ``"bad"``, the batch is cut in halves until it is known which
    request is at fault. A batch that is not answered within the policy's ``timeout`` is not sent again. Requests come
    from all functions of the job that call the service. Outside of a job, a call is a batch of one. The method may be
    an ``async def``.

    >>> class Embedder(Service):
    ...     @batched(64, within=0.02)
    ...     def embed(self, texts: list[str]) -> list[int]:
    ...         return [len(text) for text in texts]
    >>> env = LocalEnvironment("embedded")
    >>> embedder = env.service("embedder", Embedder)
    >>> sizes = env.from_batch(["one", "three"]).map(embedder.embed, in_flight=8).collect()
    >>> job = env.submit(autostop=True)
    >>> sizes
    [3, 5]
    """
    if callable(size):
        raise TypeError("`batched` needs the size of a batch: write `@batched(64)`")
    size = whole("the size of a batch", size)
    within = seconds("`within` of a batch", within)
    if most_cost is not None:
        most_cost = whole("`most_cost` of a batch", most_cost)
        if cost is None:
            raise ValueError("`most_cost` of a batch needs `cost`, which says of a request what it costs")
    if cost is not None and not callable(cost):
        raise TypeError(f"`cost` of a batch is a function of a request, not {cost!r}")
    return _Decorator(Batching(size, within, most_cost, cost))


def batch_methods(cls: Any) -> list[str]:
    """The names of such methods of a class."""
    if not isinstance(cls, type):
        return []
    return [name for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, BatchMethod)]
