"""The lines of a file of text, plain or packed.

A line ends with ``\\n`` or ``\\r\\n``, and the last one perhaps with nothing. A byte order mark at the beginning is not
part of the first line.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from io import TextIOWrapper
from typing import Any, BinaryIO, NamedTuple, TextIO

from ._arguments import whole
from ._file_error import BadLine, FileError
from ._packed import broken, opened

#: How many bytes, or characters of text in UTF-16 and the like, a line may have.
MOST_LINE_BYTES = 64 << 20


def check_encoding(encoding: str, errors: str) -> bool:
    """Whether lines of an encoding end with the byte that `\\n` is. Raises ``ValueError`` for an encoding, or a way to
    treat errors, that there is not."""
    try:
        codecs.lookup_error(errors)
        return "\n".encode(encoding) == b"\n"
    except (LookupError, TypeError) as error:
        raise ValueError(f"{error}; `encoding` is such as 'utf-8', `errors` such as 'replace'") from error


class LineFormat(NamedTuple):
    """How the lines of files are read, as a program says it."""

    encoding: str = "utf-8"
    #: As in ``bytes.decode``.
    errors: str = "strict"
    #: How many bytes a line may have.
    most: int = MOST_LINE_BYTES

    def checked(self) -> LineFormat:
        """The same. Raises ``ValueError`` for what there is not."""
        check_encoding(self.encoding, self.errors)
        return self._replace(most=whole("`max_line_bytes`", self.most))


class Lines:
    """The lines of a file, without their ends."""

    def __init__(self, path: str, format: LineFormat = LineFormat()) -> None:  # noqa: B008
        encoding, errors, self._most = format
        self.path = path
        #: That of the line that was read last.
        self.number = 0
        self.encoding = encoding
        self._errors = errors
        try:
            ends_plainly = check_encoding(encoding, errors)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if codecs.lookup(encoding).name == "utf-8-sig":
            self.encoding = "utf-8"
        # Where a line ends is seen in the bytes, so each can be decoded by itself; not so in UTF-16 and the like.
        file = opened(path)
        self.file: BinaryIO | TextIO = file
        if not ends_plainly:
            self.file = TextIOWrapper(file, self.encoding, errors, newline="\n")

    def rewind(self) -> None:
        """Begins with the first line again."""
        self.file.seek(0)
        self.number = 0

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    def raw(self, *, has_ends: bool = False) -> Iterator[str | bytes]:
        """Each line, perhaps with its end; one that is no text in the encoding as its bytes, if it can be told where it
        ends. Raises ``FileError`` for what cannot be read on."""
        readline, encoding, errors, most = self.file.readline, self.encoding, self._errors, self._most
        try:
            while line := readline(most + 2):
                self.number += 1
                if len(line) > most and len(without_end(line)) > most:
                    raise FileError(self.path, f"a line is longer than {most:,} bytes", self.number)
                if isinstance(line, bytes):
                    try:
                        text = line.decode(encoding, errors)
                    except UnicodeDecodeError:
                        yield line if has_ends else without_end(line)
                        continue
                else:
                    text = line
                if self.number == 1:
                    text = text.removeprefix("\ufeff")
                yield text if has_ends else without_end(text)
        except UnicodeError as error:
            # Several are decoded at a time.
            raise FileError(self.path, f"behind line {self.number}: {not_text(error, encoding)}") from error
        except broken(self.path) as error:
            is_cut = isinstance(error, EOFError)
            why = "the packed file ends early; it was cut off or is still being written" if is_cut else "cannot unpack"
            raise FileError(self.path, why if is_cut else f"{why} it: {error}", self.number + 1) from error
        except OSError as error:
            raise named(error, self.path) from error

    def not_text(self, line: bytes) -> str:
        """Why a line is no text."""
        try:
            line.decode(self.encoding, self._errors)
        except UnicodeDecodeError as error:
            return not_text(error, self.encoding)
        raise AssertionError("`raw` has tried the same")

    def __iter__(self) -> Iterator[str]:
        """Each line. Raises ``BadLine`` for one that is no text in the encoding."""
        for line in self.raw():
            if isinstance(line, bytes):
                raise BadLine(self.path, self.not_text(line), self.number)
            yield line


def without_end(line: Any) -> Any:
    """A line without its end; of text or of bytes."""
    if line.endswith("\n" if isinstance(line, str) else b"\n"):
        return line[:-2] if line.endswith("\r\n" if isinstance(line, str) else b"\r\n") else line[:-1]
    return line


def not_text(error: UnicodeError, encoding: str) -> str:
    """Why bytes are no text in an encoding."""
    return (
        f"not text in {encoding}: {error}; `encoding` names another, `errors='replace'` puts a mark in its place"
    )


def named(error: OSError, path: str) -> OSError:
    """The same error, which says for which file."""
    return type(error)(error.errno, error.strerror, path)
