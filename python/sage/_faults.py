"""Fault tolerance as data: how often, and after which delays, a new instance takes the place of a function that raised.
It is read from ``config["fault_tolerance"]``, which has SAGE's keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ._arguments import _number, folder, meant, said, seconds, whole


@dataclass(frozen=True)
class Checkpoints:
    """How often states are kept, at most, in seconds, and in which folder."""

    interval: float
    folder: str


@dataclass(frozen=True)
class Faults:
    """What becomes of a replica of a function that raises."""

    #: How long to wait after its first failure, in seconds; how much longer after each other one; and how long at most.
    first: float
    multiplier: float
    longest: float
    #: After how many failures a new instance still takes over; of those within so many seconds, if that is said.
    most: int
    within: float | None = None
    checkpoints: Checkpoints | None = None

    def delay(self, failures: list[float]) -> float | None:
        """How long to wait after the last of these failures, given as moments; ``None`` if there were too many."""
        if self.within is not None:
            failures[:] = [moment for moment in failures if moment > failures[-1] - self.within]
        if len(failures) > self.most:
            return None
        try:
            return min(self.first * self.multiplier ** (len(failures) - 1), self.longest)
        except OverflowError:
            return self.longest


def _factor(what: str, value: Any) -> float:
    factor = _number(value)
    if factor is None or not 1 <= factor < float("inf"):
        raise ValueError(f"{what} is a number of at least 1, not {said(value)}")
    return factor


#: What each key is checked by.
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "delay": seconds, "initial_delay": seconds, "max_delay": seconds, "checkpoint_interval": seconds,
    "interval_seconds": partial(seconds, more=True), "multiplier": _factor, "checkpoint_dir": folder,
    "max_attempts": whole, "max_failures_per_interval": whole, "max_recovery_attempts": whole,
}

#: The keys of each strategy, with their defaults.
_RESTARTS: dict[str, dict[str, Any]] = {
    "fixed": {"delay": 5.0, "max_attempts": 3},
    "exponential": {"initial_delay": 1.0, "max_delay": 60.0, "multiplier": 2.0, "max_attempts": 5},
    "failure_rate": {"max_failures_per_interval": 5, "interval_seconds": 60.0, "delay": 5.0},
}
_CHECKPOINT = {"checkpoint_interval": 60.0, "max_recovery_attempts": 3, "checkpoint_dir": ".sage/checkpoints"}


def read(given: Any) -> Faults:
    """The fault tolerance that a program has asked for. Raises for a strategy or a key that does not exist, and for
    what a value cannot be."""
    if not isinstance(given, Mapping):
        raise TypeError(f"`fault_tolerance` of `config` is a mapping, not {said(given)}")
    strategy = _one_of(given, "strategy", ("restart", "checkpoint"), "restart")
    if strategy == "checkpoint":
        kept = _values(given, "checkpoint", ["strategy"], _CHECKPOINT)
        checkpoints = Checkpoints(kept["checkpoint_interval"], kept["checkpoint_dir"])
        return Faults(0.0, 1.0, 0.0, kept["max_recovery_attempts"], checkpoints=checkpoints)
    restart = _one_of(given, "restart_strategy", tuple(_RESTARTS), "exponential")
    values = _values(given, restart, ["strategy", "restart_strategy"], _RESTARTS[restart])
    if restart == "exponential":
        return Faults(values["initial_delay"], values["multiplier"], values["max_delay"], values["max_attempts"])
    most, delay = values.get("max_attempts") or values["max_failures_per_interval"], values["delay"]
    return Faults(delay, 1.0, delay, most, values.get("interval_seconds"))


def _one_of(given: Mapping[Any, Any], key: str, known: tuple[str, ...], default: str) -> str:
    value = given.get(key, default)
    if value not in known:
        hint = meant(value, known) if isinstance(value, str) else ""
        raise ValueError(f"`{key}` of `fault_tolerance` is {' or '.join(map(repr, known))}, not {said(value)}{hint}")
    return str(value)


def _values(given: Mapping[Any, Any], strategy: str, others: list[str], defaults: dict[str, Any]) -> dict[str, Any]:
    for key in given:
        if key not in defaults and key not in others:
            hint = meant(str(key), [*others, *defaults])
            raise ValueError(f"`fault_tolerance` of `config` has no `{key}` with the strategy `{strategy}`{hint}")
    values = {**defaults, **{key: value for key, value in given.items() if key not in others}}
    return {key: _CHECKS[key](f"`{key}` of `fault_tolerance`", value) for key, value in values.items()}
