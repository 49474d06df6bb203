"""Keys are equal where a dict says so, whatever the parallelism and whatever counts them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import Any

import pytest

from sage import JobFailed, KeyContext, LocalEnvironment, ProcessFunction, Session, Tumbling, ops


class Name(str):
    """A header's name, whose case does not matter."""

    def __eq__(self, other: object) -> bool:
        return self.lower() == str(other).lower()

    def __hash__(self) -> int:
        return hash(self.lower())


class Same:
    """Objects of equal numbers are equal, and there is nothing else to tell them by."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.number == other.number

    def __hash__(self) -> int:
        return hash(("same", self.number))


class Unequal:
    """Is not even equal to itself; what it makes of `!=` is no truth."""

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> Any:
        raise TypeError("the truth of this is ambiguous")

    def __hash__(self) -> int:
        return 5


class Expression:
    """Builds expressions instead of comparing, as query builders do."""

    def __ne__(self, other: object) -> Any:
        return [self, other]

    __hash__ = object.__hash__


class Colour(Enum):
    RED = 1
    BLUE = 2


class Shade(str, Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Text(str):
    """A text like others, with more methods."""


@dataclass(frozen=True)
class Point:
    x: int
    y: float


Pair = namedtuple("Pair", "a b")

NAN, OTHER_NAN, UNEQUAL, EXPRESSION, NAN_PAIR = float("nan"), float("nan"), Unequal(), Expression(), (float("nan"), 1)
UTC = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)

KEYS: dict[str, list[Any]] = {
    "names": [Name("Host"), Name("host"), Name("HOST"), Name("Date")],
    "names in tuples": [(Name("Host"), 1), (Name("host"), 1.0), (Name("Host"), 2)],
    "objects": [Same(1), Same(1), Same(2), UNEQUAL, UNEQUAL, Unequal(), EXPRESSION, EXPRESSION, Expression()],
    "numbers": [1, 1.0, True, Decimal(1), Fraction(1), Level.LOW, complex(1), 0, -0.0, False, 2**80, 2.0**80],
    "fractions": [0.5, Fraction(1, 2), Decimal("0.5"), Decimal("0.50"), 0.1, Decimal("0.1")],
    "nans in tuples": [(NAN, 1), (NAN, 1), (OTHER_NAN, 1), NAN_PAIR, NAN_PAIR, (float("nan"), 1), ((NAN,), 2)],
    "decimal nans": [Decimal("nan"), Decimal("nan")],
    "frozensets": [frozenset([1, "a"]), frozenset(["a", 1.0]), frozenset([frozenset()]), frozenset([Same(1)])],
    "dataclasses": [Point(1, 2.0), Point(1, 2.0), Point(1.0, 2), Point(2, 1)],  # type: ignore[arg-type]
    "tuples": [(1, ("a", None)), (True, ("a", None)), Pair(1, 2), (1, 2), (1.0, 2.0), ((1,), 2), ()],
    "texts": ["a", Text("a"), "b", b"a", b"a", "\ud800", "\udc80", Shade.RED, "red", ""],
    "times": [UTC, UTC.astimezone(timezone(timedelta(hours=2))), date(2024, 1, 1), datetime(2024, 1, 1)],
    "others": [None, None, Colour.RED, Colour.BLUE, Colour.RED, int, int, len, ..., range(2), range(0, 2)],
    "long tuples": [tuple(range(200)), tuple(range(200)), (*range(199), "x")],
}


class Counts(ProcessFunction):
    def on_record(self, record: Any, key: KeyContext) -> None:
        key.state = (key.state or 0) + 1
        key.set_timer(1e6)

    def on_timer(self, timer: Any, key: KeyContext) -> None:
        key.push((key.key, key.state))


def windowed(keyed: Any, parallelism: int) -> Any:
    return keyed.window(Tumbling(10)).count(parallelism=parallelism).map(lambda w: (w.key, w.value))


def sessions(keyed: Any, parallelism: int) -> Any:
    return keyed.window(Session(10)).apply(lambda *window: window[3], parallelism=parallelism).map(
        lambda w: (w.key, len(w.value))
    )


WAYS: dict[str, Callable[[Any, int], Any]] = {
    "count": lambda keyed, n: keyed.count(parallelism=n),
    "fold": lambda keyed, n: keyed.fold(0, lambda count, _: count + 1, parallelism=n),
    "top": lambda keyed, n: keyed.top_k(99, lambda _: 0, parallelism=n).map(lambda kept: (kept[0], len(kept[1]))),
    "process": lambda keyed, n: keyed.process(Counts, parallelism=n),
    "windows": windowed,
    "sessions": sessions,
}


def sizes(pairs: Any) -> list[tuple[str, int]]:
    """Keys as they look, as some are not even equal to themselves."""
    return sorted((repr(key), count) for key, count in pairs)


@pytest.mark.parametrize("kind", KEYS)
def test_keys_are_equal_where_a_dict_says_so(kind: str) -> None:
    keys = KEYS[kind] * 3
    expected = sizes(Counter(keys).items())
    env = LocalEnvironment("keys")
    keyed = env.from_batch(keys).with_timestamps(lambda _: 1).keyby(lambda key: key)
    got = {
        (way, parallelism): count(keyed, parallelism).collect()
        for way, count in WAYS.items()
        for parallelism in (1, 2, 5)
    }
    for parallelism in (1, 3):
        plain = env.from_batch(keys).keyby(ops.identity())
        got["native", parallelism] = plain.count(parallelism=parallelism).collect()
        firsts = env.from_batch(keys).keyby(lambda key: key)
        for expiry in (None, 3600):
            distinct = firsts.distinct(parallelism=parallelism, expire_after=expiry)
            got["distinct", parallelism, expiry] = distinct.map(lambda key: (key, 1)).collect()
        one, other = firsts, env.from_batch(list(Counter(keys))).keyby(lambda key: key)
        pairs = one.join(other).inner(parallelism=parallelism)
        got["join", parallelism] = pairs.map(lambda pair: (pair.right, 1)).collect()
    env.submit(autostop=True)
    for way, pairs in got.items():
        if way[0] == "distinct":
            assert len(pairs) == len(expected), way
        elif way[0] == "join":
            assert sizes(Counter(repr(key) for key, _ in pairs).items()) == sizes(
                Counter(repr(key) for key, count in Counter(keys).items() for _ in range(count)).items()
            ), way
        else:
            assert [count for _, count in sizes(pairs)] == [count for _, count in expected], way
            assert sizes(pairs) == expected, way


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("parallelism", [1, 3])
def test_all_floats_that_are_no_number_are_one_key(way: str, parallelism: int) -> None:
    env = LocalEnvironment("nan")
    records = [float("nan"), NAN, float("-nan"), 1.0, float("inf") - float("inf")]
    keyed = env.from_batch(records).with_timestamps(lambda _: 1).keyby(lambda key: key)
    got = WAYS[way](keyed, parallelism).collect()
    env.submit(autostop=True)
    assert sizes(got) == [("1.0", 1), ("nan", 4)]


def test_the_key_that_comes_out_is_the_first_that_went_in() -> None:
    for parallelism in (1, 2):
        env = LocalEnvironment("first")
        names = env.from_batch([Name("Host"), Name("host")]).keyby(lambda name: name)
        counts = names.count(parallelism=parallelism).collect()
        texts = env.from_batch([Text("a"), "a"]).keyby(lambda text: text).count(parallelism=parallelism).collect()
        env.submit(autostop=True)
        assert [(type(key), str(key), count) for key, count in counts] == [(Name, "Host", 2)]
        assert [(type(key), count) for key, count in texts] == [(Text, 2)]


class Breaks:
    """Can be hashed, and not be compared."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")


@pytest.mark.parametrize("parallelism", [1, 2])
def test_what_a_key_raises_when_it_is_compared_is_the_cause(parallelism: int) -> None:
    env = LocalEnvironment("breaks")
    env.from_batch([Breaks(), Breaks()]).keyby(lambda key: key).process(Counts, parallelism=parallelism).collect()
    with pytest.raises(RuntimeError) as failed:
        env.submit(autostop=True)
    assert "not comparable" in str(failed.value.__cause__)


ELSEWHERE = """
from sage import LocalEnvironment, SinkFunction
class Seen(SinkFunction):
    def execute(self, key): print(repr(key), self.ctx.replica)
keys = ["a", "b", b"a", ("a", 1, None), frozenset(["x", "y"]), 2.5, "\\ud800", type("T", (str,), {})("c")]
env = LocalEnvironment("elsewhere")
env.from_batch(keys).keyby(lambda key: key).sink(Seen, parallelism=64)
env.submit(autostop=True)
"""


def test_keys_of_builtin_types_go_to_the_same_replica_in_every_process() -> None:
    def run(seed: str) -> list[str]:
        ran = subprocess.run(
            [sys.executable, "-c", ELSEWHERE],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={"PYTHONHASHSEED": seed},
        )
        return sorted(line for line in ran.stdout.splitlines() if "frozenset" not in line)

    first, second = run("1"), run("2")
    assert first == second and len(first) == 7


@pytest.mark.parametrize("records", [["host", Name("Host")], [Name("Host"), "host"], ["a", "b", Name("B"), "c"]])
@pytest.mark.parametrize("way", [*WAYS, "native"])
def test_plain_texts_beside_those_of_a_class_with_its_own_hash_are_together_or_refused(
    records: list[str], way: str
) -> None:
    for parallelism in (1, 2):
        env = LocalEnvironment("mixed")
        if way == "native":
            counts = env.from_batch(records).keyby(ops.identity()).count(parallelism=parallelism).collect()
        else:
            keyed = env.from_batch(records).with_timestamps(lambda _: 1).keyby(lambda key: key)
            counts = WAYS[way](keyed, parallelism).collect()
        try:
            env.submit(autostop=True)
        except JobFailed as failed:
            assert "let all keys be of one class" in str(failed.__cause__)
        else:
            assert sizes(counts) == sizes(Counter(records).items())
