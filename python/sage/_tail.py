"""A file that is followed as it grows: see ``LocalEnvironment.from_tail``.

Invariants:
 1. Nothing is polled: inotify tells of changes, of the file and of its folder. What it tells of is never trusted; the
    file is looked at again, from its end on.
 2. ``_position`` is where the first line begins that was not given yet, in the file that is open. Lines of one file are
    given before another is opened.
 3. The offset is written when the job is over, and only if every line before it went through the whole job.
"""

from __future__ import annotations

import json
import os
import select
import stat
from collections import deque
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from ._file_error import BadLine, FileError
from ._files import write_private
from ._functions import SourceFunction
from ._inotify import FILE, FOLDER, Watch
from ._lines import LineFormat, not_text, without_end
from ._sage import wait_in_source

if TYPE_CHECKING:
    from ._running import Run

#: How many bytes are read at a time, and by how many at its begin a file is known again.
_CHUNK_BYTES, _HEAD_BYTES = 64 << 10, 1024

#: How long it waits at a time, in milliseconds, where the engine does not ask it: in a test of the class by itself.
_MOMENT_MILLIS = 10


class Offset(NamedTuple):
    """How far a file was read."""

    inode: int
    position: int
    #: How many bytes at its begin are hashed, as the system gives the number of a file to another one, and the hash.
    head_bytes: int
    head: str

    @staticmethod
    def at(file: int, position: int) -> Offset:
        """That of an open file."""
        count = min(position, _HEAD_BYTES)
        return Offset(os.fstat(file).st_ino, position, count, _head(file, count))

    def is_of(self, file: int) -> bool:
        """Whether an open file is the one that was read, and has not become shorter."""
        told = os.fstat(file)
        is_same = stat.S_ISREG(told.st_mode) and told.st_ino == self.inode and told.st_size >= self.position
        return is_same and _head(file, self.head_bytes) == self.head


def _head(file: int, count: int) -> str:
    return blake2b(os.pread(file, count, 0), digest_size=16).hexdigest()


def read_offset(path: str) -> Offset | None:
    """The offset in a file, if there is one. Raises ``FileError`` for what is none."""
    try:
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
        return Offset(int(told["inode"]), int(told["position"]), int(told["head_bytes"]), str(told["head"]))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError) as error:
        raise FileError(path, f"no offset of a tail ({error}); remove it to begin anew") from error


class TailSource(SourceFunction):
    """Gives the lines of a file as they are written: ``(path, position, text)``."""

    def __init__(self, path: str, offset_file: str | None, from_start: bool, format: LineFormat) -> None:
        self._path = path
        self._offset_file = offset_file
        self._from_start = from_start
        self._encoding, self._errors, self._most = format
        self._watch: Watch | None = None
        self._watched: int | None = None
        self._file: int | None = None
        #: Up to where it was read; what was read behind the last whole line; the whole lines, with their ends.
        self._end = 0
        self._rest = bytearray()
        self._lines: deque[bytes] = deque()
        self._position = 0

    def setup(self, _context: Any) -> None:
        """Opens the file where it is to be read on."""
        self._watch = Watch()
        self._watch_folder(self._path)
        offset = None if self._offset_file is None else read_offset(self._offset_file)
        file = self._opened(self._path)
        if offset is None:
            if file is not None:
                self._take(file, 0 if self._from_start else _last_line(file, self._most))
            return
        if file is not None and not offset.is_of(file):
            os.close(file)
            file = None
        if file is None:
            file = self._renamed(offset)
        if file is not None:
            self._take(file, offset.position)
        else:
            told = "%s: the file that was read up to byte %d is gone or was replaced; reading it from the beginning"
            self.logger.warning(told, self._path, offset.position)

    def _watch_folder(self, path: str) -> None:
        assert self._watch is not None, "`setup` has made it"
        # Of a link, both folders: the file behind it may be replaced, and so may the link.
        self._watch.add(os.path.dirname(path) or ".", FOLDER)
        with suppress(FileNotFoundError):  # a link that leads nowhere yet
            self._watch.add(os.path.dirname(os.path.realpath(path)), FOLDER)

    def _opened(self, path: str) -> int | None:
        """The open file, if it is there."""
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise FileError(path, "not a regular file, which alone can be followed")
        return file

    def _renamed(self, offset: Offset) -> int | None:
        """The file that was read, under another name in its folder: it was rotated while no job ran."""
        with os.scandir(os.path.dirname(os.path.realpath(self._path))) as entries:
            names = [entry.path for entry in entries if entry.inode() == offset.inode and entry.is_file()]
        for name in names:
            file = self._opened(name)
            if file is not None and offset.is_of(file):
                return file
            if file is not None:
                os.close(file)
        return None

    def _take(self, file: int, position: int) -> None:
        """Goes on with a file."""
        assert self._watch is not None, "`setup` has made it"
        before, self._file = self._file, file
        watched, self._watched = self._watched, self._watch.add(f"/proc/self/fd/{file}", FILE)
        if watched is not None and watched != self._watched:
            self._watch.remove(watched)
        if before is not None:
            os.close(before)
        self._watch_folder(self._path)
        self._seek(position)

    def _seek(self, position: int) -> None:
        self._end = self._position = position
        self._rest.clear()

    def execute(self) -> Any:
        """The next line; ``None`` if there is none yet, and the engine has something else to do."""
        assert self._watch is not None, "`setup` has made it"
        while not self._lines:
            if self._read() or self._turn():
                continue
            has_come = wait_in_source(None, self._watch.descriptor)
            if has_come is None:
                poll = select.poll()
                poll.register(self._watch.descriptor, select.POLLIN)
                has_come = bool(poll.poll(_MOMENT_MILLIS))
            if not has_come:
                return None
            self._watch.drain()
        line, begin = self._lines.popleft(), self._position
        self._position += len(line)
        line = without_end(line)
        try:
            text = line.decode(self._encoding, self._errors)
        except UnicodeDecodeError as error:
            return self._path, begin, line, not_text(error, self._encoding)
        return self._path, begin, text.removeprefix("\ufeff") if begin == 0 else text

    def _read(self) -> bool:
        """Reads what was added; says whether anything was."""
        data = b"" if self._file is None else os.pread(self._file, _CHUNK_BYTES, self._end)
        if not data:
            return False
        self._end += len(data)
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            first, *others = whole.split(b"\n")
            self._lines.append(bytes(self._rest) + first + newline)
            self._lines.extend(line + newline for line in others)
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > self._most:
            raise FileError(self._path, f"at byte {self._end - len(self._rest):,}: longer than {self._most:,} bytes")
        return True

    def _turn(self) -> bool:
        """Looks whether the file was replaced or has become shorter; says whether there is something else to read."""
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        if self._file is not None:
            own = os.fstat(self._file)
            if own.st_size < self._end:
                self.logger.info("%s was truncated: reading it from its beginning", self._path)
                self._seek(0)
                return True
            if there is None or (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
                return False
            # Once more, as it may have been written to before it was replaced.
            if self._read():
                return True
            if self._rest:
                # Nobody will end this line.
                self._lines.append(bytes(self._rest))
                self._rest.clear()
                return True
        file = self._opened(self._path)
        if file is None:
            return False
        self.logger.info("%s: reading a new file", self._path)
        self._take(file, 0)
        return True

    def close(self) -> None:
        """Closes the file. Its offset is written when the job is over."""
        file, self._file = self._file, None
        run = None if self.ctx is None else self.ctx._calls.run
        try:
            if file is not None and self._offset_file is not None and run is not None:
                run.at_end.append(partial(_keep, run, self._offset_file, Offset.at(file, self._position)))
        finally:
            if file is not None:
                os.close(file)
            if self._watch is not None:
                self._watch.close()
                self._watch = None


def _last_line(file: int, most: int) -> int:
    """Where the last line of an open file begins, if it has no end yet; else where the file ends."""
    end = os.fstat(file).st_size
    begin = end
    while begin > max(0, end - most):
        count = min(_CHUNK_BYTES, begin)
        found = os.pread(file, count, begin - count).rfind(b"\n")
        if found >= 0:
            return begin - count + found + 1
        begin -= count
    return begin if begin == 0 else end


def _keep(run: Run, path: str, offset: Offset) -> None:
    """Writes an offset, if all the lines before it went through the whole job."""
    if run.is_whole:
        write_private(path, json.dumps(offset._asdict()) + "\n")


def tailed(found: Any) -> str:
    """The text of a line that was found."""
    if len(found) == 4:
        raise BadLine(found[0], f"at byte {found[1]:,}: {found[3]}")
    text: str = found[2]
    return text
