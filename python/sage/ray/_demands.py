"""What workers take of a Ray cluster: how a program says it, and whether there is a place for it. Ray is not asked.

Amounts are compared as Ray does it, in whole ten-thousandths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .._arguments import check_spelling, meant

_AMOUNTS = ("num_cpus", "num_gpus", "memory")

#: The options that say what a worker takes, and where it is placed.
TAKES = (*_AMOUNTS, "resources", "scheduling_strategy", "placement_group")

#: How Ray may place workers that it places together.
_GROUPS = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")

#: So many ways to place workers on nodes are tried. If none was found by then, there may be one.
_MOST_TRIES = 2000


def takes(what: str, given: Any) -> dict[str, Any]:
    """What a worker is to take, where it is said as ``ray.remote`` has it. Raises ``ValueError`` and ``TypeError``."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} is a mapping, not {given!r}")
    check_names(what, given, TAKES)
    resources = given.get("resources") or {}
    if not isinstance(resources, Mapping):
        raise TypeError(f"`resources` of {what} is a mapping of names to amounts, not {resources!r}")
    for name, amount in [*((name, given[name]) for name in _AMOUNTS if name in given), *resources.items()]:
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            raise TypeError(f"`{name}` of {what} is a number, not {amount!r}")
        if not 0 <= amount < math.inf:
            raise ValueError(f"`{name}` of {what} is not negative, and has an end, unlike {amount!r}")
        if name == "num_gpus" and amount > 1 and amount != int(amount):
            raise ValueError(f"`{name}` of {what} is at most 1, or a whole number, not {amount!r}")
    group = given.get("placement_group")
    if group is not None and group not in _GROUPS:
        raise ValueError(f"`placement_group` of {what} is one of {', '.join(_GROUPS)}, not {group!r}")
    if group is not None and given.get("scheduling_strategy") is not None:
        raise ValueError(f"{what} has either a `placement_group` or a `scheduling_strategy`")
    return dict(given)


def check_names(what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises for a name that is none of these."""
    check_spelling(what, given, known)
    for name in given:
        if name not in known:
            raise ValueError(f"{what} has no `{name}`{meant(str(name), known)}")


def amounts(takes: Mapping[str, Any]) -> dict[str, float]:
    """What a worker takes, by the names that Ray has for it."""
    named = {"CPU": takes.get("num_cpus"), "GPU": takes.get("num_gpus"), "memory": takes.get("memory")}
    named.update(takes.get("resources") or {})
    return {name: float(amount) for name, amount in named.items() if amount}


def shown(has: Mapping[str, float]) -> str:
    """Amounts, in words."""
    return ", ".join(f"{name} {amount:g}" for name, amount in has.items()) or "nothing"


class Demand(NamedTuple):
    """The workers of a step, or of a service."""

    #: The step or the service: a key of ``ServiceCalls.places``.
    of: Any
    name: str
    is_service: bool
    workers: int
    #: What each takes.
    takes: Mapping[str, Any]

    @property
    def one(self) -> str:
        """One of them, in words."""
        return f"service `{self.name}`" if self.is_service else f"a worker of `{self.name}`"

    @property
    def all(self) -> str:
        """All of them, in words."""
        if self.workers == 1:
            return f"service `{self.name}`" if self.is_service else f"the worker of `{self.name}`"
        return f"the {self.workers} workers of `{self.name}`"


def refused(demands: Sequence[Demand], nodes: Sequence[Mapping[str, float]]) -> str | None:
    """Why workers have no place though nobody else uses the nodes; ``None`` if they have, as far as is known."""
    for demand in demands:
        if (why := _refused_alone(demand, nodes)) is not None:
            return why
    total: dict[str, float] = {}
    for demand in demands:
        for name, amount in amounts(demand.takes).items():
            total[name] = total.get(name, 0.0) + amount * demand.workers
    *others, last = [demand.all for demand in demands]
    is_one = not others and demands[0].workers == 1
    those = f"{', '.join(others)} and {last}" if others else last
    why = f"{those} {'takes' if is_one else 'take'} {shown(total)} at once"
    if not _has(nodes, total):
        return why
    if not _have_places(demands, nodes):
        each = "; ".join(shown({name: node.get(name, 0.0) for name in total}) for node in nodes)
        return f"{why}, and do not fit on the nodes together ({each})"
    return None


def _refused_alone(demand: Demand, nodes: Sequence[Mapping[str, float]]) -> str | None:
    """As ``refused``, of the workers of one step, if not because of what they take in all."""
    needs, group, count = amounts(demand.takes), demand.takes.get("placement_group"), demand.workers
    if group is not None and not needs:
        return f"{demand.one} takes nothing, so it has no `placement_group`"
    fits = [fit(node, needs) for node in nodes]
    if not any(fits):
        return f"{demand.one} takes {shown(needs)}, which no node has"
    each = f"{demand.all} take {shown(needs)} each"
    if group == "STRICT_PACK" and max(fits) < count:
        return f"{each} on one node, which none has"
    if group == "STRICT_SPREAD" and (found := sum(map(bool, fits))) < count:
        return f"{each} on nodes of their own, and {found} of the nodes {'has' if found == 1 else 'have'} that"
    whole = {name: amount * count for name, amount in needs.items()}
    if sum(fits) < count and _has(nodes, whole):
        return f"{each}, and the nodes have room for {sum(fits):g}"
    return None


def _whole(amount: float) -> int:
    return max(round(amount * 10_000), int(amount > 0))


def _has(nodes: Sequence[Mapping[str, float]], needs: Mapping[str, float]) -> bool:
    """Whether all nodes together have so much."""
    return all(sum(_whole(node.get(name, 0.0)) for node in nodes) >= _whole(needs[name]) for name in needs)


def fit(node: Mapping[str, float], needs: Mapping[str, float]) -> float:
    """How many workers have a place on a node that has nothing else to do."""
    return min((_whole(node.get(name, 0.0)) // _whole(amount) for name, amount in needs.items()), default=math.inf)


def _have_places(demands: Sequence[Demand], nodes: Sequence[Mapping[str, float]]) -> bool:
    """Whether all of them have a place at once, or it would take long to find out."""
    # What is placed on a node each: its number among the demands, whether it shares no node with its like, its needs.
    parts: list[tuple[int, bool, dict[str, int]]] = []
    for number, demand in enumerate(demands):
        group, count = demand.takes.get("placement_group"), demand.workers
        together = count if group == "STRICT_PACK" else 1
        needs = {name: _whole(amount) * together for name, amount in amounts(demand.takes).items()}
        if needs:
            parts += [(number, group == "STRICT_SPREAD", needs)] * (count // together)
    if len(parts) > _MOST_TRIES // 10:
        return True
    parts.sort(key=lambda part: max(part[2].values()), reverse=True)
    free = [{name: _whole(amount) for name, amount in node.items()} for node in nodes]
    on: list[set[int]] = [set() for _ in nodes]
    tries = 0

    def place(at: int) -> bool:
        nonlocal tries
        if at == len(parts) or tries > _MOST_TRIES:
            return True
        number, is_apart, needs = parts[at]
        for node, others in zip(free, on):
            if number in others or any(node.get(name, 0) < amount for name, amount in needs.items()):
                continue
            tries += 1
            if is_apart:
                others.add(number)
            for name, amount in needs.items():
                node[name] -= amount
            if place(at + 1):
                return True
            for name, amount in needs.items():
                node[name] += amount
            others.discard(number)
        return False

    return place(0)
