"""Jobs whose functions run on a Ray cluster: see ``RayEnvironment``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._environment import LocalEnvironment
from .._keywords import spelt
from ._cluster import check_address

__all__ = ["RayEnvironment"]


@spelt
class RayEnvironment(LocalEnvironment):
    """As ``LocalEnvironment(name, workers="ray")``: functions run in actors of a Ray cluster.

    The cluster is the one that this process uses already (``ray.init``), else the one at ``address`` or of the
    environment variable ``RAY_ADDRESS``, and is left as it is when the job is over. If there is none, one is begun on
    this machine, and ended with the job. ``namespace`` is that of the actors.

    ``config["ray"]`` may have ``num_cpus`` (default 1), ``num_gpus``, ``memory`` (in bytes), ``resources`` and
    ``scheduling_strategy``, as ``ray.remote`` takes them, for each worker. In place of the last, ``placement_group`` is
    ``"PACK"``, ``"SPREAD"``, ``"STRICT_PACK"`` or ``"STRICT_SPREAD"``: the workers of each step are placed together, or
    on different nodes, by a placement group of Ray's, which goes with the job. ``ray=`` of a step or of an isolated
    service says the same for its workers. ``config["ray"]`` may have ``runtime_env`` as well. What the cluster can
    never give is refused by ``submit``, unless it begins nodes by itself: workers wait for these, up to the timeout
    ``setup``.

    Workers dial back to this program: it has to run on the cluster, as by ``ray job submit``. What goes between is not
    encrypted.

    >>> from sage.ray import RayEnvironment
    >>> env = RayEnvironment("squares", {"ray": {"num_cpus": 0.5}})
    >>> squares = env.from_batch([1, 2, 3]).map(lambda n: n * n, parallelism=2).collect()
    >>> print(env.explain())  # doctest: +ELLIPSIS
    environment `squares`
    ...
    >>> job = env.submit(autostop=True)  # doctest: +SKIP
    """

    #: Where its jobs run.
    platform = "ray"

    def __init__(
        self,
        name: str = "rayenvironment",
        config: Mapping[str, Any] | None = None,
        scheduler: Any = None,
        enable_monitoring: bool = False,
        *,
        address: str | None = None,
        namespace: str | None = None,
    ) -> None:
        check_address(address)
        given = dict(config or {})
        said = {"address": address, "namespace": namespace}
        given["ray"] = {**given.get("ray", {}), **{key: value for key, value in said.items() if value is not None}}
        super().__init__(name, given, scheduler, enable_monitoring, workers="ray")
