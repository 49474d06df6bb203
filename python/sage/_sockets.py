"""A source that reads messages from a socket, as SAGE programs use it.

Its waits, for messages and for a connection, are the engine's, so that it ends with its job at once; but looking up the
address of a host's name is up to the system.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ._arguments import check_spelling, seconds, text, truth, whole
from ._functions import SourceFunction
from ._packet import StopSignal
from ._sage import wait_in_source

#: How long it waits at a time, in seconds, where the engine does not ask it: in a test of the class by itself.
_MOMENT = 0.01

_OPTIONS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 8888,
    "protocol": "tcp",
    "delimiter": "\n",
    "encoding": "utf-8",
    "errors": "strict",
    "reconnect": True,
    "reconnect_interval": 5.0,
    "timeout": 3.0,
    "buffer_size": 1024,
    "max_message_bytes": 16 << 20,
    "load_balancing": False,
    "client_id": None,
}


class SocketSource(SourceFunction):
    """Gives each message that comes from a socket, as a text without the white space around it; empty ones are left
    out: ``env.from_source(SocketSource, {"host": "127.0.0.1", "port": 9000, "protocol": "tcp"})``.

    The options, as a mapping or as arguments, with their defaults:

    - ``host`` ``"127.0.0.1"``, ``port`` 8888, ``protocol`` ``"tcp"``, which connects to them, or ``"udp"``, which
      receives what is sent to them;
    - ``delimiter`` ``"\\n"``, a text or ``bytes``: what ends a message. So does the end of a connection or a datagram;
    - ``encoding`` ``"utf-8"``, and ``errors`` ``"strict"`` as for ``bytes.decode``: bytes that are no text in it fail
      the job;
    - ``reconnect`` ``True``: when there is no connection, it tries every ``reconnect_interval`` (5) seconds to get one,
      and warns. With ``False`` the first failure to connect, or an error of the connection, fails the job, and the end
      of the connection ends the stream;
    - ``timeout`` 3: after so many seconds without an answer an attempt to connect has failed;
    - ``buffer_size`` 1024: how many bytes are read at a time, for a datagram at most; ``max_message_bytes`` 16 MiB: a
      longer message fails the job;
    - ``load_balancing`` ``False``: whether the server is sent the JSON ``{"action": "register", "client_id": …}`` and
      the delimiter first, and ``deregister`` at the end; ``client_id`` is the name of this machine by default.
    """

    def __init__(self, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        given = {**(config or {}), **options}
        check_spelling("`SocketSource`", given, list(_OPTIONS))
        self.config = {name: given.get(name, usual) for name, usual in _OPTIONS.items()}
        config = self.config
        self.host, self.port = text("`host`", config["host"]), whole("`port`", config["port"], 1, 65_535)
        self.protocol = str(config["protocol"]).lower()
        if self.protocol not in ("tcp", "udp"):
            raise ValueError(f'`protocol` is "tcp" or "udp", not {config["protocol"]!r}')
        self.encoding, self.errors = config["encoding"], config["errors"]
        b"".decode(self.encoding, self.errors)  # raises for what is none
        delimiter = config["delimiter"]
        self.delimiter: bytes = delimiter.encode(self.encoding) if isinstance(delimiter, str) else bytes(delimiter)
        if not self.delimiter:
            raise ValueError("`delimiter` ends each message, so it is not empty")
        self.reconnect = truth("`reconnect`", config["reconnect"])
        self.reconnect_interval = seconds("`reconnect_interval`", config["reconnect_interval"])
        self.timeout = seconds("`timeout`", config["timeout"], more=True)
        self.buffer_size = whole("`buffer_size`", config["buffer_size"], 1, 1 << 30)
        self._most = whole("`max_message_bytes`", config["max_message_bytes"], 1, 1 << 31)
        self.load_balancing = truth("`load_balancing`", config["load_balancing"])
        self.client_id = config["client_id"] or socket.gethostname()
        self._place = f"{self.host}:{self.port}"
        self._socket: socket.socket | None = None
        self.is_connected = False
        #: The addresses to try, and until when the present one is; when to try again.
        self._addresses: deque[Any] = deque()
        self._until = self._next = 0.0
        self._buffer = bytearray()
        self._messages: deque[str] = deque()

    def execute(self) -> Any:
        """The next message; ``None`` if there is none yet, and the engine has something else to do."""
        if not self._messages:
            try:
                if self.is_connected:
                    self._read()
                elif (rest := self._next - time.monotonic()) <= 0:
                    self._connect()
                elif rest < float("inf") and wait_in_source(rest) is None:
                    time.sleep(min(_MOMENT, rest))
            except OSError as error:
                self._broken(error)
        if self._messages:
            return self._messages.popleft()
        return StopSignal(self._place) if self._socket is None and self._next == float("inf") else None

    def close(self) -> None:
        """Closes the connection."""
        if self.is_connected and self.load_balancing and self.protocol == "tcp":
            with suppress(OSError):  # it is gone already
                self._send("deregister")
        self._disconnect()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self.is_connected = None, False

    def _connect(self) -> None:
        """Goes on with an attempt to connect, or begins one."""
        is_udp = self.protocol == "udp"
        if self._socket is None:
            if not self._addresses:
                kind = socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM
                self._addresses.extend(socket.getaddrinfo(self.host, self.port, type=kind))
            family, kind, protocol, _, address = self._addresses.popleft()
            self._socket = socket.socket(family, kind, protocol)
            self._socket.setblocking(False)
            if is_udp:
                self._socket.bind(address)
                self.is_connected = True
                return
            self._until = time.monotonic() + self.timeout
            code = self._socket.connect_ex(address)
            if code not in (0, errno.EINPROGRESS, errno.EINTR):
                raise OSError(code, os.strerror(code))
        if not self._waited(select.POLLOUT, self._until - time.monotonic()):
            if time.monotonic() > self._until:
                raise TimeoutError(f"no answer within {self.timeout:g} s")
            return
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self.is_connected = True
        self._addresses.clear()
        self.logger.info("connected to %s", self._place)
        if self.load_balancing:
            self._send("register")

    def _waited(self, event: int, limit: float | None = None) -> bool:
        """Waits for an event of the socket, for ``limit`` seconds at most; says whether it has come."""
        assert self._socket is not None
        limit = None if limit is None else max(0.0, limit)
        has_come = wait_in_source(limit, self._socket.fileno(), event == select.POLLOUT)
        if has_come is not None:
            return has_come
        poll = select.poll()
        poll.register(self._socket, event)
        return bool(poll.poll(_MOMENT * 1000))

    def _send(self, action: str) -> None:
        assert self._socket is not None
        message = json.dumps({"action": action, "client_id": self.client_id}).encode(self.encoding)
        self._socket.settimeout(self.timeout)
        self._socket.sendall(message + self.delimiter)
        self._socket.setblocking(False)

    def _read(self) -> None:
        """Reads what has come."""
        assert self._socket is not None
        if not self._waited(select.POLLIN):
            return
        data = self._socket.recv(self.buffer_size)
        begin = max(0, len(self._buffer) - len(self.delimiter) + 1)
        self._buffer += data
        while (end := self._buffer.find(self.delimiter, begin)) >= 0:
            self._take(end)
            del self._buffer[: end + len(self.delimiter)]
            begin = 0
        if self.protocol == "udp" or not data:
            self._take(len(self._buffer))
            self._buffer.clear()
        if len(self._buffer) > self._most:
            raise ValueError(
                f"a message from {self._place} is longer than {self._most} bytes; `delimiter` or `max_message_bytes` "
                "may be meant otherwise"
            )
        if self.protocol == "tcp" and not data:
            self._disconnect()
            self._next = time.monotonic() + self.reconnect_interval if self.reconnect else float("inf")
            self.logger.info("%s has ended the connection", self._place)

    def _take(self, end: int) -> None:
        try:
            message = self._buffer[:end].decode(self.encoding, self.errors).strip()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"a message from {self._place} is not text in {self.encoding}: {error}; `encoding` names another, "
                "`errors='replace'` puts a mark in its place"
            ) from error
        if message:
            self._messages.append(message)

    def _broken(self, error: OSError) -> None:
        """There is no connection: tries the next address, or again later, or fails."""
        was_connected, lost = self.is_connected, len(self._buffer)
        self._disconnect()
        self._buffer.clear()
        if self._addresses and not was_connected:
            return
        said = f"no connection to {self._place}: {error}" + (f"; {lost} bytes of a message are lost" if lost else "")
        if not self.reconnect or self.protocol == "udp":
            raise ConnectionError(said) from error
        self._next = time.monotonic() + self.reconnect_interval
        self.logger.warning("%s; the next attempt is in %g s", said, self.reconnect_interval)
