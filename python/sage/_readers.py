"""Sources of files: lines of text, lines of JSON, rows of CSV. See ``LocalEnvironment.from_jsonl`` and its like.

A source gives the lines with where they are, and a step behind it makes records of them, so that the policy for
failing records is the same as for any function. What it gives is ``(path, line, content)``, and ``(path, line, content,
why)`` for what is no content of this format.
"""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterable, Iterator
from json import JSONDecodeError, loads
from typing import Any, Union

from ._arguments import said
from ._file_error import BadLine, FileError
from ._lines import LineFormat, Lines
from ._packed import check

#: A file, a glob pattern, or several of them.
Where = Union[str, "os.PathLike[str]", Iterable[Union[str, "os.PathLike[str]"]]]

#: What a source gives.
Found = Union[tuple[str, int, Any], tuple[str, int, Any, str]]


class Paths:
    """The files that a program named, by paths and glob patterns."""

    def __init__(self, where: Any) -> None:
        given = [where] if isinstance(where, (str, os.PathLike)) else where
        if isinstance(given, (bytes, dict)) or not isinstance(given, Iterable):
            raise TypeError(f"files are given by a path, a glob pattern or a list of them, not by {said(where)}")
        self.given = [os.fsdecode(path) for path in given]
        if not self.given or "" in self.given:
            raise ValueError(f"files are given by their paths, and there is none in {said(where)}")
        for path in self.given:
            check(path)

    @property
    def name(self) -> str:
        """What a source of them is called."""
        more = len(self.given) - 1
        return os.path.basename(self.given[0]) + (f" and {more} more" if more else "")

    def there(self, *, may_be_none: bool = False) -> list[str]:
        """The files that are there now: those of a pattern in the order of their names. Raises ``FileError`` for a
        pattern that none matches, unless there may be none; a file that is not there is an error of who opens it."""
        found: list[str] = []
        for path in self.given:
            if glob.has_magic(path) and not os.path.lexists(path):
                matching = sorted(match for match in glob.iglob(path, recursive=True) if not os.path.isdir(match))
                if not matching and not may_be_none:
                    why = "no file matches this pattern; check it, and the folder that the program runs in"
                    raise FileError(path, why)
                found += matching
            else:
                found.append(path)
        return found


class LineSource:
    """The lines of files; perhaps without those that have nothing but white space."""

    def __init__(self, where: Any, format: LineFormat, *, skips_blank: bool = False) -> None:
        self.paths = Paths(where)
        self._line_format = format.checked()
        self._skips_blank = skips_blank

    def __iter__(self) -> Iterator[Found]:
        return self._found(self.paths.there())

    def _found(self, paths: list[str]) -> Iterator[Found]:
        for path in paths:
            lines = Lines(path, self._line_format)
            try:
                yield from self._of(lines)
            finally:
                lines.close()

    def _of(self, lines: Lines) -> Iterator[Found]:
        path, skips_blank = lines.path, self._skips_blank
        for line in lines.raw():
            if isinstance(line, bytes):
                yield path, lines.number, line, lines.not_text(line)
            elif not (skips_blank and (not line or line.isspace())):
                yield path, lines.number, line


class CsvSource(LineSource):
    """The rows of files of CSV, as dicts."""

    def __init__(
        self, where: Any, columns: list[str] | None, delimiter: str, quotechar: str, format: LineFormat
    ) -> None:
        super().__init__(where, format)
        self._columns = columns
        self._format: dict[str, Any] = {"delimiter": delimiter, "quotechar": quotechar}
        csv.reader((), **self._format)  # raises for what can be neither

    def _of(self, lines: Lines) -> Iterator[Found]:
        path, columns = lines.path, self._columns
        if columns is not None:
            _check_columns(path, columns)
        feed = _Feed(lines)
        rows = csv.reader(feed, **self._format, strict=True)
        while True:
            first, feed.taken = lines.number + 1, []
            try:
                row = next(rows)
            except StopIteration:
                return
            except _NotText as error:
                first = lines.number
                bad: tuple[Any, str] = error.line, lines.not_text(error.line)
            except csv.Error as error:
                hint = "; `csv.field_size_limit` sets it" if "limit" in str(error) else ""
                bad = "".join(feed.taken), f"not CSV: {error}{hint}"
            else:
                if not row:
                    continue
                if columns is None:
                    columns = row
                    _check_columns(path, columns)
                    continue
                if len(row) == len(columns):
                    yield path, first, dict(zip(columns, row))
                    continue
                bad = row, f"{len(row)} values, and there are {len(columns)} columns"
            if columns is None:
                raise BadLine(path, f"no names of columns: {bad[1]}", first)
            yield path, first, *bad


def _check_columns(path: str, columns: list[str]) -> None:
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise FileError(path, f"two columns have the name {twice!r}; `columns=` gives them others")


class _NotText(Exception):
    """A line is no text."""

    def __init__(self, line: bytes) -> None:
        self.line = line


class _Feed:
    """Gives lines to the reader of `csv`, which goes on when one of them could not be given."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines.raw(has_ends=True)
        #: Those of the row that is being read.
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if isinstance(line, bytes):
            raise _NotText(line)
        self.taken.append(line)
        return line


def content(found: Any) -> Any:
    """What a source found, if it is of its format."""
    if len(found) == 4:
        raise BadLine(found[0], found[3], found[1])
    return found[2]


def value(found: Any) -> Any:
    """The value that a line of JSON is."""
    line = content(found)
    try:
        return loads(line)
    except JSONDecodeError as error:
        raise BadLine(found[0], f"not JSON: {error.msg}, at character {error.pos + 1}", found[1]) from error
    except (ValueError, RecursionError) as error:
        raise BadLine(found[0], f"not JSON that can be read: {error}", found[1]) from error
