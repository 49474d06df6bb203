"""The states of functions that are kept for those that take their place, and the files that show them.

A state is restored from this process's memory, never from a file: a file is for people to read, and no later run reads
it. It is JSON; what JSON has no word for is told as its ``repr``.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
import time
from collections.abc import Mapping
from typing import Any
from zlib import crc32

from ._arguments import said
from ._files import write_private
from ._sage import StateNotKept

#: How much of a name the name of a file has.
_NAME_CHARS = 40


class Checkpoint:
    """The last state that was kept of a function of one replica."""

    def __init__(self, folder: str, environment: str, function: str, replica: int) -> None:
        told = "-".join(re.sub(r"[^A-Za-z0-9_]+", "_", name)[:_NAME_CHARS] for name in (environment, function))
        # Names that look the same so are told apart.
        number = crc32(f"{environment}\0{function}".encode())
        self.path = os.path.join(folder, f"{told}-{number:08x}-{replica}.json")
        self._told = {"environment": environment, "function": function, "replica": replica}
        self._function = function
        self._state: dict[Any, Any] | None = None

    def keep(self, state: Any, records: int) -> None:
        """Keeps a state, after so many records, and writes it. Raises ``StateNotKept``."""
        try:
            if not isinstance(state, dict):
                raise TypeError(f"`get_state` returns a dict, not {said(state)}")
            self._state = copy.deepcopy(state)
            told = {**self._told, "records": records, "taken": time.time(), "state": state}
            self._write(json.dumps(_plain(told), indent=1))
        except Exception as error:
            raise not_kept(self._function, error) from error

    def state(self) -> dict[Any, Any] | None:
        """A copy of the state; ``None`` if none was kept."""
        return copy.deepcopy(self._state)

    def _write(self, text: str) -> None:
        folder = os.path.dirname(self.path)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        write_private(self.path, text)


def not_kept(function: str, error: BaseException) -> StateNotKept:
    """The error for a state that cannot be kept."""
    return StateNotKept(f"the state of `{function}` cannot be kept as a checkpoint: {type(error).__name__}: {error}")


def _plain(value: Any) -> Any:
    """The value as JSON has it."""
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else said(key): _plain(other) for key, other in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(other) for other in value]
    return said(value)
