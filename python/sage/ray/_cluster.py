"""The Ray cluster that a job's workers run on: joined if there is one, begun and ended with the job if not.

What Ray changes in this process when it begins is put back when it ends: environment variables, the handler of SIGTERM,
and files in the home folder, which it does not write as it is given its token by a variable.
"""

from __future__ import annotations

import importlib
import itertools
import json
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from .._sage import SubmitError
from ._demands import TAKES, Demand, amounts, check_names, fit, refused, shown, takes

if TYPE_CHECKING:
    from .._sage import Pause
    from ._actors import Actor

#: What a configuration says of the cluster.
_CLUSTER = ("address", "namespace", "runtime_env")

#: Resources of each node that a job is not told of unless it takes some.
_OF_MACHINE = ("memory", "object_store_memory")

#: How long the daemon of a node may take to answer, in seconds.
_ANSWERS = 1.0

_TOKEN = secrets.token_hex(32)


class Settings(NamedTuple):
    """What a program says of the cluster, and of its workers."""

    address: str | None = None
    namespace: str | None = None
    runtime_env: dict[str, Any] | None = None
    #: What a worker takes, as ``takes`` gives it.
    takes: dict[str, Any] = {}  # noqa: RUF012


class Node(NamedTuple):
    """A node of the cluster, by Ray's id, and where Ray's daemon on it listens."""

    name: str
    host: str
    port: int

    def is_there(self) -> bool:
        """Whether that takes a connection. Ray itself says it only after many missed heartbeats."""
        try:
            socket.create_connection((self.host, self.port), timeout=_ANSWERS).close()
            return True
        except OSError:
            return False

    def __str__(self) -> str:
        return f"{self.name} at {self.host}"


def settings(given: Mapping[str, Any]) -> Settings:
    """Reads them. Raises ``ValueError`` and ``TypeError``."""
    check_names("`ray` of `config`", given, (*_CLUSTER, *TAKES))
    address = given.get("address")
    if address is not None and not isinstance(address, str):
        raise TypeError(f"the address of a Ray cluster is a text, not {address!r}")
    check_address(address)
    said = takes("`ray` of `config`", {name: given[name] for name in TAKES if name in given})
    return Settings(address, given.get("namespace"), given.get("runtime_env"), {"num_cpus": 1, **said})


def check_address(address: str | None) -> None:
    """Raises for what workers could not dial back to."""
    if address is not None and address.startswith("ray://"):
        raise ValueError(
            f"{address}: workers dial back to the program, which a client of Ray is too far away for; run the program "
            "on the cluster by `ray job submit`, and leave the address out"
        )


def joined(chosen: Settings | None, demands: list[Demand], patience: float, logger: logging.Logger) -> Cluster:
    """The cluster for a job's workers. Raises ``SubmitError`` if there is none, or if they can never have what they
    take."""
    cluster = Cluster(chosen or settings({}), patience, logger)
    try:
        cluster.prepare(demands)
    except BaseException:
        cluster.leave()
        raise
    return cluster


class Cluster:
    """A cluster, while a job uses it."""

    def __init__(self, chosen: Settings, patience: float, logger: logging.Logger) -> None:
        self.settings = chosen
        self._logger = logger
        #: How long a worker may take to be there, in seconds.
        self.patience = patience
        #: The id of the job, when it is known.
        self.job = ""
        #: Of actors, whose names are of their job.
        self.numbers = itertools.count()
        #: Where the workers of each step and service run; and the placement groups of the job.
        self.places: dict[Any, OnRay] = {}
        self._groups: list[Any] = []
        self._lock = threading.Lock()
        #: What was said to be waited for.
        self._waits_for: set[str] = set()
        self._before = _Host()
        try:
            self.ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError as error:
            raise SubmitError("workers on Ray need it: pip install 'sage-dataflow[ray]'") from error
        self._before.restore_handler()
        #: Whether it ends with the job, or is left.
        self._is_ours = not self.ray.is_initialized()
        if not self._is_ours:
            if chosen.address is not None and chosen.address != "auto":
                self._check_same(chosen.address)
            return
        try:
            self._begin()
            self._before.restore_handler()
        except BaseException as error:
            self._before.restore()
            self._before.restore_handler()
            if isinstance(error, Exception):
                where = f" at {chosen.address}" if chosen.address else ""
                raise SubmitError(f"no Ray cluster{where}: {type(error).__name__}: {error}") from error
            raise

    def _begin(self) -> None:
        chosen = self.settings
        options: dict[str, Any] = {"namespace": chosen.namespace, "log_to_driver": False, "logging_level": "error"}
        if chosen.runtime_env is not None:
            options["runtime_env"] = chosen.runtime_env
        address = chosen.address or os.environ.get("RAY_ADDRESS")
        if address is not None:
            self.ray.init(address=address, **options)
            return
        # One that is begun here listens on the machine's own address, and asks for a token, which Ray would otherwise
        # write to a file. It takes note of the first one in a process.
        os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)
        os.environ.setdefault("RAY_worker_niceness", "0")
        self.ray.init(address="local", include_dashboard=False, **options)

    def _check_same(self, address: str) -> None:
        used = self.ray.get_runtime_context().gcs_address
        if address != used:
            raise SubmitError(f"this process uses the Ray cluster at {used} already, and not the one at {address}")

    def prepare(self, demands: list[Demand]) -> None:
        """Checks what the workers of a job take, and makes their places."""
        demands = [demand._replace(takes=self._whole(demand.takes)) for demand in demands]
        self.check(demands)
        for demand in demands:
            options = {name: given for name, given in demand.takes.items() if name != "placement_group"}
            if (how := demand.takes.get("placement_group")) is not None:
                bundles = [amounts(demand.takes)] * demand.workers
                group = self.ray.util.placement_group(bundles, how, name=f"sage {demand.name}")
                self._groups.append(group)
                strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
                options["scheduling_strategy"] = strategies.PlacementGroupSchedulingStrategy(group)
            self.places[demand.of] = OnRay(self, demand, options)

    def _whole(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """What a worker takes whose step says a part of it."""
        said = dict(self.settings.takes)
        if "placement_group" in own or "scheduling_strategy" in own:
            said.pop("placement_group", None)
            said.pop("scheduling_strategy", None)
        return {**said, **own}

    def check(self, demands: list[Demand]) -> str | None:
        """Raises ``SubmitError`` for workers that can never have what they are to take. If the cluster grows by itself,
        says what is waited for instead."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        why = refused(demands, nodes)
        if why is None:
            return None
        has: dict[str, float] = {}
        asked = {name for demand in demands for name in amounts(demand.takes)}
        for name, amount in (item for node in nodes for item in node.items()):
            if name in asked or not _is_internal(name):
                has[name] = has.get(name, 0.0) + amount
        why = f"{why}; the cluster has {shown(dict(sorted(has.items())))}"
        if not grows(self.ray):
            raise SubmitError(f"{why}: say less by `ray`, of a step or of `config`, or less `parallelism`")
        if why not in self._waits_for:
            self._waits_for.add(why)
            self._logger.warning("%s; it grows by itself, which is waited for up to %g s", why, self.patience)
        return why

    def check_there(self, demand: Demand) -> str | None:
        """As ``check``, of a worker that waits for its place. A node that does not answer is none, though Ray may say
        that only after a while."""
        why = self.check([demand])
        if why is None:
            needs = amounts(demand.takes)
            nodes = [_node(node) for node in self.ray.nodes() if node["Alive"] and fit(node["Resources"], needs)]
            if not any(node.is_there() for node in nodes):
                raise SubmitError(f"{demand.one} takes {shown(needs)}, and no node that has it answers")
        return why

    def node(self, name: str) -> Node | None:
        """A node, by its id."""
        return next((_node(told) for told in self.ray.nodes() if told["NodeID"] == name), None)

    @property
    def host(self) -> str:
        """The address of this node, where workers reach it."""
        return str(self.ray.util.get_node_ip_address())

    def release(self) -> None:
        """Removes the placement groups."""
        with self._lock:
            groups, self._groups = self._groups, []
            for group in groups:
                with suppress(Exception):  # the program has left the cluster
                    self.ray.util.remove_placement_group(group)

    def leave(self) -> None:
        """The job is over: ends the cluster if it was begun for it, or leaves it."""
        self.release()
        if self._is_ours:
            try:
                self.ray.shutdown()
            finally:
                self._before.restore()


class OnRay:
    """The place of the workers of a step or of a service."""

    def __init__(self, cluster: Cluster, demand: Demand, options: dict[str, Any]) -> None:
        self._cluster = cluster
        self._demand = demand
        #: As ``ray.remote`` takes them.
        self._options = options

    def start(self, name: str, replica: int, pause: Pause | None, program: str, left: float | None) -> Actor:
        """See ``Place``."""
        from ._actors import Actor

        cluster = self._cluster
        options = {"name": f"sage {cluster.job} {name} {replica} {next(cluster.numbers)}", **self._options}
        patience = cluster.patience if left is None else left
        return Actor(cluster, options, lambda: cluster.check_there(self._demand), pause, patience, program)


def grows(ray: Any) -> bool:
    """Whether a cluster begins more nodes by itself when they are needed, as far as it tells: there are two versions of
    what begins them, and services that sell clusters say it in a third way."""
    with suppress(Exception):  # of parts of Ray's that are its own, and may be others in another version
        config = importlib.import_module("ray._private.state").state.get_cluster_config()
        if config is not None:
            kinds = config.node_group_configs
            return any(kind.max_count == -1 or kind.max_count > kind.min_count for kind in kinds)
        if importlib.import_module("ray.autoscaler.v2.utils").is_autoscaler_v2(fetch_from_server=True):
            return any("ray.io/node-group" in node["Labels"] for node in ray.nodes())
        store = importlib.import_module("ray.experimental.internal_kv")
        told = json.loads(store._internal_kv_get("__autoscaling_status") or "{}")
        found = (told.get("autoscaler_report") or {}).get("node_type_mapping") or {}
        # Nodes that were begun by hand are of a kind of their own each.
        return any(kind != f"node_{node}" for node, kind in found.items())
    return False


def _node(told: Mapping[str, Any]) -> Node:
    return Node(told["NodeID"], told["NodeManagerAddress"], told["NodeManagerPort"])


def _is_internal(name: str) -> bool:
    # Those of placement groups as well.
    return name.startswith(("node:", "bundle_group_")) or "_group_" in name or name in _OF_MACHINE


class _Host:
    """What Ray changes in this process."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        is_main = threading.current_thread() is threading.main_thread()
        self._handler = signal.getsignal(signal.SIGTERM) if is_main else None

    def restore(self) -> None:
        """Puts it back."""
        for name in [name for name in os.environ if name.startswith("RAY_") or name == "PYTHONBREAKPOINT"]:
            if name not in self._environment:
                del os.environ[name]
        for name, value in self._environment.items():
            if name.startswith("RAY_") or name == "PYTHONBREAKPOINT":
                os.environ[name] = value

    def restore_handler(self) -> None:
        """Ray installs its own when it is imported. To be called before the job starts, which has one as well."""
        if self._handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)
