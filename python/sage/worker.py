"""The worker program, ``python -m sage.worker``: a job starts it where its functions run in processes of their own.
See ``_worker.py``."""

from __future__ import annotations

from ._worker import main

if __name__ == "__main__":
    main()
