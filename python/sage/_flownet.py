"""The environment of SAGE's that ran jobs on a cluster of its own, by its names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._arguments import warn
from ._environment import LocalEnvironment
from ._keywords import spelt

_warned: list[str] = []


@spelt
class FlownetEnvironment(LocalEnvironment):
    """Stands for ``LocalEnvironment``, which replaces it, and says so once: its jobs run on this machine.

    SAGE's took ``placement_policy``, and the ``host`` and ``port`` of its cluster, which have no effect.
    """

    def __init__(
        self,
        name: str = "flownet_environment",
        config: Mapping[str, Any] | None = None,
        scheduler: Any = None,
        placement_policy: str | None = None,
        enable_monitoring: bool = False,
        *,
        host: str | None = None,
        port: int | None = None,
    ) -> None:
        super().__init__(name, config, scheduler, enable_monitoring)
        if not _warned:
            _warned.append(name)
            warn("`FlownetEnvironment` is `LocalEnvironment` here, which replaces it: its jobs run on this machine")


#: As the last versions of SAGE spell it.
FlowNetEnvironment = FlownetEnvironment
