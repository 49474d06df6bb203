"""What an actor does: the worker program, in the actor's own process."""

from __future__ import annotations

import resource

from .._dial import dial
from .._worker import Worker, begun, standing_in

_worker: Worker | None = None


def run(host: str, port: int, key: bytes, program: str) -> tuple[float, int]:
    """Runs the functions of a replica, or a service, until the job says that it is over, or is gone. Returns what the
    process has used: seconds of processors, and the most bytes that it had."""
    global _worker
    link, works = begun(dial(host, port, key).detach(), program)
    if isinstance(works, Worker):
        _worker = works
    with standing_in(link):
        try:
            works.run()
        except EOFError:
            pass  # the job's process is gone
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Its peak of memory would be at least that of what has started this process.
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        (peak,) = (line for line in status if line.startswith("VmHWM:"))
    return used.ru_utime + used.ru_stime, int(peak.split()[1]) << 10


def end() -> None:
    """What is under way is dropped behind the record that is worked on."""
    if _worker is not None:
        _worker.end()
