"""Workers as Ray actors: Ray places and supervises them; each runs the worker program, and dials back to its job."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .._dial import Listener
from .._sage import Bell, Cancelled, Pause, SubmitError
from ._cluster import Cluster, Node

#: How long the processes of actors that were killed may take to be gone, in seconds.
_LINGERS = 10.0

#: How often it is looked whether the cluster can still place a worker that waits for that, in seconds; and how long to
#: wait for what is known soon, if ever.
_SOON = 1.0

#: How often it is looked whether a process is gone where the system does not tell of that, in seconds.
_LOOK = 0.02


def _actor_class() -> type:
    """The class of actors. It is defined in here, so that it goes to nodes as it is: one without the package can say
    that."""

    class SageWorker:
        def where(self) -> tuple[int, str, str]:
            import importlib
            import os
            import socket

            ray: Any = importlib.import_module("ray")
            return os.getpid(), socket.gethostname(), ray.get_runtime_context().get_node_id()

        def run(self, host: str, port: int, key: bytes, program: str) -> tuple[str, float, int]:
            import socket

            try:
                from sage.ray._actor import run
            except ImportError as error:
                return f"the node {socket.gethostname()} has no package `sage` that can be used: {error}", 0.0, 0
            return "", *run(host, port, key, program)

        def end(self) -> None:
            from sage.ray._actor import end

            end()

    return SageWorker


class Actor:
    """A worker, and the socket to it: what ``Process`` is for a process of this machine."""

    #: See ``Process``.
    guard = "ray"

    def __init__(
        self,
        cluster: Cluster,
        options: dict[str, Any],
        check: Callable[[], str | None],
        pause: Pause | None,
        patience: float,
        program: str,
    ) -> None:
        self._cluster = cluster
        self._ray = cluster.ray
        self._is_killed = False
        self.pid = 0
        self.node = ""
        self.cpu = 0.0
        self.peak_bytes = 0
        #: Of its process, if that is on this machine.
        self._pidfd: int | None = None
        #: Its node, when that is known; and how it was lost with that.
        self._on: Node | None = None
        self._lost = ""
        options = {"max_concurrency": 2, "max_restarts": 0, "max_task_retries": 0, **options}
        if cluster.settings.namespace is not None:
            options["namespace"] = cluster.settings.namespace
        #: Becomes readable when it has ended.
        self._told, self._tells = socket.socketpair()
        try:
            self._actor = self._ray.remote(_actor_class()).options(**options).remote()
            try:
                self._where = self._actor.where.remote()
                self.socket = self._dialled(program, check, pause, patience)
            except BaseException:
                self._kill()
                with suppress(Exception):  # it has not begun
                    self._learn(_SOON)
                self._await_gone()
                raise
        except BaseException:
            self._close()
            raise

    def _dialled(
        self, program: str, check: Callable[[], str | None], pause: Pause | None, patience: float
    ) -> socket.socket:
        listener = Listener(self._cluster.host)
        bell = None if pause is None else Bell(pause)
        try:
            self._run = self._actor.run.remote(*listener.address, program)
            self._run.future().add_done_callback(self._ended)
            wakes = [self._told.fileno(), *([] if bell is None else [bell.fileno()])]
            until = time.monotonic() + patience
            while True:
                # Nodes come and go.
                connection = listener.accepted(wakes, min(time.monotonic() + _SOON, until))
                if connection is not None:
                    self._connection = connection
                    break
                if bell is not None and bell.heed():
                    raise Cancelled("the job is being cancelled")
                if (how := self.ended(0.0)) is not None:
                    raise SubmitError(f"a worker could not be started on Ray: {how}")
                lacks = check()
                if time.monotonic() >= until:
                    why = lacks or "what it takes is in use"
                    raise SubmitError(f"Ray has not placed a worker within {patience:.3g} s: {why}")
            self._learn(None)
            return connection
        except self._ray.exceptions.RayError as error:
            raise SubmitError(f"a worker could not be started on Ray: {error}") from error
        finally:
            listener.close()

    def _learn(self, timeout: float | None) -> None:
        """Asks where it is. Raises an error of Ray's if it has not begun."""
        if self.pid:
            return
        self.pid, self.node, node = self._ray.get(self._where, timeout=timeout)
        if self.node == socket.gethostname():
            with suppress(AttributeError, OSError):  # systems that have none
                self._pidfd = os.pidfd_open(self.pid)
        self._on = self._cluster.node(node)

    def _ended(self, _done: Any) -> None:
        """Called on a thread of Ray's."""
        with suppress(OSError):
            self._tells.send(b"x")
        connection = getattr(self, "_connection", None)
        if connection is not None:
            # A node that has lost its power closes nothing.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def began(self, pid: int, node: str) -> None:
        """It says what it is, which Ray has told already."""

    def signal(self, number: int) -> None:
        """As to a process: SIGTERM asks it to end, SIGKILL kills it."""
        if number == signal.SIGKILL:
            self._kill()
        else:
            self._actor.end.remote()

    def _kill(self) -> None:
        self._is_killed = True
        self._ray.kill(self._actor, no_restart=True)

    def ended(self, timeout: float) -> str | None:
        """How it has ended; ``None`` if it has not within so many seconds."""
        if self._lost:
            return self._lost
        how = None
        try:
            told, self.cpu, self.peak_bytes = self._ray.get(self._run, timeout=timeout)
            return str(told or "has ended")
        except self._ray.exceptions.GetTimeoutError:
            pass
        except Exception as error:
            # That of a function is at the end, behind where it was raised.
            text = str(error).strip().splitlines()
            how = f"has ended: {text[-1] if text else type(error).__name__}"
        if self._is_killed:
            return how and "was killed"
        # Ray says only after a while what it was.
        self._lost = "" if self._on is None or self._on.is_there() else f"was lost with its node, {self._on}"
        return self._lost or how

    def end(self, lingers: float = _LINGERS) -> int:
        """Waits until it is gone, and kills it if it does not go."""
        self.socket.close()  # which some workers wait for
        try:
            if self.ended(lingers) is None:
                self._is_killed = True
            with suppress(Exception):
                self._ray.kill(self._actor, no_restart=True)
            self._await_gone()
            if self._is_killed:
                self.ended(_SOON)  # which Ray is told by its node
        finally:
            self._close()
        return 0

    def _await_gone(self) -> None:
        """Until its process is off the list of its node, if that is this one: it is no child of this process."""
        if not self.pid or self.node != socket.gethostname():
            return
        until = time.monotonic() + _LINGERS
        poll = select.poll()
        if self._pidfd is not None:
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(_LINGERS * 1000)
            # It may be a zombie yet. Linux tells of the end of that from 6.9 on.
            poll.modify(self._pidfd, 0)
        while os.path.exists(f"/proc/{self.pid}") and time.monotonic() < until:
            poll.poll(_LOOK * 1000)

    def _close(self) -> None:
        if hasattr(self, "socket"):
            self.socket.close()
        self._told.close()
        self._tells.close()
        pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None:
            os.close(pidfd)
