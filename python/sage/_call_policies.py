"""The policy of a service's calls: its settings, what an exception means to it, and what the engine needs of asyncio.
See ``crates/sage-python/src/call_policy``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields
from inspect import iscoroutinefunction
from math import isfinite
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ._arguments import said, seconds, text, whole
from ._batched import Batching, Together
from ._handles import ServiceHandle
from ._keep import Journal, Keeping, journal_of, kept
from ._keywords import spelt
from ._policies import Retry, retried
from ._services import takes_key
from ._spends import Spend, spends, used

if TYPE_CHECKING:
    from ._job_loop import JobLoop
    from ._sage import Late, PolicyCall

#: The moment by which the code at hand has to answer, on an event loop: set by the engine.
DEADLINE: ContextVar[Any] = ContextVar("sage_deadline", default=None)


@spelt
@dataclass(frozen=True)
class Breaker:
    """After which failures calls of a service raise ``ServiceRefused`` at once, for a while: when so many ``failures``
    in a row were met (1 to 100,000); or else when a ``share`` (above 0, 1 at most; default: 0.5) or more of the last
    calls failed. Of those it counts ``of_last`` (default: 20), and opens only once ``at_least`` were counted (default:
    half of them). An answer that the request is at fault, or that the service has too much to do, is no failure.

    It stays open for ``open_for`` seconds (more than 0; default: 30). Then it lets ``probes`` calls through (1 or more;
    default: 3), and closes when all have succeeded. One that fails opens it again.

    >>> env = LocalEnvironment("careful")
    >>> prices = env.service("prices", dict, [{"tea": 3}], breaker=Breaker(share=0.8, of_last=10, open_for=5))
    >>> found = env.from_batch(["tea"]).map(prices.get).collect()
    >>> job = env.submit(autostop=True)
    >>> found
    [3]
    """

    failures: int | None = None
    share: float = 0.5
    of_last: int = 20
    at_least: int | None = None
    open_for: float = 30.0
    probes: int = 3


#: How many calls a breaker counts at most.
_MOST_COUNTED = 100_000


def breaker_of(breaker: Any) -> Breaker:
    """Checks a breaker: a number of failures in a row, or an object."""
    if not isinstance(breaker, Breaker):
        return Breaker(whole("`breaker`, of failures in a row,", breaker, 1, _MOST_COUNTED))
    failures, share, of_last, at_least, open_for, probes = (getattr(breaker, each.name) for each in fields(Breaker))
    if failures is not None:
        failures = whole("`failures` of a Breaker", failures, 1, _MOST_COUNTED)
    of_last = whole("`of_last` of a Breaker", of_last, 1, _MOST_COUNTED)
    if at_least is not None:
        at_least = whole("`at_least` of a Breaker, which is no more than its `of_last`,", at_least, 1, of_last)
    if not 0 < number("`share` of a Breaker", share) <= 1:
        raise ValueError(f"`share` of a Breaker is above 0, and 1 at most, not {said(share)}")
    open_for = seconds("`open_for` of a Breaker", open_for, more=True)
    probes = whole("`probes` of a Breaker", probes, 1, 1 << 31)
    return Breaker(failures, float(share), of_last, at_least, open_for, probes)


def number(what: str, value: Any) -> float:
    """The value, if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError(f"{what} is a number, not {said(value)}")
    return float(value)


@spelt
@dataclass(frozen=True)
class Rate:
    """How many ``calls``, or how much ``cost``, a service gets within ``per`` seconds (more than 0; default: 1): one of
    the two, 1 or more. What a call costs, ``cost`` of ``LocalEnvironment.service`` says.

    The rate holds in the long run, and up to ``burst`` calls, or so much cost, may go at once after a quieter time: 1
    or more. Default: of calls, those of half a second, and at least 1; of cost, that of the whole time. Calls beyond
    the rate wait for their turn, in the order in which they came. One that costs more than the burst is refused.

    >>> env = LocalEnvironment("limited")
    >>> prices = env.service("prices", dict, [{"tea": 3}], rate=Rate(calls=300, per=60))
    >>> found = env.from_batch(["tea"]).map(prices.get).collect()
    >>> job = env.submit(autostop=True)
    >>> found
    [3]
    """

    calls: int | None = None
    cost: int | None = None
    per: float = 1.0
    burst: int | None = None


@spelt
@dataclass(frozen=True)
class Concurrency:
    """How many ``calls`` of a service may be under way at once: 1 or more. Others wait for their turn, in the order in
    which they came; at most ``queue`` of them (default: 1,024), and one more raises ``ServiceRefused``.

    With ``adaptive``, the limit is halved whenever the service says that it has too much to do (``"throttled"``), down
    to that number; calls that succeed raise it again, one by one. ``replacements``: for how many calls past their
    ``timeout`` whose code still runs another may go at the same time. Default: 0.

    >>> env = LocalEnvironment("few")
    >>> prices = env.service("prices", dict, [{"tea": 3}], concurrency=Concurrency(16, adaptive=2, queue=100))
    >>> found = env.from_batch(["tea"]).map(prices.get).collect()
    >>> job = env.submit(autostop=True)
    >>> found
    [3]
    """

    calls: int
    queue: int | None = None
    adaptive: int | None = None
    replacements: int = 0


def limit_of(concurrency: Any) -> Concurrency:
    """Checks a limit: a number of calls, or an object."""
    if not isinstance(concurrency, Concurrency):
        return Concurrency(whole("`concurrency`, of calls at once,", concurrency))
    calls = whole("`calls` of a Concurrency", concurrency.calls)
    queue, adaptive = concurrency.queue, concurrency.adaptive
    if queue is not None:
        queue = whole("`queue` of a Concurrency", queue, 0)
    if adaptive is not None:
        adaptive = whole("`adaptive` of a Concurrency, which is no more than its `calls`,", adaptive, 1, calls)
    return Concurrency(calls, queue, adaptive, whole("`replacements` of a Concurrency", concurrency.replacements, 0))


def rates(rate: Any) -> tuple[Rate, ...]:
    """Checks rates: numbers of calls a second, or objects."""
    given = rate if isinstance(rate, (list, tuple)) else (rate,)
    return tuple(map(_rate, given))


def _rate(rate: Any) -> Rate:
    if not isinstance(rate, Rate):
        return Rate(whole("`rate`, of calls within a second,", rate))
    if (rate.calls is None) == (rate.cost is None):
        raise ValueError(f"a Rate has `calls` or `cost`, and `per`, not {said(rate)}")
    counts = {
        name: None if count is None else whole(f"`{name}` of a Rate", count)
        for name, count in (("calls", rate.calls), ("cost", rate.cost), ("burst", rate.burst))
    }
    return Rate(per=seconds("`per` of a Rate", rate.per, more=True), **counts)


class Changes(NamedTuple):
    """Settings that some calls may have of their own: see ``settings.rs``."""

    timeout: float | None = None
    deadline: float | None = None
    retry: Retry | None = None
    sample: int | None = None


#: A function for all methods, or one for each of some.
ByMethod = Callable[..., Any] | dict[str, Callable[..., Any]] | None


class CallPolicy(NamedTuple):
    """The policy of a service: see ``settings.rs``."""

    call: Changes = Changes()
    outage: float | None = None
    fallback: tuple[str, ...] = ()
    rate: tuple[Rate, ...] = ()
    concurrency: Concurrency | None = None
    cost: ByMethod = None
    breaker: Breaker | None = None
    retry_budget: float | None = None
    judge: Callable[[Exception], Any] | None = None
    spend: tuple[Spend, ...] = ()
    price: ByMethod = None
    usage: ByMethod = None
    version: str | None = None
    journal: Journal | None = None
    keep: dict[str, Keeping] = {}
    make_again: int = 0

    def methods(self) -> tuple[tuple[str, str], ...]:
        """The settings for methods of their own, each with the name of one."""
        settings = {"keep": self.keep, "cost": self.cost, "price": self.price, "usage": self.usage}
        return tuple((name, method) for name, of in settings.items() if isinstance(of, dict) for method in of)


#: As the engine takes no end of a time.
_NO_LIMIT = 1e12


def changes(timeout: Any, deadline: Any, retry: Any, sample: Any = None) -> Changes:
    """Checks these settings."""
    times = {"timeout": timeout, "deadline": deadline}
    checked = {
        name: None if time is None else seconds(f"`{name}` of a call", time, more=True, hint="; leave it out for none")
        for name, time in times.items()
    }
    if sample is not None:
        sample = whole("`sample` of a call", sample, 0)
    return Changes(**checked, retry=retried(retry), sample=sample)


def call_policy(
    named: Callable[[Any], str],
    *,
    timeout: Any,
    deadline: Any,
    retry: Any,
    fallback: Any,
    rate: Any,
    concurrency: Any,
    breaker: Any,
    retry_budget: Any,
    cost: Any,
    pause_on_outage: Any,
    judge: Any,
    spend: Any,
    price: Any,
    usage: Any,
    version: Any,
    journal: Any,
    keep: Any,
) -> CallPolicy:
    """Checks the settings of a policy. ``named`` gives the name of a service that is given by its handle or name."""
    if pause_on_outage is not None and pause_on_outage != float("inf"):
        hint = "; leave it out for none, or say `math.inf` for no limit"
        pause_on_outage = seconds("`pause_on_outage`", pause_on_outage, more=True, hint=hint)
    if judge is not None and not callable(judge):
        raise TypeError(f"`judge` is a function that is given an exception, not {said(judge)}")
    cost = _by_method("cost", cost, "the arguments of a call")
    price = _by_method("price", price, "the arguments of a call")
    usage = _by_method("usage", usage, "an answer")
    if usage is not None:
        usage = {method: used(says) for method, says in usage.items()} if isinstance(usage, dict) else used(usage)
    limits = () if rate is None else rates(rate)
    if cost is None and any(limit.cost is not None for limit in limits):
        raise ValueError("a Rate of cost needs `cost`, which says of the arguments of a call what it costs")
    if isinstance(fallback, (str, ServiceHandle)) or not isinstance(fallback, Iterable):
        fallback = (fallback,)
    outage = None if pause_on_outage is None else min(pause_on_outage, _NO_LIMIT)
    at_once = None if concurrency is None else limit_of(concurrency)
    call, others = changes(timeout, deadline, retry), tuple(map(named, fallback))
    opens = None if breaker is None else breaker_of(breaker)
    if retry_budget is not None and not 0 <= number("`retry_budget`", retry_budget) <= 1000:
        why = "is how many retries there may be for each call, from 0 to 1,000"
        raise ValueError(f"`retry_budget` {why}, not {said(retry_budget)}")
    limited = CallPolicy(call, outage, others, limits, at_once, cost, opens, retry_budget, judge)
    if version is not None:
        version = text("`version` of a service", version)
    its_journal = None if journal is None else journal_of(journal)
    return limited._replace(
        spend=() if spend is None else spends(spend),
        price=price,
        usage=usage,
        version=version,
        journal=its_journal,
        keep={} if keep is None else kept(keep, version, its_journal),
    )


def _by_method(name: str, says: Any, given: str) -> ByMethod:
    """Checks a function, or those for some methods each."""
    if says is None or callable(says):
        return cast(ByMethod, says)
    if not isinstance(says, Mapping):
        raise TypeError(f"`{name}` is a function that is given {given}, not {said(says)}")
    for method, its in says.items():
        text(f"the name of a method in `{name}`", method)
        if not callable(its):
            raise TypeError(f"`{name}` has a function that is given {given}, and for `{method}` not {said(its)}")
    return dict(says)


class ToldOf(NamedTuple):
    """What the engine knows of a method: see ``mod.rs``."""

    is_async: bool
    batching: Batching | None
    #: Whether it has a parameter `idempotency_key`.
    takes_key: bool
    #: Says of an answer what it adds to the figures of the service; it may also tell that later. Of a service of ours.
    tally: Callable[[Any, Late], Any] | None = None


def told_of(method: Any) -> ToldOf:
    """Whether a method of a service is async, and whether it answers requests together."""
    batching = getattr(method, "batching", None)
    if isinstance(batching, Batching):
        return ToldOf(iscoroutinefunction(method.together), batching, False)
    tally = getattr(method.__self__, "_tally", None) if isinstance(method, MethodType) else None
    return ToldOf(iscoroutinefunction(method), None, takes_key(method), tally)


async def _await(begin: Callable[[Any], PolicyCall]) -> Any:
    import asyncio  # it is there

    return await begin(asyncio.get_running_loop())


def awaited(name: str, begin: Callable[[Any], PolicyCall]) -> Any:
    """The coroutine of a call."""
    coroutine: Any = _await(begin)
    coroutine.__name__ = coroutine.__qualname__ = name
    return coroutine


def set_future(future: Any) -> None:
    """Has whoever awaits a future go on."""
    if not future.done():
        future.set_result(None)


def answer_on_loop(
    job_loop: JobLoop, context: Any, deadline: Any, together: Any, items: list[Any], told: Callable[[bool, Any], None]
) -> Callable[[], None]:
    """Has the job's event loop answer a batch. Returns what cancels that."""
    import asyncio  # it is there

    loop = job_loop.begun().loop
    tasks: list[asyncio.Task[None]] = []
    is_left = False

    async def settle() -> None:
        try:
            result = True, await together(items)
        except BaseException as error:  # the loop has to go on, whatever it is
            result = False, error
        told(*result)

    def make() -> None:
        DEADLINE.set(deadline)
        tasks.append(asyncio.Task(settle(), loop=loop))

    def begin() -> None:
        if not is_left:
            context.run(make)

    def leave() -> None:
        nonlocal is_left
        is_left = True
        for task in tasks:
            task.cancel()

    def cancel() -> None:
        try:
            loop.call_soon_threadsafe(leave)
        except RuntimeError:
            pass  # it is closed

    loop.call_soon_threadsafe(begin)
    return cancel
