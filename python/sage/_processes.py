"""The worker processes of a job, and their guard: see ``_guard.py``.

Workers are started by the guard, which the first of them starts and the last one ends. A pid is signalled by the guard
as well, which has not reaped it then.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any, NamedTuple

_FLAGS: Any = importlib.import_module("subprocess")

#: How long a worker that has closed its socket may take to be gone, in seconds, before it is sent SIGTERM; and then,
#: before it is killed.
_LINGERS = 5.0
_PATIENCE = 0.5


class WorkerTold(NamedTuple):
    """What becomes of a worker: see ``WorkerReport`` in Rust."""

    operator: str
    replica: int
    pid: int
    node: str
    guard: str
    #: In seconds.
    cpu: float
    peak_bytes: int
    end: str


class Guard:
    """The place of workers that are processes of this machine: starts those of one job, and ends what they leave."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(self, name: str, replica: int, pause: Any, program: str, left: float | None) -> Process:
        """Starts a worker: see ``Place``."""
        return Process(self, command(program))

    def spawn(self, argv: list[str], stdin: socket.socket, pipe: int) -> None:
        """Starts a process; it is held until ``release``."""
        with self._lock:
            handed = (stdin.fileno(), pipe)
            if self._socket is None:
                self._begin(argv, handed)
            else:
                socket.send_fds(self._socket, [_message("start", *argv)], handed)
            self._holders += 1

    def _begin(self, argv: list[str], handed: tuple[int, int]) -> None:
        """Starts the guard, which starts the first worker."""
        file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_guard.py")
        guard = [sys.executable, "-I", "-S", file, str(os.getpid()), *map(str, handed), *argv]
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with its:
                # A session of its own: what a terminal sends to the program's group is not for workers.
                self._process = subprocess.Popen(guard, stdin=its.fileno(), pass_fds=handed, start_new_session=True)
        except BaseException:
            ours.close()
            raise
        self._socket = ours

    def signal(self, pid: int, number: int) -> None:
        """Sends a signal to a worker, unless it has ended."""
        with self._lock, suppress(OSError):
            if self._socket is not None:
                self._socket.send(_message("signal", str(pid), str(int(number))))

    def release(self) -> int:
        """A worker has ended. With the last one, the guard ends, and this says how many processes workers had left."""
        with self._lock:
            self._holders -= 1
            if self._holders or self._process is None or self._socket is None:
                return 0
            self._socket.close()
            self._socket = None
            process, self._process = self._process, None
            return max(process.wait(), 0)


def _message(*words: str) -> bytes:
    return os.fsencode("\0".join(words))


class Process:
    """A worker process, and the socket to it."""

    #: What ends it when this process is killed.
    guard = "subreaper"

    def __init__(self, guard: Guard, argv: list[str]) -> None:
        self._started_by = guard
        self.socket, its = socket.socketpair()
        told, pipe = os.pipe()
        self._pipe: int | None = told
        try:
            guard.spawn(argv, its, pipe)
        except BaseException:
            self.socket.close()
            os.close(told)
            raise
        finally:
            its.close()
            os.close(pipe)
        self._read = b""
        #: Of those that ask how it has ended.
        self._lock = threading.Lock()
        #: As ``waitpid`` gives it, when it is known.
        self._status: int | None = None
        #: What it has used, when it has ended: seconds of processors, and bytes at a time.
        self.cpu = 0.0
        self.peak_bytes = 0
        line = self._line(None)
        if not line.isdigit():
            self.end()
            raise OSError(f"a worker could not be started: {line or 'the guard of the workers has ended'}")
        self.pid = int(line)
        #: The machine, where that is not this one.
        self.node = ""

    def began(self, pid: int, node: str) -> None:
        """It says what it is, which the guard has told already."""

    def _line(self, timeout: float | None) -> str:
        """The next line that the guard tells of it; an empty one if there is none."""
        while b"\n" not in self._read:
            poll = select.poll()
            assert self._pipe is not None, "it is open"
            poll.register(self._pipe, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                return ""
            if not (more := os.read(self._pipe, 4096)):
                return ""
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def signal(self, number: int) -> None:
        """Sends it a signal, unless it has ended."""
        self._started_by.signal(self.pid, number)

    def ended(self, timeout: float) -> str | None:
        """How it has ended; ``None`` if it has not within so many seconds."""
        with self._lock:
            if self._status is None:
                line = "" if self._pipe is None else self._line(timeout)
                if not line:
                    return None
                number, cpu, kilobytes = line.split()
                self._status, self.cpu, self.peak_bytes = int(number), float(cpu), int(kilobytes) << 10
            status = self._status
        if os.WIFSIGNALED(status):
            sent = os.WTERMSIG(status)
            with suppress(ValueError):
                return f"was killed by {signal.Signals(sent).name}"
            return f"was killed by signal {sent}"
        return f"ended with exit code {os.WEXITSTATUS(status)}"

    def end(self, lingers: float = _LINGERS) -> int:
        """Waits for so many seconds until it is gone, then asks it to go, and kills it if it does not. Says how many
        processes all the workers have left, if it is the last of them."""
        self.socket.close()
        try:
            if hasattr(self, "pid") and self.ended(lingers) is None:
                self.signal(signal.SIGTERM)
                if self.ended(_PATIENCE) is None:
                    self.signal(signal.SIGKILL)
                    self.ended(_LINGERS)
            return self._started_by.release()
        finally:
            pipe, self._pipe = self._pipe, None
            if pipe is not None:
                os.close(pipe)


def command(program: str = "") -> list[str]:
    """What starts a worker, with the flags of this interpreter."""
    flags: list[str] = _FLAGS._args_from_interpreter_flags()
    return [sys.executable, *flags, "-m", "sage.worker", *([program] if program else [])]
