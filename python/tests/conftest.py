"""Leak checks around every test: what a job started must be gone when it returns. Each run has temporary
folders of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage import _sage
from sage._running import Run

# A shell's background commands begin with SIGINT ignored, and a job would leave it at that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


_own: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Gives each run a folder of its own. In the one that runs share otherwise, each removes what others are
    removing, and pytest warns of files that are gone."""
    if config.option.basetemp is None:
        _own.append(tempfile.mkdtemp(prefix="sage-tests-"))
        config.option.basetemp = _own[0]


def pytest_sessionfinish(exitstatus: int) -> None:
    """Keeps the folder only where something failed."""
    if exitstatus == 0 and _own:
        shutil.rmtree(_own[0], ignore_errors=True)


def _threads() -> dict[int, str]:
    """The threads of this process, by number and name."""
    names = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            names[int(task.name)] = (task / "comm").read_text(errors="replace").strip()
        except OSError:
            continue
    # One per process, from the first job on.
    return {thread: name for thread, name in names.items() if name != "sage-signals"}


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


#: Jobs of the test that runs whose reports say that something is left.
_unclean: list[Run] = []


_wait = Run.wait


def _noted(run: Run, *args: Any, **kwargs: Any) -> bool:
    """Waits for a job, and notes whether it has left something."""
    try:
        return _wait(run, *args, **kwargs)
    finally:
        report = run.job.report_json if run.job.is_over else None
        if report is not None and json.loads(report)["left"]:
            _unclean.append(run)


@pytest.fixture(autouse=True)
def leak_free(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test at whose end a thread or a descriptor is left that was not there before.

    Nobody waits for the engine's: they are gone when a job returns. A thread of the test's own that it has joined may
    still run its last instructions, and one that a job has abandoned, and its report has named, may be on its way out.
    """
    monkeypatch.setattr(Run, "wait", _noted)
    _unclean.clear()
    before, descriptors = set(_threads()), _descriptors()
    yield
    own = (Path("/proc/self/task") / str(os.getpid()) / "comm").read_text(errors="replace").strip()
    until = time.monotonic() + (5 if _unclean else 0)
    while True:
        more = {thread: name for thread, name in _threads().items() if thread not in before}
        for thread, name in more.items():
            if name == own:
                _sage.await_end(thread)
        more = {thread: name for thread, name in _threads().items() if thread not in before}
        if (not more and _descriptors() == descriptors) or time.monotonic() > until:
            break
        time.sleep(0.001)  # nothing tells of the end of a thread that was abandoned
    _unclean.clear()
    assert not more, "threads are left"
    assert _descriptors() == descriptors, "descriptors are left"
