"""What is spent on a service: limits, and what an answer did cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from ._arguments import said, seconds, truth, whole
from ._keywords import spelt


@spelt
@dataclass(frozen=True)
class Spend:
    """How much may be spent on a service within any time of ``per`` seconds (more than 0; default: a day). ``amount``
    is more than 0, in any unit, such as a currency's; it is counted to a billionth. What a call will cost,
    ``price`` of ``LocalEnvironment.service`` says, and what it did cost, ``usage``.

    When it is spent, calls raise ``ServiceRefused``; with ``waits=True`` they wait until there is something to spend
    again.

    >>> env = LocalEnvironment("thrifty")
    >>> budget = Spend(5.0, per=3600)
    >>> prices = env.service("prices", dict, [{"tea": 3}], spend=budget, price=lambda name: 0.01)
    >>> found = env.from_batch(["tea"]).map(prices.get).collect()
    >>> job = env.submit(autostop=True)
    >>> job.metrics().services["prices"].policy.rate["spent_billionths"]
    10000000
    """

    amount: float
    per: float = 86_400.0
    waits: bool = False


@spelt
@dataclass(frozen=True)
class Usage:
    """What a call did cost: in the unit of its ``cost``, such as tokens, and what was ``spent`` on it. ``usage`` of
    ``LocalEnvironment.service`` reads it from an answer.

    >>> Usage(cost=812, spent=0.004)
    Usage(cost=812, spent=0.004)
    """

    cost: int
    spent: float = 0.0


def spends(spend: Any) -> tuple[Spend, ...]:
    """Checks limits: amounts, or objects."""
    given = spend if isinstance(spend, (list, tuple)) else (spend,)
    return tuple(map(_spend, given))


def _spend(spend: Any) -> Spend:
    if not isinstance(spend, Spend):
        spend = Spend(spend)
    amount = _amount("`amount` of a Spend", spend.amount)
    if amount < 1e-9:
        raise ValueError(f"`amount` of a Spend is more than 0, not {said(spend.amount)}")
    waits = truth("`waits` of a Spend", spend.waits)
    return Spend(amount, seconds("`per` of a Spend", spend.per, more=True), waits)


def _amount(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < 0:
        raise ValueError(f"{what} is a number from 0 on, not {said(value)}")
    return float(value)


def used(usage: Callable[[Any], Any]) -> Callable[[Any], tuple[int, float] | None]:
    """What the engine asks for what an answer did cost."""

    def told(answer: Any) -> tuple[int, float] | None:
        said_so = usage(answer)
        if said_so is None:
            return None
        if not isinstance(said_so, Usage):
            raise TypeError(f"`usage` gives a Usage, or None, not {said(said_so)}")
        return whole("`cost` of a Usage", said_so.cost, 0), _amount("`spent` of a Usage", said_so.spent)

    return told
