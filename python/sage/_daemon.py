"""Asks a job manager: finds it and its token, sends requests, and reads its streams.

Over the socket in the job manager's folder if it is this user's on this machine, else over TCP. Each request has a
connection of its own, and the calling thread waits for the answer. What comes is bounded, and read as JSON.

The token goes to who may know it: over the socket, whose other end is a process of this user or of the system's; over
TCP only where the job manager is on another machine, or where `SAGE_TOKEN` says it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

from ._arguments import text, whole

#: The largest answer, and the longest line of a stream, in bytes.
_MOST_BYTES = 256 << 20
_LONGEST_LINE = 64 << 20

#: As much of its output as one answer has, in bytes.
_PIECE = 1 << 20

#: Where events of a job's own jobs begin that a stream is to tell: behind all that are kept.
_NO_EVENTS = 1 << 40

_LOCAL = ("127.0.0.1", "localhost", "::1", "")


class NoJobManager(RuntimeError):
    """No job manager listens there, or none that this user may ask."""


class Refused(RuntimeError):
    """The job manager did not do what it was asked for."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        #: The status of HTTP, and why in one word.
        self.status = status
        self.code = code


class Broken(RuntimeError):
    """The connection broke, or what came is no answer of a job manager."""


class Late(Broken):
    """No answer came in time."""


class Happened(NamedTuple):
    """An event of a stream."""

    name: str
    data: Any


class Piece(NamedTuple):
    """Some of a job's output."""

    #: Where it begins, and where the next one does.
    begin: int
    next: int
    #: How long all is.
    length: int
    content: bytes


def home() -> str:
    """The folder of all that belongs to this user: ``SAGE_HOME``, or ``~/.sage``."""
    return os.environ.get("SAGE_HOME") or os.path.join(os.path.expanduser("~"), ".sage")


class Daemon:
    """The job manager at a host and a port."""

    def __init__(self, host: str, port: int, timeout: float = 30.0) -> None:
        self.host = text("`host`", host)
        self.port = whole("`port`", port, 1, 65535)
        #: How long an answer may take, in seconds.
        self.timeout = timeout

    @property
    def folder(self) -> str:
        """That of the job manager of this user with this port."""
        return os.path.join(home(), "jobmanager", str(self.port))

    def ask(self, method: str, path: str, body: Any = None, timeout: float | None = None) -> Any:
        """Sends a request; returns the answer, or ``None`` if it has no content."""
        with self._answered(method, path, body, timeout or self.timeout) as (answer, _):
            read = _read(answer)
        try:
            return json.loads(read) if read else None
        except ValueError as error:
            raise Broken(f"{self} gave an answer that is no JSON: {error}") from error

    def of(self, job: str, what: str = "", method: str = "GET", timeout: float | None = None) -> Any:
        """Asks for something of a job, or has it do something."""
        return self.ask(method, _of(job, what), timeout=timeout)

    def output(self, job: str, begin: int) -> Piece:
        """A piece of a job's output from this byte on."""
        path = f"{_of(job, 'output')}?from={begin}&limit={_PIECE}"
        with self._answered("GET", path, None, self.timeout) as (answer, _):
            try:
                begin, end, length = (int(answer.headers[f"X-Sage-{name}"]) for name in ("From", "Next", "Length"))
            except (TypeError, ValueError) as error:
                raise Broken(f"{self} does not say which piece of the output it gives") from error
            return Piece(begin, end, length, _read(answer))

    def stream(self, job: str, until: float | None = None) -> Generator[Happened, None, None]:
        """What happens to a job from now on: first ``record``, and last ``over``. Raises ``TimeoutError`` at the moment
        ``until``, by ``time.monotonic``."""
        path = f"{_of(job, 'stream')}?after={_NO_EVENTS}"
        with self._answered("GET", path, None, self.timeout) as (answer, connected):
            # The other machine may be gone.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connected.settimeout(None)

            def before() -> None:
                if until is not None:
                    connected.settimeout(max(until - time.monotonic(), 0.001))

            yield from _events(answer, before)

    @contextmanager
    def _answered(
        self, method: str, path: str, body: Any, timeout: float
    ) -> Iterator[tuple[http.client.HTTPResponse, socket.socket]]:
        connection, token = self._connection(timeout)
        headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
        content = None
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            try:
                connection.connect()
            except (OSError, http.client.HTTPException) as error:
                raise NoJobManager(self._none(error)) from error
            connected: socket.socket = connection.sock
            try:
                connection.request(method, f"/api/v1{path}", content, headers)
                answer = connection.getresponse()
            except TimeoutError as error:
                raise Late(f"{self} did not answer within {timeout:g} s") from error
            except (OSError, http.client.HTTPException) as error:
                raise Broken(f"the connection to {self} broke: {type(error).__name__}: {error}") from error
            with answer:
                if answer.status >= 400:
                    raise self._refused(answer)
                try:
                    yield answer, connected
                except TimeoutError:
                    raise
                except (OSError, http.client.HTTPException) as error:
                    raise Broken(f"the connection to {self} broke: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def _connection(self, timeout: float) -> tuple[http.client.HTTPConnection, str]:
        if given := os.environ.get("SAGE_TOKEN"):
            return http.client.HTTPConnection(self.host, self.port, timeout), given
        if self.host not in _LOCAL:
            raise NoJobManager(f"the token of {self} is not known: set SAGE_TOKEN to it")
        path = os.path.join(self.folder, "token")
        try:
            with open(path, encoding="ascii") as file:
                token = file.read(1024).strip()
        except FileNotFoundError as error:
            raise NoJobManager(self._none(error)) from None
        except (OSError, ValueError) as error:
            raise NoJobManager(f"the token of {self} cannot be read: {error}") from error
        return _OverSocket(os.path.join(self.folder, "socket"), timeout), token

    def _none(self, error: Exception) -> str:
        if self.host not in _LOCAL:
            return f"no job manager listens at {self.host}:{self.port} ({error})"
        port = "" if self.port == 19001 else f" --port {self.port}"
        reason = f" ({error})" if isinstance(error, PermissionError) else ""
        return f"no job manager runs at port {self.port}{reason}: start one with `sage jobmanager start{port}`"

    def _refused(self, answer: http.client.HTTPResponse) -> Refused:
        read = _read(answer, 1 << 20)
        try:
            told = json.loads(read)
            message, code = str(told["error"]), str(told["code"])
        except (TypeError, ValueError, KeyError):
            message, code = f"{self} answered with status {answer.status}", "unknown"
        if answer.status == 401:
            message = f"{self} does not take the token: {message}"
        return Refused(message, answer.status, code)

    def __str__(self) -> str:
        return f"the job manager at {self.host}:{self.port}"


def _of(job: str, what: str) -> str:
    """The path of something of a job, of which a client may have any words."""
    path = f"/jobs/{quote(job, safe='')}"
    return f"{path}/{what}" if what and not what.startswith("?") else path + what


def _read(answer: http.client.HTTPResponse, most: int = _MOST_BYTES) -> bytes:
    read = answer.read(most + 1)
    if len(read) > most:
        raise Broken(f"an answer of a job manager has more than {most:,} bytes")
    if answer.length:
        raise http.client.IncompleteRead(read, answer.length)
    return read


def _events(answer: http.client.HTTPResponse, before: Callable[[], None]) -> Iterator[Happened]:
    """The events of a stream; ``before`` is called before each line is waited for."""
    name, lines = "", list[str]()
    size = 0
    while True:
        before()
        if not (line := answer.readline(_LONGEST_LINE + 1)):
            return
        size += len(line)
        if size > _LONGEST_LINE:
            raise Broken(f"an event of a job manager has more than {_LONGEST_LINE:,} bytes")
        field, _, value = line.decode(errors="replace").rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            lines.append(value)
        elif not field and not value:
            if lines:
                yield _happened(name, "\n".join(lines))
            name, lines, size = "", [], 0


def _happened(name: str, data: str) -> Happened:
    try:
        told = json.loads(data)
    except ValueError as error:
        raise Broken(f"an event of a job manager is no JSON: {error}") from error
    if name == "error":
        raise Refused(f"the job manager has ended a stream: {told.get('error', told)}", 500, "failed")
    return Happened(name, told)


class _OverSocket(http.client.HTTPConnection):
    """A connection over a socket in a folder of this user."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connects, if a process of this user's or of the system's listens there."""
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.settimeout(self.timeout)
            # The address of a socket has 107 bytes at most: the folder is opened, and called by its number.
            folder = os.open(os.path.dirname(self._path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self.sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(self._path)}")
            finally:
                os.close(folder)
            peer = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            if struct.unpack("3i", peer)[1] not in (os.geteuid(), 0):
                raise PermissionError("a process of another user listens there")
        except BaseException:
            self.sock.close()
            raise
