"""The methods of streams that end them in files. What they do is in ``_writers``, ``_tables`` and ``_resume``, which
are imported where a program uses them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import _kinds as kinds
from ._arguments import truth, whole
from ._declaring import Output
from ._keywords import spelt

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._keys import Key
    from ._types import OnError


@spelt
class FileSinks(Output):
    """The methods: a part of ``DataStream``."""

    def to_jsonl(
        self,
        path: str | os.PathLike[str],
        *,
        key: Key | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Self:
        """Ends the stream: writes each record to a file, as a line of JSON. Returns this stream, so that it can have
        several sinks.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "out.jsonl")
        >>> env = LocalEnvironment("squares")
        >>> _ = env.from_batch([2, 3]).map(lambda n: {"id": n, "square": n * n}).to_jsonl(path, key="id")
        >>> job = env.submit(autostop=True)
        >>> print(open(path).read(), end="")
        {"id": 2, "square": 4}
        {"id": 3, "square": 9}

        **Without** ``key`` the file appears when it is complete, and replaces the file of that name, or not at all. A
        job that a signal ended leaves what it wrote in ``out.jsonl.partial``. A name that ends in ``.gz`` or ``.zst``
        has the file packed.

        **With** ``key``, a field of the records, each line is appended to the file at once, and stays, however the job
        ends, also if it is killed. The next run goes on from there: a key that is in the file is not written again, and
        a last line that is torn is cut off, which a line of level ``WARNING`` says. With ``from_jsonl(…, skip_done=…)``
        it does not work on those records again either. ``key`` may be a function of the record as its line gives it
        back. Keys take about 100 bytes of memory each. One job at a time can append to a file; another one fails with a
        ``FileError``. A cut of the power may take the last lines; they are written again.

        **Records** are dicts, dataclasses, models of pydantic or namedtuples, or any value of JSON. A ``datetime`` is
        written in its ISO form, a ``timedelta`` in seconds, a ``Path``, ``UUID`` or ``Decimal`` as text, an ``Enum`` by
        its value, numbers and arrays of numpy as numbers and lists, a set as a list. What has no form, such as bytes or
        ``nan``, is a ``FileError``, which names the record and the field. ``on_error`` says what becomes of that
        record, as for ``map``.
        """
        from ._keys import check_key
        from ._packed import is_packed
        from ._resume import KeyedJsonlSink
        from ._writers import JsonlSink, path_of

        path = path_of(path)
        if key is None:
            return self._end(JsonlSink, (path,), on_error, name)
        if is_packed(path):
            raise ValueError(f"{path}: with `key`, lines are appended, which a packed file cannot take; leave out one")
        return self._end(KeyedJsonlSink, (path, check_key(key)), on_error, name)

    def to_csv(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        header: bool = True,
        delimiter: str = ",",
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Self:
        """Ends the stream: writes each record to a file, as a row of CSV. Returns this stream, so that it can have
        several sinks.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "fruit.csv")
        >>> env = LocalEnvironment("fruit")
        >>> _ = env.from_batch([{"name": "apple, red", "price": 30}]).to_csv(path)
        >>> job = env.submit(autostop=True)
        >>> print(open(path).read(), end="")
        name,price
        "apple, red",30

        Records are as for ``to_jsonl``, with fields, or lists of values. ``columns`` are the fields and their order;
        the default are those of the first record. A record with another field is a ``FileError``; one that lacks a
        field has an empty value. ``header=False`` leaves out the row of names. ``None`` is an empty value, ``True`` is
        ``true``, and a list or a dict is JSON. The file is as that of ``to_jsonl`` without ``key``.
        """
        from ._tables import names_of
        from ._writers import CsvSink, path_of

        arguments = path_of(path), names_of(columns), truth("`header`", header), delimiter
        if not isinstance(delimiter, str) or len(delimiter) != 1:
            raise ValueError(f"`delimiter` is one character, not {delimiter!r}")
        return self._end(CsvSink, arguments, on_error, name)

    def to_text(self, path: str | os.PathLike[str], *, on_error: Any = "fail", name: str | None = None) -> Self:
        """Ends the stream: writes the text of each record to a file in UTF-8, as a line. Returns this stream, so that
        it can have several sinks.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "squares.txt")
        >>> env = LocalEnvironment("squares")
        >>> _ = env.from_batch([2, 3]).map(lambda n: n * n).to_text(path)
        >>> job = env.submit(autostop=True)
        >>> print(open(path).read(), end="")
        4
        9

        The file is as that of ``to_jsonl`` without ``key``.
        """
        from ._io import FileSink
        from ._writers import path_of

        return self._end(FileSink, (path_of(path),), on_error, name)

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        schema: Any = None,
        group_rows: int = 65_536,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Self:
        """Ends the stream: writes each record to a file, as a row of Parquet. Returns this stream, so that it can have
        several sinks. Needs ``pip install pyarrow``.

        >>> import os, tempfile
        >>> import pyarrow.parquet
        >>> path = os.path.join(tempfile.mkdtemp(), "squares.parquet")
        >>> env = LocalEnvironment("squares")
        >>> _ = env.from_batch([2, 3]).map(lambda n: {"n": n, "square": n * n}).to_parquet(path)
        >>> job = env.submit(autostop=True)
        >>> pyarrow.parquet.read_table(path)["square"].to_pylist()
        [4, 9]

        Records have fields, as for ``to_jsonl``. ``schema`` is a ``pyarrow.Schema``; without it, the columns are the
        fields of the first record, with the types of the first group. ``group_rows`` is how many rows are kept in
        memory and written together (default 65,536). A record with another field, or with a value of another type, is
        a ``FileError``, for the latter when its group is written, which no ``on_error`` lets pass. The file appears
        when it is complete, as that of ``to_jsonl`` without ``key``.
        """
        from ._tables import ParquetSink
        from ._writers import path_of

        arguments = path_of(path), schema, whole("`group_rows`", group_rows)
        return self._end(ParquetSink, arguments, on_error, name)

    def _end(self, sink: Any, arguments: tuple[Any, ...], on_error: Any, name: str | None) -> Self:
        """Ends the stream in the file that is the first argument."""
        name = name or f"to {os.path.basename(arguments[0])}"
        self._then(kinds.SINK, sink, arguments, {"on_error": on_error}, 1, name, is_given=False)
        return self
