"""Sources and sinks of files and of the terminal, as SAGE programs use them.

Each takes what it needs as arguments, or as one mapping, such as a section of a configuration file. A file is opened
when the job starts and closed when it ends; what cannot be read or written is an error that names the file.
"""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from ._functions import SimpleBatchFunction, SinkFunction, SourceFunction, StopSignal

#: By which names a mapping may give the path of a file.
_PATHS = ("path", "file_path", "data_path")


def _path_of(where: Any) -> str:
    if isinstance(where, Mapping):
        names = [name for name in _PATHS if name in where]
        if len(names) != 1:
            raise ValueError(f"a configuration of a file needs one of {', '.join(_PATHS)}: {dict(where)!r}")
        where = where[names[0]]
    return os.fsdecode(where)


class _Lines:
    """The lines of a text file in UTF-8, without their ends."""

    def __init__(self, where: Any) -> None:
        self.path = _path_of(where)
        self.number = 0
        self.file: TextIO = open(self.path, encoding="utf-8")

    def __iter__(self) -> Iterator[str]:
        try:
            for line in self.file:
                self.number += 1
                yield line.rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path} is no text in UTF-8, behind line {self.number}: {error}") from error
        except OSError as error:
            raise _named(error, self.path) from error


def _named(error: OSError, path: str) -> OSError:
    """The same error, which says for which file."""
    return OSError(error.errno, error.strerror, path)


class FileSource(SourceFunction):
    """Gives each line of a text file in UTF-8, without its end: ``env.from_source(FileSource, "names.txt")``."""

    def __init__(self, path: Any) -> None:
        self._lines = _Lines(path)
        self._next = iter(self._lines)

    def execute(self) -> Any:
        """The next line."""
        return next(self._next, _END)

    def close(self) -> None:
        """Closes the file."""
        self._lines.file.close()


_END = StopSignal("end of file")


class JSONLBatch(SimpleBatchFunction):
    """Gives the value of each line of JSON in a file: ``env.from_batch(JSONLBatch, "questions.jsonl")``. Empty
    lines are left out."""

    def __init__(self, path: Any) -> None:
        self._lines = _Lines(path)
        super().__init__(self._values())

    def _values(self) -> Iterator[Any]:
        for line in self._lines:
            if line.strip():
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{self._lines.path}, line {self._lines.number}: {error}") from error
                yield value

    def close(self) -> None:
        """Closes the file."""
        self._lines.file.close()


class FileSink(SinkFunction):
    """Writes each record to a file in UTF-8, as a whole line and at once: ``stream.sink(FileSink, "results.txt")``.

    ``mode="a"`` appends to what is there; otherwise the file is replaced, and there can be one replica only.
    """

    def __init__(self, path: Any, mode: str | None = None) -> None:
        self._path = _path_of(path)
        if mode is None and isinstance(path, Mapping):
            mode = path.get("mode")
        mode = mode or "w"
        if mode not in ("w", "a"):
            raise ValueError(f"a mode is `w` or `a`, not {mode!r}: {self._path}")
        if mode == "w" and self.ctx.parallelism > 1:
            raise ValueError(f"replicas would replace what the others wrote to {self._path}; give it mode='a'")
        # With lines as buffers each is one write, so that those of replicas do not mix.
        self._file = open(self._path, mode, buffering=1, encoding="utf-8")

    def execute(self, record: Any) -> None:
        """Writes a line."""
        try:
            self._file.write(f"{record}\n")
        except OSError as error:
            raise _named(error, self._path) from error
        except UnicodeEncodeError as error:
            raise ValueError(f"{self._path} is written in UTF-8, and this record cannot be: {error}") from error

    def close(self) -> None:
        """Closes the file."""
        try:
            self._file.close()
        except OSError as error:
            raise _named(error, self._path) from error


class PrintSink(SinkFunction):
    """Prints each record, behind ``prefix`` and ``separator`` if there is a prefix."""

    def __init__(self, prefix: str = "", separator: str = " | ", colored: bool = False) -> None:
        lead = f"{prefix}{separator}" if prefix else ""
        self._lead = f"\x1b[36m{lead}\x1b[0m" if colored and lead else lead

    def execute(self, record: Any) -> None:
        """Prints a line."""
        builtins.print(f"{self._lead}{record}", flush=True)


class TerminalSink(PrintSink):
    """Prints each record. A mapping may say ``prefix``, ``separator`` and ``colored``; what else is in it is of
    no use here."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        names = ("prefix", "separator", "colored")
        super().__init__(**{name: value for name, value in (config or {}).items() if name in names})
