"""Runs a job of the job manager in its own process: ``python -m sage.worker --job FILE``, which ``sage run`` starts.

It ends as a program does that submits the environment itself: exit code 0 if the job succeeded and left nothing, else
the exception on standard error and 1, or the effect of the signal.
"""

from __future__ import annotations

import os
import sys
import types
from typing import NoReturn

from . import _payload


def main() -> None:
    """Runs the job of the file that the command line names."""
    if len(sys.argv) != 3:
        print("sage.worker: --job takes the file of a job, which the job manager has written", file=sys.stderr)
        sys.exit(2)
    payload = _read(sys.argv[2])
    try:
        header = _payload.header_of(payload)
        _payload.check(header)
    except ValueError as error:
        _refuse(f"{error}")
    program = _become(header)
    # Whoever watches sees each line as it is printed, though nobody does at a terminal.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    try:
        environment = _payload.load(payload, program)
    except ModuleNotFoundError as error:
        _refuse(f"environment `{header.name}` needs `{error.name}`, which is not there for {sys.executable}: {error}")
    del payload
    environment.submit(autostop=True)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_payload.MOST_BYTES + 1)
    except OSError as error:
        _refuse(f"the file of the job cannot be read: {error}")


def _refuse(why: str) -> NoReturn:
    print(f"sage.worker: {why}", file=sys.stderr)
    sys.exit(1)


def _become(header: _payload.Header) -> types.ModuleType:
    """Makes this process what the program was: its folder, the places of its modules, and a main module, which has
    nothing yet."""
    os.chdir(header.folder)
    sys.path[:] = header.path
    sys.argv[:] = header.argv
    if not header.safe_path:
        # The reaper has set it for this process: modules in the folder were not to be in the way of the package's.
        os.environ.pop("PYTHONSAFEPATH", None)
    if sys.prefix != sys.base_prefix:
        # As a shell has it where a virtual environment is active.
        os.environ["VIRTUAL_ENV"] = sys.prefix
    program = sys.modules["__main__"] = types.ModuleType("__main__")
    return program
