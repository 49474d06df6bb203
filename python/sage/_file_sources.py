"""The methods of environments that begin streams with files and tables. What they do is in ``_readers``, ``_tables``
and ``_resume``, which are imported where a program uses them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._arguments import truth
from ._keywords import spelt
from ._kinds import ITERABLE, SOURCE

if TYPE_CHECKING:
    from ._keys import Key
    from ._readers import Where
    from ._stream import DataStream
    from ._types import OnError


@spelt
class FileSources:
    """The methods: a part of ``Pipeline``."""

    def from_jsonl(
        self,
        path: Where,
        *,
        skip_done: Where | None = None,
        key: Key = "id",
        encoding: str = "utf-8",
        errors: str = "strict",
        max_line_bytes: int = 64 << 20,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> DataStream[Any]:
        """Begins a stream with the values of files of JSON lines: a dict for each line that is an object. Lines of
        white space are left out.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "in.jsonl")
        >>> with open(path, "w") as file:
        ...     _ = file.write('{"id": 1, "q": "who"}\\n{"id": 2, "q": "why"}\\n')
        >>> env = LocalEnvironment("questions")
        >>> questions = env.from_jsonl(path).map(lambda record: record["q"]).collect()
        >>> job = env.submit(autostop=True)
        >>> questions
        ['who', 'why']

        ``path`` is a file, a glob pattern such as ``"data/**/*.jsonl.gz"``, whose files are read in the order of their
        names, or a list of both. Files whose names end in ``.gz`` and ``.zst`` are unpacked; before Python 3.14, the
        latter needs ``pip install backports.zstd`` (or ``zstandard``).

        ``skip_done`` names the output of earlier runs, in the same way: records whose key is in it are left out. With
        ``to_jsonl(…, key=…)`` a job goes on where another one was ended. ``key`` is a field of the records of both, or
        a function of a record. A file that is not there has no keys. They are read when the job starts, and take about
        100 bytes of memory each. The report's notes and a line of level ``INFO`` say how many records were skipped.

        ``encoding`` is that of the text; ``errors`` is as in ``bytes.decode``. A line of more than ``max_line_bytes``
        (default 64 MiB) fails the job. A line that is not JSON, or not text, is a ``BadLine``, a ``ValueError`` with
        ``path`` and ``line``. ``on_error`` says what becomes of it: ``"fail"`` (the default) fails the job; ``"skip"``,
        a ``Skip`` and a ``DeadLetterQueue`` are as for ``map``. The record of its letter is ``(path, line, text)``.
        """
        from ._keys import check_key
        from ._lines import LineFormat
        from ._readers import LineSource, Paths, value

        source = LineSource(path, LineFormat(encoding, errors, max_line_bytes), skips_blank=True)
        done = None if skip_done is None else Paths(skip_done)
        check_key(key)
        records = self._read(source, name, value, on_error)
        if done is None:
            return records
        from ._resume import Undone

        undone = records.filter(Undone, done, key, name=f"{records._step.told} undone", workers=None, on_error=on_error)
        return undone._belongs(records, "")

    def from_csv(
        self,
        path: Where,
        *,
        columns: Sequence[str] | None = None,
        delimiter: str = ",",
        quotechar: str = '"',
        encoding: str = "utf-8",
        errors: str = "strict",
        max_line_bytes: int = 64 << 20,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> DataStream[dict[str, str]]:
        """Begins a stream with the rows of files of CSV, each as a dict of texts by the names of the columns.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "fruit.csv")
        >>> with open(path, "w") as file:
        ...     _ = file.write('name,price\\n"apple, red",30\\npear,45\\n')
        >>> env = LocalEnvironment("fruit")
        >>> rows = env.from_csv(path).collect()
        >>> job = env.submit(autostop=True)
        >>> rows
        [{'name': 'apple, red', 'price': '30'}, {'name': 'pear', 'price': '45'}]

        The first row of each file names its columns, unless ``columns`` does. ``delimiter`` and ``quotechar`` are as in
        the module ``csv``; a field in quotes may have line ends in it. A row with more or fewer values than columns is
        a ``BadLine``; the record of its letter is ``(path, line, values)``, with the values or the text. The other
        arguments are as for ``from_jsonl``.
        """
        from ._lines import LineFormat
        from ._readers import CsvSource, content
        from ._tables import names_of

        lines = LineFormat(encoding, errors, max_line_bytes)
        source = CsvSource(path, names_of(columns), delimiter, quotechar, lines)
        return self._read(source, name, content, on_error)

    def from_text(
        self,
        path: Where,
        *,
        encoding: str = "utf-8",
        errors: str = "strict",
        max_line_bytes: int = 64 << 20,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> DataStream[str]:
        """Begins a stream with the lines of files of text, without their ends: ``\\\\n`` or ``\\\\r\\\\n``.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "names.txt")
        >>> with open(path, "w") as file:
        ...     _ = file.write("Ada\\nGrace\\n")
        >>> env = LocalEnvironment("names")
        >>> names = env.from_text(path).collect()
        >>> job = env.submit(autostop=True)
        >>> names
        ['Ada', 'Grace']

        The arguments are as for ``from_jsonl``. A line that is not text in ``encoding`` is a ``BadLine``.
        """
        from ._lines import LineFormat
        from ._readers import LineSource, content

        source = LineSource(path, LineFormat(encoding, errors, max_line_bytes))
        return self._read(source, name, content, on_error)

    def from_parquet(
        self,
        path: Where,
        *,
        columns: Sequence[str] | None = None,
        batch_rows: int = 1024,
        name: str | None = None,
    ) -> DataStream[dict[str, Any]]:
        """Begins a stream with the rows of files of Parquet, as dicts. Needs ``pip install pyarrow``.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "fruit.parquet")
        >>> env = LocalEnvironment("fruit")
        >>> _ = env.from_batch([{"name": "apple", "price": 30}]).to_parquet(path)
        >>> job = env.submit(autostop=True)
        >>> env = LocalEnvironment("prices")
        >>> prices = env.from_parquet(path, columns=["price"]).collect()
        >>> job = env.submit(autostop=True)
        >>> prices
        [{'price': 30}]

        ``path`` is as for ``from_jsonl``. ``columns`` are those to read (default: all). ``batch_rows`` is how many rows
        become dicts at a time (default 1,024). A file that is none of Parquet is a ``FileError``, which fails the job.
        """
        from ._tables import TableFiles, names_of

        source = TableFiles(path, names_of(columns), batch_rows, is_parquet=True)
        return self._begin(source, name or source.paths.name)

    def from_arrow(
        self,
        table: Any,
        *,
        columns: Sequence[str] | None = None,
        batch_rows: int = 1024,
        name: str | None = None,
    ) -> DataStream[dict[str, Any]]:
        """Begins a stream with the rows of a table of Arrow, as dicts. Needs ``pip install pyarrow``.

        >>> import pyarrow
        >>> env = LocalEnvironment("squares")
        >>> table = pyarrow.table({"n": [2, 3]})
        >>> squares = env.from_arrow(table).map(lambda row: row["n"] ** 2).collect()
        >>> job = env.submit(autostop=True)
        >>> squares
        [4, 9]

        ``table`` is a ``pyarrow.Table``, a ``RecordBatch``, a ``RecordBatchReader``, which can be read by one job, or
        another object that gives its rows by ``__arrow_c_stream__``; or files of Arrow, named as for ``from_jsonl``, of
        the file format (Feather) or the stream format. ``columns`` and ``batch_rows`` are as for ``from_parquet``.
        """
        from ._tables import Table, TableFiles, names_of

        if isinstance(table, (str, os.PathLike, list, tuple)):
            source = TableFiles(table, names_of(columns), batch_rows, is_parquet=False)
            return self._begin(source, name or source.paths.name)
        return self._begin(Table(table, names_of(columns), batch_rows), name or "arrow")

    def from_dataframe(
        self, frame: Any, *, columns: Sequence[Any] | None = None, name: str | None = None
    ) -> DataStream[dict[str, Any]]:
        """Begins a stream with the rows of a data frame of pandas or polars, as dicts.

        >>> import pandas
        >>> env = LocalEnvironment("names")
        >>> frame = pandas.DataFrame({"id": [1, 2], "name": ["Ada", "Grace"]})
        >>> names = env.from_dataframe(frame, columns=["name"]).collect()
        >>> job = env.submit(autostop=True)
        >>> names
        [{'name': 'Ada'}, {'name': 'Grace'}]

        ``columns`` are those to read, in this order (default: all). The values are those that pandas and polars give: a
        missing number of pandas is ``nan``. The index of pandas is left out; ``frame.reset_index()`` makes a column of
        it. The rows are read when the job runs, in each job again.
        """
        from ._tables import Frame, names_of

        return self._begin(Frame(frame, names_of(columns)), name or "dataframe")

    def from_tail(
        self,
        path: str | os.PathLike[str],
        *,
        offset_file: str | os.PathLike[str] | None = None,
        from_start: bool = False,
        encoding: str = "utf-8",
        errors: str = "strict",
        max_line_bytes: int = 64 << 20,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> DataStream[str]:
        """Begins an endless stream with the lines that are written to a file from now on, as ``tail -F`` shows them.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "app.log")
        >>> with open(path, "w") as file:
        ...     _ = file.write("started\\nready\\n")
        >>> env = LocalEnvironment("logs")
        >>> lines = env.from_tail(path, from_start=True).take(2).collect()
        >>> job = env.submit(autostop=True)
        >>> lines
        ['started', 'ready']

        ``from_start=True`` begins with what is in the file already. The file need not be there yet, but its folder
        must. When another file takes the name, as when logs are rotated, the rest of the old one is read first, then
        the new one from its beginning. A file that has become shorter is read from its beginning. A line is given when
        its end was written. The system tells of changes (inotify); it does not where another machine writes to a
        network file system. End the job by ``stop``, by ``drain`` of the job or by a signal: it ends at once.

        ``offset_file`` keeps how far the file was read, and the next job goes on from there, also if the file was
        renamed in its folder meanwhile. It is written when the job is over and every line went through all of it: after
        a success, and after a signal that had the job drained, unless a file was left unfinished then (``.partial``).
        After a failure, a cancel or a crash it is as before, and lines are given again: each at least once.

        ``encoding`` is one whose lines end with the byte ``\\n``. A line that is not text in it is a ``BadLine``; the
        record of its letter is ``(path, position, bytes, why)``. The other arguments are as for ``from_jsonl``.
        """
        from ._lines import LineFormat, check_encoding
        from ._tail import TailSource, tailed
        from ._writers import path_of

        path, lines = path_of(path), LineFormat(encoding, errors, max_line_bytes).checked()
        if not check_encoding(encoding, errors):
            raise ValueError(f"lines in {encoding} do not end with the byte that `\\n` is, and cannot be followed")
        offsets = None if offset_file is None else path_of(offset_file)
        arguments = path, offsets, truth("`from_start`", from_start), lines
        name = name or f"tail of {os.path.basename(path)}"
        found: DataStream[Any] = self._source(SOURCE, name, (TailSource, arguments, {}))  # type: ignore[attr-defined]
        return self._made_of(found, tailed, on_error)

    def _begin(self, records: Any, name: str) -> DataStream[Any]:
        """Begins a stream with the records of an object that each job goes through."""
        stream: DataStream[Any] = self._source(ITERABLE, name, (records, (), {}))  # type: ignore[attr-defined]
        return stream

    def _read(self, source: Any, name: str | None, read: Any, on_error: Any) -> DataStream[Any]:
        """Begins a stream with what a function makes of what a source finds in files."""
        return self._made_of(self._begin(source, name or source.paths.name), read, on_error)

    def _made_of(self, found: DataStream[Any], read: Any, on_error: Any) -> DataStream[Any]:
        """What a function makes of what a source finds."""
        name = f"{found._step.name} {read.__name__}"
        return found.map(read, name=name, keep_none=True, workers=None, on_error=on_error)._belongs(found, "")
