"""Whether a service has a process of its own, and what becomes of one that ends."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ._arguments import truth, whole


class Isolation(NamedTuple):
    """Of a service in a process of its own."""

    #: How often another process takes the place of one that ends.
    restarts: int = 0
    #: What it takes of a Ray cluster.
    takes: Mapping[str, Any] = MappingProxyType({})


def isolation_of(name: str, isolated: Any, restarts: Any, ray: Mapping[str, Any] | None) -> Isolation | None:
    """Checks what is said of the process of a service; ``None`` if it has none."""
    is_isolated, restarts = truth("`isolated`", isolated), whole("`restarts`", restarts, 0)
    if restarts and not is_isolated:
        raise ValueError("`restarts` is for services in processes of their own; add `isolated=True`")
    takes: dict[str, Any] = {}
    if ray is not None:
        from .ray._demands import takes as checked  # few programs have one

        if not is_isolated:
            raise ValueError(f"`ray` is for a service in an actor of its own: add `isolated=True` to `{name}`")
        takes = checked(f"`ray` of service `{name}`", ray)
    return Isolation(restarts, takes) if is_isolated else None
