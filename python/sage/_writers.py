"""Sinks of files whose records have fields: a line of JSON for each, or rows of CSV. See ``DataStream.to_jsonl``."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from typing import Any

from ._arguments import said
from ._file_error import FileError
from ._output_sink import OutputSink
from ._plain import Json, fields_of, simple


class JsonlSink(OutputSink):
    """Writes each record as a line of JSON."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._json = Json()
        self._count = 0

    def execute(self, record: Any) -> None:
        """Writes a line."""
        self._count += 1
        try:
            line = self._json.text(fields_of(record))
        except ValueError as error:
            raise FileError(self._path, f"record {self._count:,}: {error}") from error
        open_output(self._output, self._path).write(line + "\n")


class CsvSink(OutputSink):
    """Writes each record as a row of CSV, below the names of the columns."""

    def __init__(self, path: str, columns: Sequence[str] | None, has_header: bool, delimiter: str) -> None:
        self._columns = None if columns is None else list(columns)
        self._has_header = has_header
        super().__init__(path)
        self._json = Json()
        self._count = 0
        self._row: list[str] = []
        # What it is given to write is a row.
        self._format = csv.writer(self, delimiter=delimiter, lineterminator="\n").writerow
        if self._columns is not None and has_header:
            self._write(self._columns)

    def write(self, row: str) -> None:
        """Takes a row from the writer of `csv`."""
        self._row.append(row)

    def _write(self, values: list[Any]) -> None:
        self._format(values)
        open_output(self._output, self._path).write(self._row.pop())

    def execute(self, record: Any) -> None:
        """Writes a row."""
        self._count += 1
        try:
            self._write(self._values(fields_of(record)))
        except (ValueError, csv.Error) as error:
            if isinstance(error, FileError):
                raise
            raise FileError(self._path, f"record {self._count:,}: {error}") from error

    def _values(self, record: Any) -> list[Any]:
        """The values of a record in the order of the columns."""
        if isinstance(record, dict):
            if self._columns is None:
                self._columns = list(record)
                if self._has_header:
                    self._write(self._columns)
            columns = self._columns
            if len(record) > len(columns) or not record.keys() <= set(columns):
                unknown = next(name for name in record if name not in columns)
                raise ValueError(f"its field `{unknown}` is none of the columns {said(columns)}; `columns=` names all")
            return [self._text(name, record[name]) if name in record else "" for name in columns]
        if not isinstance(record, (list, tuple)):
            raise ValueError(f"a row has fields or is a list, not {said(record)}; `to_text` writes values as lines")
        if self._columns is not None and len(record) != len(self._columns):
            raise ValueError(f"it has {len(record)} values, and there are {len(self._columns)} columns")
        return [self._text(f"[{index}]", value) for index, value in enumerate(record)]

    def _text(self, name: Any, value: Any) -> Any:
        kind = type(value)
        if kind is str or kind is int or kind is float or value is None:
            return value
        if kind is bool:
            return "true" if value else "false"
        try:
            while not isinstance(value, (str, int, float, list, dict, tuple)):
                value = simple(value)
        except TypeError as error:
            raise ValueError(f"the field `{name}` cannot be written: {error}") from error
        return self._json.text(value) if isinstance(value, (list, dict, tuple)) else self._text(name, value)


def open_output(output: Any, path: str) -> Any:
    """The file of a sink, unless that was closed."""
    if output is None:
        raise ValueError(f"{path} was closed")
    return output


def path_of(path: Any) -> str:
    """The path of one file that a program gave."""
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise TypeError(f"a file is given by its path, not by {said(path)}")
    return os.fsdecode(path)
