"""Sources and sinks of tables: files of Parquet and Arrow, tables in memory, data frames of pandas and polars. Records
are dicts.

pyarrow, pandas and polars are imported where a program uses them, and never for `import sage`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from ._arguments import said, whole
from ._file_error import FileError
from ._output_sink import OutputSink
from ._plain import fields_of
from ._readers import Paths
from ._writers import open_output

#: How many rows of a data frame become records at a time.
_FRAME_ROWS = 1024


def pyarrow(what: str, module: str = "pyarrow") -> Any:
    """A module of pyarrow, which ``what`` needs."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f"{what} needs pyarrow: pip install pyarrow", name="pyarrow") from error


def names_of(columns: Any) -> list[Any] | None:
    """The columns that a program asked for."""
    if columns is None:
        return None
    if isinstance(columns, str) or not isinstance(columns, Iterable):
        raise TypeError(f"`columns` is a list of names, not {said(columns)}")
    names = list(columns)
    if not names:
        raise ValueError("`columns` is a list of names that is not empty")
    return names


class TableFiles:
    """The rows of files of Parquet, or of Arrow."""

    def __init__(self, where: Any, columns: list[Any] | None, batch_rows: int, *, is_parquet: bool) -> None:
        self.paths = Paths(where)
        self._columns = columns
        self._batch_rows = whole("`batch_rows`", batch_rows)
        self._read = self._parquet if is_parquet else self._arrow
        self._format = "Parquet" if is_parquet else "Arrow"
        pyarrow(f"`from_{self._format.lower()}`")

    def __iter__(self) -> Iterator[Any]:
        return self._rows(self.paths.there())

    def _rows(self, paths: list[str]) -> Iterator[Any]:
        invalid = pyarrow("it").ArrowException
        for path in paths:
            if os.path.isdir(path):
                raise FileError(path, "a folder; add a pattern such as `/*.parquet`")
            try:
                with open(path, "rb") as file:
                    for batch in self._read(file, path):
                        yield from _records(batch, self._columns, self._batch_rows)
            except (invalid, OSError) as error:
                if getattr(error, "errno", None) is not None:
                    raise
                raise FileError(path, f"not a file of {self._format} that can be read: {error}") from error

    def _parquet(self, file: Any, path: str) -> Iterator[Any]:
        table = pyarrow("it", "pyarrow.parquet").ParquetFile(file)
        _check_there(path, self._columns, table.schema_arrow.names)
        return iter(table.iter_batches(batch_size=self._batch_rows, columns=self._columns))

    def _arrow(self, file: Any, path: str) -> Iterator[Any]:
        ipc = pyarrow("it", "pyarrow.ipc")
        # A file has its table of contents at its end, a stream has none.
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        batches = ipc.open_file(file) if is_file else ipc.open_stream(file)
        _check_there(path, self._columns, batches.schema.names)
        return (batches.get_batch(n) for n in range(batches.num_record_batches)) if is_file else iter(batches)


def _check_there(path: str, columns: list[Any] | None, names: list[str]) -> None:
    missing = [name for name in columns or () if name not in names]
    if missing:
        raise FileError(path, f"no column {missing[0]!r}; it has {said(names)}")


class Table:
    """The rows of a table of Arrow that is in memory, or of what gives one. A reader of batches is read as it goes."""

    def __init__(self, table: Any, columns: list[Any] | None, batch_rows: int) -> None:
        arrow = pyarrow("`from_arrow`")
        self._columns = columns
        self._batch_rows = whole("`batch_rows`", batch_rows)
        #: Whether it can be read once, and was.
        self._is_reader = isinstance(table, arrow.RecordBatchReader)
        self._is_read = False
        if isinstance(table, arrow.RecordBatch):
            table = arrow.Table.from_batches([table])
        elif not self._is_reader and not isinstance(table, arrow.Table):
            if not hasattr(table, "__arrow_c_stream__"):
                raise TypeError(f"`from_arrow` needs a path, or a table of Arrow, not {said(table)}")
            table = arrow.table(table)
        _check_there("the table", columns, table.schema.names)
        self._table = table

    def __iter__(self) -> Iterator[Any]:
        if self._is_read:
            raise ValueError("the RecordBatchReader can be read once, and an earlier job has read it; pass a table")
        self._is_read = self._is_reader
        return self._rows()

    def _rows(self) -> Iterator[Any]:
        for batch in self._table if self._is_reader else self._table.to_batches():
            yield from _records(batch, self._columns, self._batch_rows)


def _records(batch: Any, columns: list[Any] | None, most: int) -> Iterator[Any]:
    """The rows of a batch, so many at a time."""
    chosen = batch if columns is None else batch.select(columns)
    for begin in range(0, len(chosen), most):
        yield from chosen.slice(begin, most).to_pylist()


class Frame:
    """The rows of a data frame of pandas or polars."""

    def __init__(self, frame: Any, columns: list[Any] | None) -> None:
        library = type(frame).__module__.partition(".")[0]
        if library == "polars" and type(frame).__name__ == "LazyFrame":
            raise TypeError("`from_dataframe` needs the rows themselves; pass `frame.collect()`")
        if library not in ("pandas", "polars") or not hasattr(frame, "columns"):
            raise TypeError(f"`from_dataframe` needs a data frame of pandas or polars, not {said(type(frame))}")
        names = list(frame.columns)
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise ValueError(f"two columns of the data frame have the name {twice!r}; `columns` are names of one each")
        for name in columns or ():
            if name not in names:
                raise ValueError(f"the data frame has no column {name!r}; it has {said(names)}")
        self._frame = frame if columns is None else frame[columns]
        self._is_pandas = library == "pandas"

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Iterator[Any]:
        frame = self._frame
        if not self._is_pandas:
            yield from frame.iter_rows(named=True)
            return
        for begin in range(0, len(frame), _FRAME_ROWS):
            yield from frame.iloc[begin : begin + _FRAME_ROWS].to_dict("records")


class ParquetSink(OutputSink):
    """Writes records as rows of a file of Parquet."""

    def __init__(self, path: str, schema: Any, group_rows: int) -> None:
        self._arrow = pyarrow("`to_parquet`")
        self._parquet = pyarrow("`to_parquet`", "pyarrow.parquet")
        self._schema = schema
        self._group_rows = group_rows
        self._rows: list[Any] = []
        self._count = 0
        self._names: list[str] | None = None
        #: From the first group on, which says what the columns are.
        self._writer: Any = None
        super().__init__(path)

    def execute(self, record: Any) -> None:
        """Adds a row, and writes a group of rows when it is full."""
        self._count += 1
        output = open_output(self._output, self._path)
        row = fields_of(record)
        if not isinstance(row, dict):
            raise FileError(self._path, f"record {self._count:,}: a row has fields, unlike {said(record)}")
        if self._names is None:
            self._names = list(row) if self._schema is None else self._schema.names
        # Of what has no column, pyarrow would say nothing.
        unknown = next((name for name in row if name not in self._names), None)
        if unknown is not None:
            why = f"its field `{unknown}` is none of the columns {said(self._names)}; `schema=` says them"
            raise FileError(self._path, f"record {self._count:,}: {why}")
        self._rows.append(row)
        if len(self._rows) >= self._group_rows:
            self._write(output)

    def _write(self, output: Any) -> None:
        rows, self._rows = self._rows, []
        try:
            table = self._table(rows, self._count - len(rows))
            if self._writer is None:
                self._schema = table.schema
                self._writer = self._parquet.ParquetWriter(output.binary, self._schema)
            self._writer.write_table(table)
        except BaseException:
            # A policy may let the last of these records pass, and the others would be missing.
            output.is_broken = True
            raise

    def _table(self, rows: list[Any], before: int) -> Any:
        make = self._arrow.Table.from_pylist
        try:
            return make(rows, schema=self._schema)
        except (self._arrow.ArrowException, TypeError, ValueError) as error:
            for number, row in enumerate(rows, 1):
                try:
                    make([row], schema=self._schema)
                except (self._arrow.ArrowException, TypeError, ValueError) as found:
                    raise FileError(self._path, f"record {before + number:,} is no row of Parquet: {found}") from found
            why = f"records {before + 1:,} to {before + len(rows):,} are no rows of one type each: {error}"
            raise FileError(self._path, f"{why}; `schema=` says the types") from error

    def _complete(self, output: Any) -> None:
        if self._rows or self._writer is None:
            self._write(output)
        writer, self._writer = self._writer, None
        writer.close()

    def close(self) -> None:
        """Closes the file."""
        try:
            super().close()
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                with suppress(Exception):  # of a file that is gone; the writer would complain of it later
                    writer.close()
