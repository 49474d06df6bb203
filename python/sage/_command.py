"""The ``sage`` command of the package: the interpreter hosts the library that the binary of that name is made of.

It is imported for each job that the job manager starts, so it imports next to nothing.
"""

import os
import sys

from . import _sage


def itself() -> list[str]:
    """What starts the command anew, before its arguments."""
    # Modules in the folder that it is started in do not get in the way of the package's.
    flags = ["-P"] if sys.version_info >= (3, 11) else []
    return [sys.executable, *flags, "-m", "sage"]


def run(arguments: list[str]) -> int:
    """Runs the command with these arguments, and returns its exit code. Raises ``RuntimeError`` if this process has
    other threads."""
    if not sys.executable:
        raise RuntimeError("`sage` does not know which interpreter this is: sys.executable is empty")
    return _sage.command(["sage", *arguments], itself(), sys.executable)


def main() -> None:
    """Runs the command of the command line, and ends the interpreter."""
    end(sys.argv[1:])


def end(arguments: list[str]) -> None:
    """Runs the command, and ends the interpreter with its exit code."""
    try:
        code = run(arguments)
    except RuntimeError as error:
        print(f"sage: {error}", file=sys.stderr)
        code = 1
    # There is nothing to finalise, which would take as long as the start.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def daemon() -> None:
    """``python -m sage.kernel.jobmanager.job_manager``: runs the job manager here, until it is told to end."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m sage.kernel.jobmanager.job_manager",
        description="Runs the job manager in the foreground, as `sage jobmanager start --foreground` does.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address that it listens at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=19001, help="the port (default: %(default)s)")
    parser.add_argument("--no-daemon", action="store_true", help="listen nowhere, which leaves nothing to run")
    said = parser.parse_args()
    if said.no_daemon:
        parser.error("with --no-daemon there is nothing to run: jobs of LocalEnvironment need no job manager")
    end(["jobmanager", "start", "--foreground", "--host", said.host, "--port", str(said.port)])
