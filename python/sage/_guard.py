"""The guard of a job's workers: a process that starts them, tells how they end, and ends what is left.

It runs as a program by itself, of the standard library alone, so that it is there at once. It is a subreaper: what a
worker started and left becomes its child, whatever session it is in. When the other end of its socket is closed, as the
job has ended, or when its process is gone, it kills all that is below it, and ends; its exit status says how many
processes that were, 200 at most.

A message on its socket is a line of JSON: ``["start", argv]``, which comes with two descriptors, the worker's standard
input and a pipe for what becomes of it; or ``["signal", pid, number]``. Into the pipe go the worker's pid, or why it
could not be started, and when it has ended its exit status as ``waitpid`` gives it, the seconds that it used of
processors, and the most kilobytes that it had: a line each time.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_MOST_TOLD = 200
_MOST_BYTES = 256 << 10

#: What becomes of each worker goes into its pipe.
_pipes: dict[int, int] = {}


def main() -> int:
    """Runs until the socket is closed."""
    channel = socket.socket(fileno=os.dup(0))
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no process can adopt what workers leave")
    wakes, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(wakes, select.POLLIN)
    # What the program has forked off may hold the other end of the socket for longer than the program is there.
    program = -1
    try:
        program = os.pidfd_open(int(sys.argv[1]))
        poll.register(program, select.POLLIN)
    except ProcessLookupError:
        return 0
    except OSError:
        pass  # before Linux 5.3, and in some sandboxes, the socket alone tells
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == wakes:
                with suppress(BlockingIOError):
                    os.read(wakes, 4096)
                _reap()
            elif descriptor == program or not _heed(channel):
                return min(_end_all(), _MOST_TOLD)


def _heed(channel: socket.socket) -> bool:
    message, descriptors, _, _ = socket.recv_fds(channel, _MOST_BYTES, 2)
    for descriptor in descriptors:
        # Nobody is to inherit them: whatever holds a worker's socket hides the worker's end.
        os.set_inheritable(descriptor, False)
    if not message:
        return False
    kind, *arguments = json.loads(message)
    if kind == "start":
        _start(arguments[0], *descriptors)
    elif arguments[0] in _pipes:  # it is not reaped, so the pid is its own
        os.kill(*arguments)
    return True


def _start(argv: list[str], stdin: int, pipe: int) -> None:
    try:
        # What is ignored here is to be as usual there.
        defaults = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE]
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0)]
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigdef=defaults)
    except OSError as error:
        os.write(pipe, f"{error}\n".encode())
        os.close(pipe)
    else:
        _pipes[pid] = pipe
        _tell(pipe, f"{pid}\n")
    os.close(stdin)


def _tell(pipe: int, line: str) -> None:
    with suppress(BrokenPipeError):
        os.write(pipe, line.encode())


def _reap() -> None:
    with suppress(ChildProcessError):
        while (ended := os.wait4(-1, os.WNOHANG))[0]:
            _ended(*ended)


def _ended(pid: int, status: int, used: Any) -> None:
    pipe = _pipes.pop(pid, None)
    if pipe is not None:
        _tell(pipe, f"{status} {used.ru_utime + used.ru_stime} {used.ru_maxrss}\n")
        os.close(pipe)


def _end_all() -> int:
    """Kills all that is below. What a process leaves is its parent's no more, and then this one's: so when there are no
    children, nothing is left."""
    found: set[int] = set()
    while children := _children():
        found.update(children)
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _ended(*os.wait4(-1, 0))
        _reap()
    return len(found)


def _children() -> list[int]:
    _reap()
    me, found = os.getpid(), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            if int(file.read().rpartition(b")")[2].split()[1]) == me:
                found.append(int(name))
    return found


if __name__ == "__main__":
    sys.exit(main())
