"""A file that appears under its name when it is complete, or not at all. The engine's own sinks write files in the same
way.

Invariants: only one rename replaces the file that had the name before; the rename comes after everything was written
and synced without an error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import IO, BinaryIO, cast

from ._packed import check, packed

#: What a new file may be, before the process's mask.
_NEW_FILE_MODE = 0o666


class Output:
    """A file that is being written, of bytes or of text in UTF-8: beside its target, unless that is a device or a pipe.
    It is packed as its name says: see ``_packed``."""

    def __init__(self, path: str) -> None:
        check(path)
        #: Where a link leads, if the path is one.
        self._target = os.path.realpath(path) if os.path.islink(path) else path
        self._path = path
        self._temporary: str | None = None
        #: Whether something could not be written: there will be no file.
        self.is_broken = False
        with self._named():
            try:
                mode = os.stat(self._target).st_mode
            except FileNotFoundError:
                mode = None
            if mode is None or stat.S_ISREG(mode):
                self._raw = self._beside(mode)
            else:
                # What is in the way of a folder, the system says.
                self._raw = open(self._target, "wb")
        #: Takes bytes, if no text is written.
        self.binary = packed(path, self._raw)
        self._file = TextIOWrapper(cast(IO[bytes], self.binary), encoding="utf-8", newline="")

    def _beside(self, mode: int | None) -> BinaryIO:
        """Makes the file. Only users who may read the file it replaces may read it."""
        folder = os.path.dirname(self._target) or "."
        while True:
            self._temporary = os.path.join(folder, f".sage-{os.urandom(6).hex()}.tmp")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                file = os.open(self._temporary, flags, _NEW_FILE_MODE if mode is None else 0o600)
                break
            except FileExistsError:
                continue
        if mode is not None:
            os.fchmod(file, stat.S_IMODE(mode))
        return open(file, "wb")

    def write(self, text: str) -> None:
        """Writes a text. After an error of writing, there will be no file."""
        try:
            with self._named():
                self._file.write(text)
        except BaseException:
            self.is_broken = True
            raise

    def publish(self) -> None:
        """Gives the file its name. Raises if an earlier write failed, even if its error was handled."""
        try:
            if self.is_broken and self._temporary is not None:
                raise ValueError(f"{self._path} was not made, because an earlier write to it failed")
            with self._named():
                self._end()
                if self._temporary is not None:
                    if os.path.exists(self._target):
                        os.fchmod(self._raw.fileno(), stat.S_IMODE(os.stat(self._target).st_mode))
                    os.fsync(self._raw.fileno())
                    os.replace(self._temporary, self._target)
                    self._temporary = None
                    _sync_folder(self._target)
        finally:
            self.discard()

    def _end(self) -> None:
        """Writes what is still in memory, and the end of what is packed."""
        self._file.flush()
        if self.binary is not self._raw:
            self.binary.close()
            self._raw.flush()

    def keep(self) -> str | None:
        """Keeps the written part beside the target, with ``.partial`` behind its name. Returns its path, if anything
        was written."""
        partial = f"{self._target}.partial"
        try:
            try:
                self._end()
            except OSError:
                pass  # only its end is missing, and the file is not complete anyway
            if self._temporary is None or os.stat(self._temporary).st_size == 0:
                return None
            with self._named():
                os.replace(self._temporary, partial)
            self._temporary = None
            return partial
        finally:
            self.discard()

    def discard(self) -> None:
        """Closes the file, and removes it if it is not the target. Does nothing a second time."""
        temporary, self._temporary = self._temporary, None
        try:
            try:
                self._file.close()
            finally:
                self._raw.close()
        except OSError:
            if temporary is None:
                with self._named():
                    raise
            # Of a file that is removed, it does not matter what could not be written.
        finally:
            if temporary is not None:
                try:
                    os.unlink(temporary)
                except FileNotFoundError:
                    pass  # somebody else has tidied up

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Has errors name the file."""
        try:
            yield
        except UnicodeEncodeError as error:
            raise ValueError(f"{self._path} is written in UTF-8, and this record cannot be: {error}") from error
        except OSError as error:
            raise type(error)(error.errno, error.strerror, self._path) from error


def _sync_folder(path: str) -> None:
    """Has the new name survive a power cut. Some network file systems cannot do that; there is no more to be had."""
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(folder)
    except OSError:
        pass
    finally:
        os.close(folder)


def write_private(path: str, text: str) -> None:
    """Replaces a file of the package's own by one that only its owner can read."""
    import tempfile  # only where it is needed

    file, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=os.path.dirname(path) or ".")
    try:
        with open(file, "w", encoding="utf-8") as written:
            written.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
