"""How a worker on another machine reaches its job: it dials, and each side shows that it knows the other's secret.

The secret is one of each worker, given to it when it was started, and good for one connection. Nothing is unpickled
before. What goes over the connection is not encrypted.

The job sends 32 random bytes. The worker answers with 32 of its own and the HMAC-SHA256, under the secret, of its role
and both; the job sends the same with its role.
"""

from __future__ import annotations

import hmac
import math
import secrets
import select
import socket
import time

_BYTES = 32

#: How many connections may wait to show that they are the worker, and how long each may take, in seconds.
_MOST_WAITING = 64
_LONGEST = 10.0


def secret() -> bytes:
    """A new one."""
    return secrets.token_bytes(_BYTES)


def _proof(key: bytes, role: bytes, one: bytes, other: bytes) -> bytes:
    return hmac.digest(key, role + one + other, "sha256")


class Listener:
    """Waits for one worker."""

    def __init__(self, host: str) -> None:
        self._key = secret()
        self._socket = socket.create_server((host, 0), backlog=_MOST_WAITING)
        self._socket.setblocking(False)
        #: Connections that have not shown yet who they are, by their descriptors.
        self._waiting: dict[int, _Waiting] = {}

    @property
    def address(self) -> tuple[str, int, bytes]:
        """What the worker is to be given: host, port and secret."""
        host, port = self._socket.getsockname()[:2]
        return host, port, self._key

    def accepted(self, wakes: list[int], until: float) -> socket.socket | None:
        """The connection of the worker. ``None`` when one of the descriptors is readable, or at that moment of the
        clock ``time.monotonic``; the next call goes on then with the connections that there are."""
        waiting = self._waiting
        while (now := time.monotonic()) < until:
            for descriptor in [found for found, other in waiting.items() if other.until <= now]:
                waiting.pop(descriptor).socket.close()
            poll = select.poll()
            for descriptor in [self._socket.fileno(), *wakes, *waiting]:
                poll.register(descriptor, select.POLLIN)
            next_end = min([until, *(other.until for other in waiting.values())])
            for descriptor, _ in poll.poll(math.ceil((next_end - now) * 1000)):
                if descriptor in wakes:
                    return None
                if descriptor == self._socket.fileno():
                    self._accept()
                elif (connection := self._heard(descriptor)) is not None:
                    return connection
        return None

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return  # it is gone again
        if len(self._waiting) >= _MOST_WAITING:
            connection.close()
            return
        connection.setblocking(False)
        ours = secrets.token_bytes(_BYTES)
        try:
            connection.send(ours)
        except OSError:
            connection.close()
            return
        self._waiting[connection.fileno()] = _Waiting(connection, ours)

    def _heard(self, descriptor: int) -> socket.socket | None:
        other = self._waiting[descriptor]
        try:
            more = other.socket.recv(2 * _BYTES - len(other.read))
        except OSError:
            more = b""
        other.read += more
        if more and len(other.read) < 2 * _BYTES:
            return None
        del self._waiting[descriptor]
        its, proof = other.read[:_BYTES], other.read[_BYTES:]
        if not more or not hmac.compare_digest(proof, _proof(self._key, b"worker", other.ours, its)):
            other.socket.close()
            return None
        other.socket.setblocking(True)
        other.socket.sendall(_proof(self._key, b"job", its, other.ours))
        _prepare(other.socket)
        return other.socket

    def close(self) -> None:
        """Listens no more, and closes the connections that are not the worker's."""
        self._socket.close()
        while self._waiting:
            self._waiting.popitem()[1].socket.close()


class _Waiting:
    """A connection that has not shown yet who it is."""

    def __init__(self, connection: socket.socket, ours: bytes) -> None:
        self.socket = connection
        self.ours = ours
        self.read = b""
        self.until = time.monotonic() + _LONGEST


def dial(host: str, port: int, key: bytes) -> socket.socket:
    """The connection to the job. Raises ``ConnectionError`` if that does not know the secret."""
    connection = socket.create_connection((host, port), timeout=_LONGEST)
    try:
        its, ours = _received(connection), secrets.token_bytes(_BYTES)
        connection.sendall(ours + _proof(key, b"worker", its, ours))
        if not hmac.compare_digest(_received(connection), _proof(key, b"job", ours, its)):
            raise ConnectionError(f"what listens at {host}:{port} is not this worker's job")
        connection.settimeout(None)
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _received(connection: socket.socket) -> bytes:
    read = b""
    while len(read) < _BYTES:
        more = connection.recv(_BYTES - len(read))
        if not more:
            raise ConnectionError("the job has closed the connection")
        read += more
    return read


def _prepare(connection: socket.socket) -> None:
    """Frames go at once, and a machine that is gone is noticed while nothing is sent to it. No limit is set to how long
    what was sent may wait: a worker does not read while it is at work, and the system would take that for an end."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3)):
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
