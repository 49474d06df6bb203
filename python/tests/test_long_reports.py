"""Reports of many operators, and names of any length: no table is as wide as the longest, and nothing fails for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage import BaseService, JobFailed, LocalEnvironment


class Store(BaseService):
    pass


def long(letter: str) -> str:
    return letter * 70_000


def doubled(record: int) -> int:
    return 2 * record


def failing(record: int) -> int:
    raise LookupError(f"no {record}")


def test_names_of_any_length_make_no_table_wide(tmp_path: Path) -> None:
    env = LocalEnvironment(long("e"), config={"log_dir": str(tmp_path)})
    env.register_service(long("s"), Store)
    got = env.from_batch([1, 2], name=long("b")).map(doubled, name=long("m")).filter(bool, name=long("f")).collect()
    report = env.submit(autostop=True).report
    assert got == [2, 4]
    assert report.data["operators"][0]["name"] == long("b")
    lines = str(report).splitlines()
    assert any(line.startswith("  " + "b" * 59 + "…") for line in lines)
    # The functions that ran as one operator have a line each, in the same table.
    assert any(line.startswith("    " + "m" * 57) for line in lines), lines
    assert max(map(len, lines)) < 400


def test_and_none_of_an_error(tmp_path: Path) -> None:
    env = LocalEnvironment(long("e"), config={"log_dir": str(tmp_path)})
    env.from_batch([1, 2], name=long("b")).map(failing, name=long("m")).collect()
    with pytest.raises(JobFailed, match="LookupError: no 1") as failed:
        env.submit(autostop=True)
    assert len(str(failed.value)) < 2_000


def test_a_report_of_thousands_of_operators() -> None:
    env = LocalEnvironment("many")
    got = [env.from_batch([number]).map(doubled).collect() for number in range(1_000)]
    report = env.submit(autostop=True).report
    assert [records[0] for records in got] == [2 * number for number in range(1_000)]
    assert len(str(report).splitlines()) > 2_000
