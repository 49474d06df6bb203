"""Servers of stores, each in a folder and at a port of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from sage._sage import die_with_parent
from sage.services import VectorStore

ROOT = Path(__file__).parents[2]

#: What the program `chroma` runs, without the packages that it imports before.
CHROMA = "import sys, chromadb_rust_bindings as chroma; chroma.cli(['chroma', *sys.argv[1:]])"

#: What starts each of them, before the options of its address; and its option for the folder.
COMMANDS = {
    "chroma": (["-c", CHROMA, "run"], "--path"),
    "milvus": (["-m", "milvus_lite", "server"], "--data-dir"),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


class Server:
    """A running server; ``with`` ends it. It also ends with the thread that started it, however that ends."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None
        self.restart()

    def restart(self) -> None:
        """Starts it at the same port, on the same folder."""
        python = ROOT / f".venv-{self.kind}" / "bin" / "python"
        assert python.exists(), f"`{python}` is missing: it comes with `make test-stores`"
        start, folder = COMMANDS[self.kind]
        command = [python, *start, "--host", "127.0.0.1", "--port", f"{self.port}", folder, self._folder.name]
        quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        started = subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent, **quiet)
        self._process = started
        until = time.monotonic() + 60
        while True:
            assert started.poll() is None and time.monotonic() < until, f"{self.kind} does not start"
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.02)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def open(self, dimensions: int | None = None, **settings: Any) -> VectorStore:
        """A collection of it."""
        opened: VectorStore = self.opens(self.url, *([] if dimensions is None else [dimensions]), **settings)
        return opened

    @property
    def opens(self) -> Any:
        """What opens a collection, given the address."""
        return getattr(VectorStore, self.kind)

    def connections(self) -> int:
        """How many connections to it this process has."""
        inodes = set()
        for name in os.listdir("/proc/self/fd"):
            try:
                inodes.add(os.readlink(f"/proc/self/fd/{name}").removeprefix("socket:[").removesuffix("]"))
            except FileNotFoundError:
                pass  # the one that lists them
        rows = [line.split() for line in Path("/proc/self/net/tcp").read_text("ascii").splitlines()[1:]]
        return sum(row[2].endswith(f":{self.port:04X}") and row[9] in inodes for row in rows)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()
