"""A real job manager for tests: started as programs for SAGE start it, with a folder and a port of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

MODULE = "sage.kernel.jobmanager.job_manager"


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


class RunningDaemon:
    """A job manager that runs."""

    def __init__(self, home: Path, port: int = 0, module: str = MODULE) -> None:
        self.home, self.port, self._module = home, port or free_port(), module
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        command = [sys.executable, "-m", self._module, "--host", "127.0.0.1", "--port", str(self.port)]
        variables = {**os.environ, "SAGE_HOME": str(self.home)}
        self._process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("the job manager listens"), line

    @property
    def folder(self) -> Path:
        return self.home / "jobmanager" / str(self.port)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ends it by a signal, and returns how it has ended."""
        self._process.send_signal(number)
        code = self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def left(self) -> list[str]:
        """The processes of its jobs that there are, by their command lines."""
        found, mark = [], f"SAGE_LOG_DIR={self.home}/".encode()
        for process in Path("/proc").iterdir():
            try:
                variables = (process / "environ").read_bytes().split(b"\0")
                if any(variable.startswith(mark) for variable in variables):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found


class Gate:
    """Where a job waits for its test."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._listens: socket.socket | None = socket.socket(socket.AF_UNIX)
        self._listens.bind(self.path)
        self._listens.listen()
        self._listens.settimeout(60)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_listens": None}

    def meet(self) -> None:
        """Of the test: waits for the job, and lets it go on."""
        assert self._listens is not None
        self._listens.accept()[0].close()

    def close(self) -> None:
        """Of the test: whoever waits goes on."""
        assert self._listens is not None
        self._listens.close()

    def wait(self) -> None:
        """Of the job: waits for the test."""
        wait(self.path)


def wait(path: str) -> None:
    """Waits at the gate of this path."""
    with socket.socket(socket.AF_UNIX) as job:
        job.connect(path)
        job.recv(1)
