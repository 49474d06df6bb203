"""The guard of a job's workers: a process that starts them, tells how they end, and ends what is left.

It runs as a program by itself, of little of the standard library, so that it is there at once: with the pid of the
job's process, the descriptors for the first worker, and that one's ``argv``. It is a subreaper: what a worker started
and left becomes its child, whatever session it is in. When the other end of its socket is closed, as the job has ended,
or when its process is gone, it kills all that is below it, and ends; its exit status says how many processes that were,
200 at most.

A message on its socket is a list of words with a zero byte between them: ``start`` and an ``argv``, which comes with
two descriptors, the worker's standard input and a pipe for what becomes of it; or ``signal``, a pid and a number. Into
the pipe go the worker's pid, or why it could not be started, and when it has ended its exit status as ``waitpid`` gives
it, the seconds that it used of processors, and the most kilobytes that it had: a line each time.
"""

from __future__ import annotations

import os
import sys

#: What becomes of each worker goes into its pipe.
_pipes: dict[int, int] = {}

#: What is ignored here, or may be, and is to be as usual there: SIGHUP, SIGINT, SIGPIPE and SIGTERM.
_IGNORED = (1, 2, 13, 15)


def _start(argv: list[str], stdin: int, pipe: int) -> None:
    for descriptor in (stdin, pipe):
        # Nobody is to inherit them: whatever holds a worker's socket hides the worker's end.
        os.set_inheritable(descriptor, False)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0)]
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigdef=_IGNORED)
    except OSError as error:
        _tell(pipe, f"{error}\n")
        os.close(pipe)
    else:
        _pipes[pid] = pipe
        _tell(pipe, f"{pid}\n")
    os.close(stdin)


def _tell(pipe: int, line: str) -> None:
    try:
        os.write(pipe, line.encode())
    except BrokenPipeError:
        pass


if __name__ == "__main__":
    # At once: what else the guard needs is imported while the worker begins, which leaves nothing before that.
    _start(sys.argv[4:], int(sys.argv[2]), int(sys.argv[3]))

import ctypes  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_MOST_TOLD = 200
_MOST_BYTES = 256 << 10


def main() -> None:
    """Runs until the socket is closed, or the program is gone."""
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
        return
    except OSError:
        pass  # before Linux 5.3, and in some sandboxes, the socket alone tells
    _reap()  # the first worker may have ended before there was a handler
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == wakes:
                try:
                    os.read(wakes, 4096)
                except BlockingIOError:
                    pass
                _reap()
            elif descriptor == program or not _heed(channel):
                return


def _heed(channel: socket.socket) -> bool:
    message, descriptors, _, _ = socket.recv_fds(channel, _MOST_BYTES, 2)
    if not message:
        return False
    kind, *words = os.fsdecode(message).split("\0")
    if kind == "start":
        _start(words, *descriptors)
        return True
    pid, number = map(int, words)
    if pid in _pipes:  # it is not reaped, so the pid is its own
        os.kill(pid, number)
    return True


def _reap() -> None:
    try:
        while (ended := os.wait4(-1, os.WNOHANG))[0]:
            _ended(*ended)
    except ChildProcessError:
        pass


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
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        _ended(*os.wait4(-1, 0))
        _reap()
    return len(found)


def _children() -> list[int]:
    _reap()
    me, found = os.getpid(), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            continue
        if parent == me:
            found.append(int(name))
    return found


if __name__ == "__main__":
    try:
        main()
    finally:
        left = _end_all()
    sys.exit(min(left, _MOST_TOLD))
