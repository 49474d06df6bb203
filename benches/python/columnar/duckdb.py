"""DuckDB. Its tables and answers are in its own memory; only P2 begins and ends with objects of Python's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import workloads
from columnar.answers import Program, digest

#: As many threads as everybody has.
_THREADS = 2

_WORDS = "SELECT word, count(*) FROM (SELECT unnest(string_split(line, ' ')) AS word FROM {lines}) GROUP BY word"


def programs(workload: str, inputs: dict[str, Any]) -> dict[str, Program]:
    connection = duckdb.connect()
    connection.execute(f"SET threads={_THREADS}")
    # An answer may come in any order, as everybody's does.
    connection.execute("SET preserve_insertion_order=false")
    make = {"r2_parallel": _words_of_a_file, "r3": _sums, "r4": _join, "p2": _words_of_lines}[workload]
    return make(connection, inputs)


def _into_a_table(connection: Any, query: str) -> Callable[[], Any]:
    def run() -> Any:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE answer AS {query}")
        return connection

    return run


def _pairs(connection: Any) -> str:
    return digest(connection.execute("FROM answer").fetchall())


def _words_of_a_file(connection: Any, inputs: dict[str, Any]) -> dict[str, Program]:
    # No line has the separator, so each is one field.
    lines = (
        f"read_csv('{inputs['text']}', header=false, auto_detect=false, columns={{'line': 'VARCHAR'}}, "
        "delim='\\x1f', quote='', escape='', parallel=true)"
    )
    return {"": Program(_into_a_table(connection, _WORDS.format(lines=lines)), _pairs)}


def _words_of_lines(connection: Any, inputs: dict[str, Any]) -> dict[str, Program]:
    source = workloads.source("p2", inputs["lines"], Path(inputs["folder"]))

    def run() -> dict[str, int]:
        connection.register("lines", {"line": np.array(source, dtype=object)})
        return dict(connection.execute(_WORDS.format(lines="lines")).fetchall())

    return {"": Program(run, lambda counts: digest(counts.items()))}


def _load(connection: Any, table: str, inputs: dict[str, Any], names: dict[str, str]) -> None:
    columns = {name: np.fromfile(inputs[file], dtype="<u8") for name, file in names.items()}
    connection.register("columns", columns)
    connection.execute(f"CREATE TABLE {table} AS FROM columns")
    connection.unregister("columns")


def _sums(connection: Any, inputs: dict[str, Any]) -> dict[str, Program]:
    _load(connection, "records", inputs, {"key": "key", "value": "value"})
    query = "SELECT key, sum(value) FROM records GROUP BY key"
    return {"": Program(_into_a_table(connection, query), _pairs)}


def _join(connection: Any, inputs: dict[str, Any]) -> dict[str, Program]:
    _load(connection, "lefts", inputs, {"key": "left_key", "value": "left_value"})
    _load(connection, "rights", inputs, {"key": "right_key", "value": "right_value"})
    query = "SELECT sum(xor(xor(key, lefts.value), rights.value)) FROM lefts JOIN rights USING (key)"
    # Its sum has 128 bits; ours wraps.
    return {"": Program(_into_a_table(connection, query), _total)}


def _total(connection: Any) -> str:
    ((total,),) = connection.execute("FROM answer").fetchall()
    return str(total % (1 << 64))
