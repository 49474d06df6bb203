"""The Ray cluster that a job's workers run on: joined if there is one, begun and ended with the job if not.

What Ray changes in this process when it begins is put back when it ends: environment variables, the handler of SIGTERM,
and files in the home folder, which it does not write as it is given its token by a variable.
"""

from __future__ import annotations

import importlib
import itertools
import os
import secrets
import signal
import socket
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .._arguments import check_spelling, meant
from .._sage import SubmitError

if TYPE_CHECKING:
    from ._actors import Actor

#: What a configuration says of the cluster, and of what each worker takes of it.
_CLUSTER = ("address", "namespace", "runtime_env")
_TAKES = ("num_cpus", "num_gpus", "memory", "resources", "scheduling_strategy")

#: How long the daemon of a node may take to answer, in seconds.
_ANSWERS = 1.0

_TOKEN = secrets.token_hex(32)


class Settings(NamedTuple):
    """What a program says of the cluster, and of its workers."""

    address: str | None = None
    namespace: str | None = None
    runtime_env: dict[str, Any] | None = None
    #: The options of ``ray.remote`` that say what a worker takes.
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
    known = (*_CLUSTER, *_TAKES)
    check_spelling("`ray` of `config`", given, known)
    for name in given:
        if name not in known:
            raise ValueError(f"`ray` of `config` has no `{name}`{meant(str(name), known)}")
    address = given.get("address")
    if address is not None and not isinstance(address, str):
        raise TypeError(f"the address of a Ray cluster is a text, not {address!r}")
    check_address(address)
    takes = {"num_cpus": 1, **{name: given[name] for name in _TAKES if name in given}}
    return Settings(address, given.get("namespace"), given.get("runtime_env"), takes)


def check_address(address: str | None) -> None:
    """Raises for what workers could not dial back to."""
    if address is not None and address.startswith("ray://"):
        raise ValueError(
            f"{address}: workers dial back to the program, which a client of Ray is too far away for; run the program "
            "on the cluster by `ray job submit`, and leave the address out"
        )


def joined(chosen: Settings | None, workers: list[tuple[str, int]], patience: float) -> Cluster:
    """The cluster for a job's workers: the name of each step and how many workers it has. Raises ``SubmitError`` if
    there is none, or if they can never have what they take."""
    cluster = Cluster(chosen or settings({}), patience)
    try:
        cluster.check([(step, count, cluster.settings.takes) for step, count in workers])
    except BaseException:
        cluster.leave()
        raise
    return cluster


class Cluster:
    """A cluster, while a job uses it."""

    def __init__(self, chosen: Settings, patience: float) -> None:
        self.settings = chosen
        #: How long a worker may take to be there, in seconds.
        self.patience = patience
        #: The id of the job, when it is known.
        self.job = ""
        self._numbers = itertools.count()
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

    def check(self, demands: list[tuple[str, int, dict[str, Any]]]) -> None:
        """Raises ``SubmitError`` for workers that can never have what they are to take: the name of a step, how many
        workers it has, and what each takes."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        has = {name: sum(node.get(name, 0.0) for node in nodes) for name in {name for node in nodes for name in node}}
        asked = {name for _, _, takes in demands for name in _amounts(takes)}
        told = sorted((name, amount) for name, amount in has.items() if name in asked or not _is_internal(name))
        shown = ", ".join(f"{name} {amount:g}" for name, amount in told)
        total: dict[str, float] = {}
        for step, count, takes in demands:
            needs = _amounts(takes)
            for name, amount in needs.items():
                total[name] = total.get(name, 0.0) + amount * count
            if not any(all(node.get(name, 0.0) >= amount for name, amount in needs.items()) for node in nodes):
                lacks = ", ".join(f"{name} {amount:g}" for name, amount in needs.items())
                raise SubmitError(f"a worker of `{step}` takes {lacks}, which no node has; the cluster has {shown}")
        for name, amount in total.items():
            if amount > has.get(name, 0.0) + 1e-9:
                raise SubmitError(
                    f"the workers of this job take {name} {amount:g} at once; the cluster has {shown}: say less "
                    "`parallelism`, or a smaller `num_cpus` in `ray` of `config`"
                )

    def worker(self, name: str, replica: int, pause: Any) -> Actor:
        """Starts a worker for a replica of an operator."""
        from ._actors import Actor

        told, takes = f"sage {self.job} {name} {replica} {next(self._numbers)}", self.settings.takes
        return Actor(self, told, takes, lambda: self.check([(name, 1, takes)]), pause, self.patience)

    def node(self, name: str) -> Node | None:
        """A node, by its id."""
        for told in self.ray.nodes():
            if told["NodeID"] == name:
                return Node(name, told["NodeManagerAddress"], told["NodeManagerPort"])
        return None

    @property
    def host(self) -> str:
        """The address of this node, where workers reach it."""
        return str(self.ray.util.get_node_ip_address())

    def leave(self) -> None:
        """The job is over: ends the cluster if it was begun for it, or leaves it."""
        if self._is_ours:
            try:
                self.ray.shutdown()
            finally:
                self._before.restore()


def _amounts(takes: Mapping[str, Any]) -> dict[str, float]:
    named = {"CPU": takes.get("num_cpus"), "GPU": takes.get("num_gpus"), "memory": takes.get("memory")}
    named.update(takes.get("resources") or {})
    return {name: float(amount) for name, amount in named.items() if amount}


def _is_internal(name: str) -> bool:
    return name.startswith("node:") or name in ("memory", "object_store_memory")


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
