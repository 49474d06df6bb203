"""The worker program, ``python -m sage.worker``: a job starts it where its functions run in processes of their own.
See ``_worker.py``. With ``--job FILE`` it is the process of a job of the job manager: see ``_submitted.py``."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the worker, or the job."""
    if sys.argv[1:2] == ["--job"]:
        from ._submitted import main as run
    else:
        from ._worker import main as run
    run()


if __name__ == "__main__":
    main()
