"""Files of JSON lines by which a job goes on where another one was ended: see ``to_jsonl(key=…)`` and
``from_jsonl(skip_done=…)``.

Invariants:
 1. A file that has keys is appended to and never replaced: what a job wrote stays, however the job ends.
 2. A line is one write. What a write did not finish is cut off, at once or by the next job that appends.
 3. No key is written twice: the file is locked while a job appends to it, and its keys are known before that writes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import Any

from ._arguments import shown
from ._file_error import FileError
from ._functions import FilterFunction, Noting, SinkFunction
from ._keys import Key, Keys
from ._lines import named
from ._packed import broken, opened
from ._plain import Json, fields_of
from ._readers import Paths

#: What a file system says that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class KeyedJsonlSink(SinkFunction, Noting):
    """Appends each record to a file as a line of JSON, unless a record with its key is in the file."""

    def __init__(self, path: str, key: Key) -> None:
        self._path = path
        self._json = Json()
        self._keys = Keys(key)
        self._key = key
        self._count = self._known = 0
        #: What the report is to tell.
        self.notes: list[str] = []
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, 0o666)
        except OSError as error:
            raise named(error, path) from error
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise FileError(path, "not a regular file, whose lines could be read again; leave out `key`")
            self._lock()
            self._mend()
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            why = "another job appends to it; wait for that job, or write to another file"
            raise FileError(self._path, why) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise named(error, self._path) from error
            self.logger.warning("%s: its file system has no locks; see that one job at a time appends", self._path)

    def _mend(self) -> None:
        """Reads the keys, and cuts off a torn last line."""
        with open(os.dup(self._file), "rb") as file:
            read = self._keys.read(self._path, file)
        self._size = read.size
        if read.end < read.size:
            os.ftruncate(self._file, read.end)
            self._size = read.end
            told = "%s: a last line of %d bytes was torn, as of a job that was killed, and is cut off"
            self.logger.warning(told, self._path, read.size - read.end)
        elif not read.is_ended:
            self._write(b"\n")

    def _write(self, line: bytes) -> None:
        """Writes a line whole, or nothing."""
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with suppress(OSError):  # the next job that appends does it
                os.ftruncate(self._file, self._size)
            raise named(error, self._path) from error
        self._size += len(line)

    def execute(self, record: Any) -> None:
        """Writes a line, unless there is one with its key."""
        self._count += 1
        try:
            fields = fields_of(record)
            text = self._json.text(fields)
            hashed = self._keys.hash_of(self._json.read(text) if callable(self._key) else fields)
        except ValueError as error:
            raise FileError(self._path, f"record {self._count:,}: {error}") from error
        if hashed in self._keys:
            self._known += 1
            return
        line = f"{text}\n".encode()
        self._write(line)
        self._keys.add(hashed)

    def close(self) -> None:
        """Closes the file."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise named(error, self._path) from error
        finally:
            os.close(self._file)
        if self._known:
            told = _records(self._known, "was not written, as its key is", "were not written, as their keys are")
            self.notes.append(f"{told} in {shown(self._path)} already")
            self.logger.info("%s in %s already", told, self._path)


class Undone(FilterFunction, Noting):
    """Leaves out the records whose keys are in files that an earlier job wrote."""

    def __init__(self, paths: Paths, key: Key) -> None:
        self._paths = paths.given
        self._keys = Keys(key)
        self._skipped = 0
        #: What the report is to tell.
        self.notes: list[str] = []
        for path in paths.there(may_be_none=True):
            try:
                with opened(path) as file:
                    self._keys.read(path, file)
            except FileNotFoundError:
                continue
            except broken(path) as error:
                raise FileError(path, f"cannot unpack it: {error}") from error
        if len(self._keys):
            self.logger.info("%d keys are done: %s", len(self._keys), ", ".join(self._paths))

    def execute(self, record: Any) -> bool:
        """Whether it is to be worked on."""
        is_done = self._keys.hash_of(record) in self._keys
        self._skipped += is_done
        return not is_done

    def close(self) -> None:
        """Tells how many were left out."""
        if self._skipped:
            told = _records(self._skipped, "was skipped, as its key is", "were skipped, as their keys are")
            files = ", ".join(map(shown, self._paths))
            self.notes.append(f"{told} in {files}")
            self.logger.info("%s in %s", told, files)


def _records(count: int, one: str, several: str) -> str:
    return f"1 record {one}" if count == 1 else f"{count:,} records {several}"
