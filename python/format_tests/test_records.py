"""Records of numpy and pydantic in files, and files that are packed with Zstandard."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy
import pandas
import pydantic
import pytest

from sage import JobFailed, LocalEnvironment, _packed


class Model(pydantic.BaseModel):
    id: int
    at: datetime
    secret: pydantic.SecretStr = pydantic.SecretStr("s3cret")


def test_numbers_of_numpy_and_models_of_pydantic_have_their_usual_form(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    env = LocalEnvironment("typed")
    numbers = {"id": numpy.int64(1), "x": numpy.float32(0.5), "ok": numpy.bool_(True), "a": numpy.eye(2)}
    made = Model(id=2, at=datetime(2024, 1, 2))
    env.from_batch([numbers, made, {"id": numpy.int8(3), "model": made}, {"id": 1}]).to_jsonl(path, key="id")
    env.submit(autostop=True)
    model = {"id": 2, "at": "2024-01-02T00:00:00", "secret": "**********"}
    expected = [{"id": 1, "x": 0.5, "ok": True, "a": [[1, 0], [0, 1]]}, model, {"id": 3, "model": model}]
    assert [json.loads(line) for line in path.read_text().splitlines()] == expected
    for missing in (numpy.float32("nan"), pandas.NaT, pandas.NA):
        env = LocalEnvironment("missing")
        env.from_batch([{"x": missing}]).to_jsonl(path)
        with pytest.raises(JobFailed, match="the field `x` cannot be written: JSON has no form for"):
            env.submit(autostop=True)


#: The modules that know Zstandard, where they can be had.
KINDS = ["backports.zstd", "zstandard", *(["compression.zstd"] if sys.version_info >= (3, 14) else [])]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(_packed, "_ZSTD", (request.param,))
    return str(request.param)


def copied(source: Path, target: Path, **options: Any) -> None:
    env = LocalEnvironment("copies")
    env.from_jsonl(source, **options).to_jsonl(target)
    env.submit(autostop=True)


@pytest.mark.usefixtures("kind")
def test_files_are_packed_with_zstandard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, packed, again = tmp_path / "in.jsonl", tmp_path / "packed.jsonl.zst", tmp_path / "again.jsonl"
    records = ({"n": n, "text": "é" * (n % 100)} for n in range(9999))
    source.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    copied(source, packed)
    assert packed.read_bytes()[:4] == b"\x28\xb5\x2f\xfd" and packed.stat().st_size < source.stat().st_size / 4
    # Each reads what the others wrote, and files that were put behind each other.
    whole = packed.read_bytes()
    packed.write_bytes(whole * 2)
    for other in KINDS:
        monkeypatch.setattr(_packed, "_ZSTD", (other,))
        copied(packed, again)
        assert again.read_text() == source.read_text() * 2


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda packed: packed[:-5], "the packed file ends early"),
        (lambda packed: packed[:3], "the packed file ends early|cannot unpack it"),
        (lambda packed: b"no" + packed, "cannot unpack it"),
    ],
)
def test_what_cannot_be_unpacked_fails_the_job(cut: Any, said: str, tmp_path: Path) -> None:
    source, packed = tmp_path / "in.jsonl", tmp_path / "packed.jsonl.zst"
    source.write_text("1\n" * 100)
    copied(source, packed)
    packed.write_bytes(cut(packed.read_bytes()))
    with pytest.raises(JobFailed, match=said):
        copied(packed, source, on_error="skip")


def test_what_is_missing_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packed, "_ZSTD", ("no_such_module",))
    with pytest.raises(ImportError, match="in.jsonl.zst is packed with Zstandard: pip install backports.zstd"):
        LocalEnvironment("missing").from_jsonl("in.jsonl.zst")
    env = LocalEnvironment("missing")
    env.from_batch([1]).to_jsonl(tmp_path / "out.jsonl.zst")
    with pytest.raises(JobFailed, match="pip install backports.zstd"):
        env.submit(autostop=True)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for begin in (lambda env: env.from_parquet("x"), lambda env: env.from_arrow("x")):
        with pytest.raises(ImportError, match="needs pyarrow: pip install pyarrow"):
            begin(env)
