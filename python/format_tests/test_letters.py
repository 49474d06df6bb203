"""Dead letters of records of pydantic and numpy come back as they were."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy
import pydantic
import pytest

from sage import DeadLetterQueue, Letter, LocalEnvironment, read_letters


class Part(pydantic.BaseModel):
    name: str
    at: datetime


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    id: int = pydantic.Field(alias="ID")
    parts: list[Part] = []
    path: Path | None = None


class Secret(pydantic.BaseModel):
    key: pydantic.SecretStr


@dataclass
class Embedded:
    part: Part
    vector: numpy.ndarray


def fail(record: Any) -> None:
    raise ValueError("never")


def through(records: list[Any], path: Path, as_: Any = None) -> list[Letter]:
    env = LocalEnvironment("letters")
    env.from_batch(records).map(fail, on_error=DeadLetterQueue(path)).collect()
    env.submit(autostop=True)
    return list(read_letters(path, as_=as_))


PART = Part(name="é", at=datetime(2024, 1, 2))
MODEL = Model(ID=1, parts=[PART], path=Path("a"), more=[1, (2,)])  # type: ignore[call-arg]


def test_a_model_comes_back_as_its_class(tmp_path: Path) -> None:
    path = tmp_path / "models.jsonl"
    (letter,) = through([MODEL], path, as_=Model)
    assert letter.record == MODEL and type(letter.record.parts[0]) is Part and letter.is_exact
    (letter,) = read_letters(path)
    plain = {"id": 1, "parts": [{"name": "é", "at": PART.at}], "path": Path("a"), "more": [1, (2,)]}
    assert letter.record == plain and not letter.is_exact


def test_a_model_is_validated_as_it_is_made(tmp_path: Path) -> None:
    path = tmp_path / "models.jsonl"
    through([MODEL], path)
    told = json.loads(path.read_text())
    told["tagged"]["model"][1][0] = ["id", "one"]
    path.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"models\.jsonl, line 1: cannot make `Model` of it: 1 validation error"):
        list(read_letters(path, as_=Model))


def test_a_secret_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "secrets.jsonl"
    with pytest.warns(UserWarning, match="a record of the type `Secret` cannot be read back.*for the type `SecretStr`"):
        (letter,) = through([Secret(key=pydantic.SecretStr("s3cret"))], path)
    assert letter.record is None and "s3cret" not in path.read_text()


ARRAYS = [
    numpy.arange(6, dtype="int16").reshape(2, 3),
    numpy.array([[1.5, numpy.nan], [numpy.inf, -0.0]], dtype=">f4"),
    numpy.array([], dtype="float64"),
    numpy.zeros((0, 3)),
    numpy.array(5.0),
    numpy.array(["é", "longer"]),
    numpy.array([b"\0a", b"b"]),
    numpy.array(["2024-01-02", "NaT"], dtype="datetime64[D]"),
    numpy.array([True, False]),
    numpy.asfortranarray(numpy.arange(6).reshape(2, 3)),
    numpy.array([1 + 2j]),
]

NUMBERS = [
    numpy.int8(-1), numpy.uint64(2**63), numpy.float32(0.1), numpy.float64(0.1), numpy.bool_(True), numpy.str_("é"),
    numpy.datetime64("2024-01-02T03", "h"), numpy.timedelta64(5, "s"), numpy.complex64(1j), numpy.float16("inf"),
]  # fmt: skip


def test_arrays_and_numbers_of_numpy_come_back_without_a_class(tmp_path: Path) -> None:
    records = [*({"array": array} for array in ARRAYS), *NUMBERS]
    letters = through(records, tmp_path / "numpy.jsonl")
    assert all(letter.is_exact for letter in letters)
    for letter, array in zip(letters, ARRAYS):
        got = letter.record["array"]
        assert got.dtype == array.dtype and got.shape == array.shape and got.tobytes() == array.tobytes()
        assert got.flags.writeable
    for letter, number in zip(letters[len(ARRAYS) :], NUMBERS):
        assert type(letter.record) is type(number) and letter.record == number


def test_arrays_in_objects_come_back_with_their_class(tmp_path: Path) -> None:
    path = tmp_path / "embedded.jsonl"
    (letter,) = through([Embedded(PART, numpy.arange(3.0))], path, as_=Embedded)
    assert letter.record.part == PART and letter.record.vector.tolist() == [0.0, 1.0, 2.0] and letter.is_exact


def test_arrays_of_objects_are_described_and_warned_of(tmp_path: Path) -> None:
    for array in (numpy.array([Path("a")], dtype=object), numpy.array([(1, 2)], dtype=[("a", "i4"), ("b", "i4")])):
        with pytest.warns(UserWarning, match="a record of the type `ndarray` cannot be read back"):
            letter = through([array], tmp_path / "objects.jsonl")[-1]
        assert letter.record is None and letter.repr is not None and "array" in letter.repr


@pytest.mark.parametrize(
    "form",
    [
        ["|O", [1], "AAAAAAAAAAA="],
        ["<f8", [2], "AAAAAAAAAAA="],
        ["<f8", [-1], ""],
        ["what", [1], ""],
        ["<f8", [1], "%"],
    ],
)
def test_what_is_no_array_is_no_letter(form: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    through([numpy.zeros(1)], path)
    told = json.loads(path.read_text())
    told["tagged"]["ndarray"] = form
    path.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 1: not a letter of this package"):
        list(read_letters(path))
