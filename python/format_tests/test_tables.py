"""Tables as sources and sinks: Parquet, Arrow, data frames of pandas and polars. They need these packages."""

from __future__ import annotations

import doctest
import math
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy
import pandas
import polars
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

import sage
from sage import DataStream, FileError, JobFailed, LocalEnvironment


#: Those that need these packages.
METHODS = [LocalEnvironment.from_parquet, LocalEnvironment.from_arrow, LocalEnvironment.from_dataframe]
METHODS += [DataStream.to_parquet]


def test_the_examples_of_the_methods_run() -> None:
    names = {name: getattr(sage, name) for name in sage.__all__}
    runner = doctest.DocTestRunner()
    for method in METHODS:
        for test in doctest.DocTestFinder().find(method, method.__name__, globs=dict(names)):
            runner.run(test)
    assert runner.summarize() == (0, 28)


def read(begin: Any) -> list[Any]:
    env = LocalEnvironment("reads")
    records: list[Any] = begin(env).collect()
    env.submit(autostop=True)
    return records


def write(records: list[Any], path: Path, **options: Any) -> None:
    env = LocalEnvironment("writes")
    env.from_batch(records).to_parquet(path, **options)
    env.submit(autostop=True)


ROWS = [{"n": n, "text": f"é{n}", "at": datetime(2024, 1, 1 + n % 28), "list": [n], "none": None} for n in range(2500)]


def test_what_is_written_as_parquet_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write(ROWS, path, group_rows=1000)
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == 3 and os.listdir(tmp_path) == ["rows.parquet"]
    for batch_rows in (1, 7, 1024, 10_000):
        assert read(lambda env, n=batch_rows: env.from_parquet(path, batch_rows=n)) == ROWS
    assert read(lambda env: env.from_parquet(f"{tmp_path}/*.parquet", columns=["n"])) == [{"n": r["n"]} for r in ROWS]
    write([], path)
    assert read(lambda env: env.from_parquet(path)) == []


def test_a_row_that_does_not_fit_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_text("old")
    for bad, said in [
        ({"n": 1, "m": 2}, r"record 2: its field `m` is none of the columns \['n'\]; `schema=` says them"),
        ({"n": "x"}, "record 2 is no row of Parquet|no rows of one type"),
        ({"n": 1j}, "record 2 is no row of Parquet"),
        (5, "record 2: a row has fields, unlike 5"),
    ]:
        for policy in ("fail", "skip"):
            if policy == "skip" and isinstance(bad, dict) and "m" not in bad:
                with pytest.raises(JobFailed, match=r"rows\.parquet"):
                    write([{"n": 1}, bad, {"n": 2}], path, on_error=policy)
            elif policy == "fail":
                with pytest.raises(JobFailed, match=said) as failed:
                    write([{"n": 1}, bad, {"n": 2}], path, on_error=policy)
                assert isinstance(failed.value.__cause__, FileError)
            assert path.read_text() == "old" and os.listdir(tmp_path) == ["rows.parquet"]


def test_a_group_that_cannot_be_written_is_not_let_pass_by_a_policy(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with pytest.raises(JobFailed, match="rows.parquet was not made"):
        write([{"n": 1}, {"n": "x"}, {"n": 3}, {"n": 4}], path, group_rows=2, on_error="skip")
    assert os.listdir(tmp_path) == []


def test_a_schema_says_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    schema = pyarrow.schema([("n", pyarrow.int8()), ("m", pyarrow.string())])
    write([{"n": 1}, {"m": "x"}], path, schema=schema)
    assert pyarrow.parquet.read_schema(path) == schema
    assert read(lambda env: env.from_parquet(path)) == [{"n": 1, "m": None}, {"n": None, "m": "x"}]
    with pytest.raises(JobFailed, match="record 1 is no row of Parquet"):
        write([{"n": 1000}], path, schema=schema)


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    path.write_text("no parquet")
    with pytest.raises(JobFailed, match=r"bad\.parquet: not a file of Parquet that can be read") as failed:
        read(lambda env: env.from_parquet(path))
    assert isinstance(failed.value.__cause__, FileError)
    with pytest.raises(JobFailed, match=r"bad\.parquet: not a file of Arrow that can be read"):
        read(lambda env: env.from_arrow(path))
    write([{"n": 1}], path)
    with pytest.raises(JobFailed, match=r"bad\.parquet: no column 'x'; it has \['n'\]"):
        read(lambda env: env.from_parquet(path, columns=["x"]))
    with pytest.raises(JobFailed, match=r"nothing\.parquet"):
        read(lambda env: env.from_parquet(tmp_path / "nothing.parquet"))


def test_tables_of_arrow_in_memory_and_in_files(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    for given in (table, pyarrow.Table.from_batches(table.to_batches(max_chunksize=100)), polars.DataFrame(table)):
        assert read(lambda env, given=given: env.from_arrow(given)) == ROWS
    assert read(lambda env: env.from_arrow(table.to_batches()[0], columns=["n"])) == [{"n": r["n"]} for r in ROWS]
    pyarrow.feather.write_feather(table, tmp_path / "file.arrow")
    with pyarrow.ipc.new_stream(tmp_path / "stream.arrows", table.schema) as stream:
        stream.write_table(table, max_chunksize=300)
    for name in ("file.arrow", "stream.arrows"):
        assert read(lambda env, name=name: env.from_arrow(tmp_path / name, batch_rows=77)) == ROWS
    (tmp_path / "stream.arrows").write_bytes((tmp_path / "stream.arrows").read_bytes()[:-100])
    with pytest.raises(JobFailed, match=r"stream\.arrows: not a file of Arrow that can be read"):
        read(lambda env: env.from_arrow(tmp_path / "stream.arrows"))
    with pytest.raises(TypeError, match="`from_arrow` needs a path, or a table of Arrow, not 5"):
        LocalEnvironment("x").from_arrow(5)


def test_a_reader_of_batches_is_read_as_it_goes_and_once() -> None:
    made = []

    def batches() -> Any:
        for n in range(3):
            made.append(n)
            yield pyarrow.record_batch({"n": [n]})

    env = LocalEnvironment("reader")
    reader = pyarrow.RecordBatchReader.from_batches(pyarrow.schema([("n", pyarrow.int64())]), batches())
    records = env.from_arrow(reader).collect()
    assert made == []
    env.submit(autostop=True)
    assert records == [{"n": 0}, {"n": 1}, {"n": 2}]
    with pytest.raises(JobFailed, match="the RecordBatchReader can be read once, and an earlier job has read it"):
        env.submit(autostop=True)


def test_rows_of_pandas() -> None:
    frame = pandas.DataFrame({"n": numpy.arange(2500), "x": [1.5, None] * 1250, "s": "é"}, index=range(5, 2505))
    records = read(lambda env: env.from_dataframe(frame))
    assert [record["n"] for record in records] == list(range(2500)) and math.isnan(records[1]["x"])
    assert (type(records[0]["n"]), records[0]["s"]) == (int, "é") and list(records[0]) == ["n", "x", "s"]
    assert read(lambda env: env.from_dataframe(frame[:1], columns=["s", "n"])) == [{"s": "é", "n": 0}]
    assert read(lambda env: env.from_dataframe(pandas.DataFrame())) == []


def test_rows_of_polars() -> None:
    frame = polars.DataFrame({"n": range(2500), "s": ["é", None] * 1250})
    records = read(lambda env: env.from_dataframe(frame))
    assert records == [{"n": n, "s": None if n % 2 else "é"} for n in range(2500)]
    assert read(lambda env: env.from_dataframe(frame[:2], columns=["s"])) == [{"s": "é"}, {"s": None}]
    with pytest.raises(TypeError, match=r"pass `frame\.collect\(\)`"):
        LocalEnvironment("lazy").from_dataframe(frame.lazy())


def test_what_is_no_frame_or_has_no_such_column_is_refused() -> None:
    env = LocalEnvironment("refused")
    with pytest.raises(TypeError, match="needs a data frame of pandas or polars, not <class 'list'>"):
        env.from_dataframe([1])
    with pytest.raises(ValueError, match=r"no column 'x'; it has \['n'\]"):
        env.from_dataframe(pandas.DataFrame({"n": [1]}), columns=["x"])
    with pytest.raises(ValueError, match="two columns of the data frame have the name 'n'"):
        env.from_dataframe(pandas.DataFrame([[1, 2]], columns=["n", "n"]))
    with pytest.warns(UserWarning, match="`from_dataframe` gives its rows"):
        env.from_batch(pandas.DataFrame({"n": [1]}))
