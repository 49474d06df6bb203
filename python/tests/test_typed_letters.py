"""Dead letters of records with classes of their own: read back as what they were, by `read_letters(path, as_=…)`."""

from __future__ import annotations

import json
import warnings
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum, IntEnum
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple, Optional

import pytest

from sage import DeadLetterQueue, Letter, LocalEnvironment, read_letters

CALLED: list[str] = []


class Color(Enum):
    RED = "red"
    BLUE = (0, 0, 255)


class Level(IntEnum):
    LOW = 1


@dataclass
class Item:
    name: str
    at: datetime
    path: Path
    color: Color = Color.RED


@dataclass(frozen=True)
class Order:
    id: int
    items: list[Item]
    by_name: dict[str, Optional[Item]] = field(default_factory=dict)
    level: Level = Level.LOW
    total: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        CALLED.append("Order")


class Point(NamedTuple):
    x: int
    color: Color


Pair = namedtuple("Pair", "a b")


@dataclass
class Moves:
    """Is made of what its constructor changes."""

    n: int

    def __post_init__(self) -> None:
        self.n += 1


@dataclass
class Strict:
    n: int

    def __post_init__(self) -> None:
        if self.n > 1:
            raise ValueError("too large")


class Connection:
    pass


def fail(record: Any) -> None:
    raise ValueError("never")


def through(records: list[Any], path: Path, as_: Any = None) -> list[Letter]:
    """The letters of records, from a file."""
    env = LocalEnvironment("letters")
    env.from_batch(records).map(fail, on_error=DeadLetterQueue(path), name="fails").collect()
    env.submit(autostop=True)
    return list(read_letters(path, as_=as_))


ITEM = Item("é", datetime(2024, 1, 2, tzinfo=timezone.utc), Path("a/b"))


def order() -> Order:
    made = Order(1, [ITEM, Item("x", ITEM.at, Path(), Color.BLUE)], {"one": ITEM, "none": None})
    object.__setattr__(made, "total", 2.5)
    return made


def test_paths_come_back_without_a_class(tmp_path: Path) -> None:
    records = [Path("a/b"), PurePosixPath("x"), PureWindowsPath("c:\\x"), {"path": Path("\udcff")}, (Path(),)]
    letters = through(records, tmp_path / "paths.jsonl")
    assert [letter.record for letter in letters] == records and all(letter.is_exact for letter in letters)
    assert [type(letter.record) for letter in letters] == [type(record) for record in records]


def test_a_record_comes_back_as_its_class_with_all_in_it(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    CALLED.clear()
    made = order()
    assert CALLED == ["Order"]
    (letter,) = through([made], path, as_=Order)
    assert letter.record == made and letter.record.total == 2.5 and letter.is_exact and letter.repr is None
    assert type(letter.record.items[1]) is Item and letter.record.items[1].color is Color.BLUE
    assert type(letter.record.level) is Level and CALLED == ["Order", "Order"]


def test_without_classes_no_code_of_the_program_is_called(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    made = order()
    CALLED.clear()
    (letter,) = through([made], path)
    assert CALLED == [] and not letter.is_exact and letter.repr is not None and "Order(id=1" in letter.repr
    plain = letter.record
    assert plain["id"] == 1 and plain["total"] == 2.5 and plain["level"] == 1
    assert plain["items"][1] == {"name": "x", "at": ITEM.at, "path": Path(), "color": (0, 0, 255)}


@pytest.mark.parametrize(
    ("record", "as_", "plain"),
    [
        (Point(1, Color.RED), Point, (1, "red")),
        (Pair(1, [2]), Pair, (1, [2])),
        (Color.BLUE, Color, (0, 0, 255)),
        (Level.LOW, Level, 1),
        ({"p": [Point(1, Color.RED)], 5: Level.LOW}, (Point, Level), {"p": [(1, "red")], 5: 1}),
    ],
)
def test_namedtuples_and_members_of_enums(record: Any, as_: Any, plain: Any, tmp_path: Path) -> None:
    path = tmp_path / "typed.jsonl"
    (letter,) = through([record], path, as_)
    assert letter.record == record and letter.is_exact and type(letter.record) is type(record)
    (letter,) = read_letters(path)
    assert letter.record == plain and type(letter.record) is type(plain) and not letter.is_exact


def test_of_several_classes_one_that_is_not_given_leaves_the_letter_inexact(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    letters = through([{"m": Moves(1), "p": Pair(1, 2)}, Pair(1, 2), "plain"], path, as_=Pair)
    assert [letter.is_exact for letter in letters] == [False, True, True]
    assert letters[0].record == {"m": {"n": 2}, "p": Pair(1, 2)} and letters[1].record == Pair(1, 2)


def test_a_class_may_have_another_name_by_now(tmp_path: Path) -> None:
    @dataclass
    class Renamed:
        n: int

    path = tmp_path / "renamed.jsonl"
    (letter,) = through([Strict(1)], path, as_=Renamed)
    assert letter.record == Renamed(1)


def test_what_a_constructor_changes_is_not_exact(tmp_path: Path) -> None:
    made = Moves(1)
    assert made.n == 2
    (letter,) = through([made], tmp_path / "moves.jsonl", as_=Moves)
    assert letter.record.n == 3 and not letter.is_exact


def test_a_record_that_the_class_does_not_take_is_named(tmp_path: Path) -> None:
    path, record = tmp_path / "strict.jsonl", Strict(1)
    record.n = 2
    with pytest.raises(ValueError, match=r"strict\.jsonl, line 2: cannot make `Strict` of it: too large"):
        through([Strict(1), record], path, as_=Strict)
    with pytest.raises(ValueError, match=r"line 1: cannot make `Item` of it: .*unexpected keyword argument 'n'"):
        list(read_letters(path, as_=Item))
    with pytest.raises(TypeError, match="`as_` is a dataclass, a model of pydantic, a namedtuple or an Enum, not"):
        read_letters(path, as_=dict)


def test_what_cannot_be_read_back_is_warned_of_once_for_each_operator_and_type(tmp_path: Path) -> None:
    @dataclass
    class Holds:
        connection: Any

    env, path = LocalEnvironment("warns"), tmp_path / "letters.jsonl"
    records = [Connection(), Connection(), Holds(Connection()), Holds(1), [fail], "plain", order()]
    for name in ("one", "two"):
        env.from_batch(records).map(fail, on_error=DeadLetterQueue(path), name=name).collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env.submit(autostop=True)
    told = sorted(str(warning.message) for warning in caught)
    assert len(told) == 6
    assert told[0] == (
        f"dead letters of `one`: a record of the type `Connection` cannot be read back from {path}, "
        "as there is no form for the type `Connection`; the letter describes it"
    )
    assert [message.split("`")[5] for message in told[:3]] == ["Connection", "function", "Connection"]
    letters = [letter for letter in read_letters(path) if letter.operator == "one"]
    assert [letter.record is None for letter in letters] == [True, True, True, False, True, False, False]


def test_a_line_says_nothing_of_modules(tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    through([Strict(1)], path)
    told = json.loads(path.read_text())
    assert told["tagged"] == {"dataclass": ["Strict", [["n", 1]]]} and (told["exact"], told["typed"]) == (False, True)
