"""Where the workers of a job run: in processes of this machine (``_processes.py``), or in actors of a Ray cluster
(``ray/_cluster.py``). What talks to a worker knows only this."""

from __future__ import annotations

from socket import socket
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ._sage import Pause


class Started(Protocol):
    """A worker that was started, and the socket to it."""

    socket: socket
    pid: int
    #: The machine, where that is not this one.
    node: str
    #: What it has used, when it has ended: seconds of processors, and bytes at a time.
    cpu: float
    peak_bytes: int

    @property
    def guard(self) -> str:
        """What ends it when this process is killed."""

    def began(self, pid: int, node: str) -> None:
        """It says what it is."""

    def signal(self, number: int) -> None:
        """Sends it a signal, unless it has ended."""

    def ended(self, timeout: float) -> str | None:
        """How it has ended; ``None`` if it has not within so many seconds."""

    def end(self, lingers: float = ...) -> int:
        """Waits for so many seconds until it is gone, and then ends it. Says how many processes all workers of the job
        have left, if it is the last of them."""


class Place(Protocol):
    """Where the workers of a step or of a service run."""

    def start(self, name: str, replica: int, pause: Pause | None, program: str, left: float | None) -> Started:
        """Starts one. ``pause`` tells it of a cancel meanwhile; ``left`` is how many seconds it may take, where that is
        not as the job's configuration says."""
