"""Workers as Ray actors: Ray places and supervises them; each runs the worker program, and dials back to its job."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from typing import Any

from .._dial import Listener
from .._sage import Bell, Cancelled, Pause, SubmitError
from ._cluster import Cluster

#: How long the processes of actors that were killed may take to be gone, in seconds.
_LINGERS = 10.0


def _actor_class() -> type:
    """The class of actors. It is defined in here, so that it goes to nodes as it is: one without the package can say
    that."""

    class SageWorker:
        def run(self, host: str, port: int, key: bytes) -> tuple[str, float, int]:
            import socket

            try:
                from sage.ray._actor import run
            except ImportError as error:
                return f"the node {socket.gethostname()} has no package `sage` that can be used: {error}", 0.0, 0
            return "", *run(host, port, key)

        def end(self) -> None:
            from sage.ray._actor import end

            end()

    return SageWorker


class Actor:
    """A worker, and the socket to it: what ``Process`` is for a process of this machine."""

    def __init__(
        self, cluster: Cluster, name: str, takes: dict[str, Any], pause: Pause | None, patience: float
    ) -> None:
        self._cluster = cluster
        self._ray = cluster.ray
        self._is_killed = False
        #: What its worker says of itself when it has begun.
        self.pid = 0
        self.node = ""
        self.cpu = 0.0
        self.peak_bytes = 0
        options = {"max_concurrency": 2, "max_restarts": 0, "max_task_retries": 0, "name": name, **takes}
        if cluster.settings.namespace is not None:
            options["namespace"] = cluster.settings.namespace
        #: Becomes readable when it has ended.
        self._told, self._tells = socket.socketpair()
        try:
            self._actor = self._ray.remote(_actor_class()).options(**options).remote()
            self.socket = self._dialled(pause, patience)
        except BaseException:
            self._close()
            raise

    def _dialled(self, pause: Pause | None, patience: float) -> socket.socket:
        listener = Listener(self._cluster.host)
        bell = None if pause is None else Bell(pause)
        try:
            self._run = self._actor.run.remote(*listener.address)
            self._run.future().add_done_callback(self._ended)
            wakes = [self._told.fileno(), *([] if bell is None else [bell.fileno()])]
            until = time.monotonic() + patience
            while True:
                connection = listener.accepted(wakes, until)
                if connection is not None:
                    self._connection = connection
                    return connection
                if bell is not None and bell.heed():
                    raise Cancelled("the job is being cancelled")
                if (how := self.ended(0.0)) is not None:
                    raise SubmitError(f"a worker could not be started on Ray: {how}")
                if time.monotonic() >= until:
                    raise SubmitError(f"Ray has not placed a worker within {patience:g} s, as others use the cluster")
        except BaseException:
            self._kill()
            raise
        finally:
            listener.close()

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
        """It says what it is."""
        self.pid, self.node = pid, node

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
        try:
            told, self.cpu, self.peak_bytes = self._ray.get(self._run, timeout=timeout)
            return str(told or "has ended")
        except self._ray.exceptions.GetTimeoutError:
            return None
        except Exception as error:
            if self._is_killed:
                return "was killed"
            text = str(error).strip().splitlines()
            return f"has ended: {text[0] if text else type(error).__name__}"

    def end(self, lingers: float = _LINGERS) -> int:
        """Waits until it is gone, and kills it if it does not go."""
        try:
            if self.ended(lingers) is None:
                self._is_killed = True
            with suppress(Exception):
                self._ray.kill(self._actor, no_restart=True)
            self._await_gone()
        finally:
            self._close()
        return 0

    def _await_gone(self) -> None:
        """Until its process is off the list of its node."""
        if self.node == socket.gethostname():
            until = time.monotonic() + _LINGERS
            while os.path.exists(f"/proc/{self.pid}") and time.monotonic() < until:
                time.sleep(0.002)  # it is no child of this process: nothing tells of its end

    def _close(self) -> None:
        if hasattr(self, "socket"):
            self.socket.close()
        self._told.close()
        self._tells.close()
