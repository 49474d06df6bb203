"""Leak checks around every test: what a job started must be gone when its test is over. Each run has temporary
folders of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


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


def _threads() -> list[str]:
    tasks = Path("/proc/self/task")
    names = []
    for task in tasks.iterdir():
        try:
            names.append((task / "comm").read_text(errors="replace").strip())
        except OSError:
            continue
    # One per process, from the first job on.
    return sorted(name for name in names if name != "sage-signals")


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def leak_free() -> Iterator[None]:
    """Fails a test that leaves a thread or a descriptor behind."""
    before = _threads(), _descriptors()
    yield
    deadline = threading.Event()
    for _ in range(500):
        if (_threads(), _descriptors()) == before:
            return
        # An abandoned call may still be ending; nothing notifies of the end of a thread.
        deadline.wait(0.01)
    assert (_threads(), _descriptors()) == before
