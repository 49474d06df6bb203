"""The functions that the engine runs itself do what their references in Python do."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest

from sage import JobFailed, LocalEnvironment, ops

RANDOM = random.Random(3)


class Text(str):
    pass


PLAIN = [
    "", " ", "a", "A b", "\x1ca\x1f b\u2003c\x85", "Straße ΑΣ İ", "\ud800 x", "x,y,,z", "12", "-7", " 5 ",
    "1_000", "3.5", "1e3", "nan", "9" * 30, '{"n": 1, "n": 2.5, "t": ["x", null, true]}',
    "[1, -0, -0.0, 1e400, 123456789012345678901]", "0.1", "NaN", "not json", b"bytes", 0, 1, -1, 2**70, 0.5,
    float("inf"), True, None, (), [], {}, {"n": 5}, {"n": [1, {"m": (2,)}], 3: 4}, Text("sub class"),
    frozenset([1]),
]
OPS = [
    ops.identity(), ops.split(), ops.split(","), ops.strip(), ops.lower(), ops.contains("x"),
    ops.parse_json(), ops.field("n"), ops.to_int(), ops.to_float(),
]


def outcome(call: Any) -> tuple[str, str]:
    try:
        return "result", repr(call())
    except JobFailed as failed:
        cause = failed.__cause__
        return type(cause).__name__, str(cause)
    except Exception as exception:
        return type(exception).__name__, str(exception)


@pytest.mark.parametrize("kind", ["map", "filter", "flatmap"])
@pytest.mark.parametrize("op", OPS, ids=repr)
def test_each_does_what_its_reference_does(op: ops.Op, kind: str) -> None:
    def run(function: Any, record: Any) -> Any:
        env = LocalEnvironment("one")
        keep = {"keep_none": True} if kind == "map" else {}
        got = getattr(env.from_batch([record]), kind)(function, **keep).collect()
        env.submit(autostop=True)
        return got

    for record in PLAIN:
        assert outcome(lambda: run(op, record)) == outcome(lambda: run(lambda x: op(x), record)), record


@pytest.mark.parametrize("parallelism", [1, 3])
def test_counts_and_sums_of_random_records(parallelism: int) -> None:
    names = ["a", "b", "", "ç", Text("a"), 1, 1.0, True, None, 2.5, ("t", 1), float("nan")]
    amounts = [1, 2.5, 2**62, 2**62, -3, True]
    records = [{"name": RANDOM.choice(names), "amount": RANDOM.choice(amounts)} for _ in range(2000)]
    env = LocalEnvironment("sums")
    stream = env.from_batch(records)
    by_name = stream.keyby(ops.field("name"))
    results = {
        "counts": by_name.count(parallelism=parallelism).collect(),
        "sums": by_name.sum(ops.field("amount"), parallelism=parallelism).collect(),
        "amounts": stream.map(ops.field("amount")).keyby(ops.identity()).count(parallelism=parallelism).collect(),
    }
    reference = stream.keyby(lambda record: record["name"])
    expected = {
        "counts": reference.count().collect(),
        "sums": reference.sum(lambda record: record["amount"]).collect(),
        "amounts": stream.map(lambda record: record["amount"]).keyby(lambda n: n).count().collect(),
    }
    total = stream.map(ops.field("amount")).sum().collect()
    env.submit(autostop=True)

    def by_key(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        assert len({"nan" if key != key else key for key, _ in pairs}) == len(pairs)
        return {("nan" if key != key else key): value for key, value in pairs}

    for name in results:
        assert by_key(results[name]) == by_key(expected[name]), name
    assert total == [sum(record["amount"] for record in records)]


#: What texts are made of: letters, white space, and what is neither but near it, of one byte and of more.
LETTERS = ["ab", "aä", "日本語", "a\x00\x08\x0e\x1b", "Ā\u2027\u200b\u3001\ufeff", "😀a"]
SPACES = [" ", " \t\n", "\x0b\x0c\x1c\x1d\x1e\x1f\r", "\x85\xa0", "\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"]


@pytest.mark.parametrize("spaces", SPACES, ids=repr)
@pytest.mark.parametrize("letters", LETTERS, ids=repr)
def test_words_are_those_of_python(letters: str, spaces: str) -> None:
    def word() -> str:
        return "".join(RANDOM.choices(letters, k=RANDOM.choice([1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 40])))

    def space() -> str:
        return "".join(RANDOM.choices(spaces, k=RANDOM.choice([0, 1, 1, 1, 2, 9])))

    lines = [space() + "".join(word() + space() for _ in range(RANDOM.randrange(12))) for _ in range(300)]
    env = LocalEnvironment("alphabets")
    words = env.from_batch(lines).flatmap(ops.split())
    got = words.collect()
    counts = words.keyby(ops.identity()).count().collect()
    lower = words.keyby(ops.lower()).count().collect()
    lines_of = env.from_batch(lines).map(ops.strip()).keyby(ops.identity()).count().collect()
    env.submit(autostop=True)
    expected = [word for line in lines for word in line.split()]
    assert got == expected
    for pairs, wanted in ((counts, expected), (lower, [word.lower() for word in expected])):
        assert dict(pairs) == Counter(wanted) and len(pairs) == len(dict(pairs))
    assert dict(lines_of) == Counter(line.strip() for line in lines)


def test_texts_and_others_of_one_block_keep_their_order() -> None:
    records = ["a b", "c", 5, "d", ["e"], "\ud800", "f g" * 20, None]
    env = LocalEnvironment("mixed")
    same = env.from_batch(records).map(ops.identity(), keep_none=True).collect()
    env.submit(autostop=True)
    assert list(same) == records
    env = LocalEnvironment("fails")
    got = env.from_batch(["a b", "c d", 5, "e"]).flatmap(ops.split()).collect()
    with pytest.raises(JobFailed, match="record 3"):
        env.submit(autostop=True)
    assert got == ["a", "b", "c", "d"][: len(got)], "what has come by then, in order"


def test_a_text_of_a_class_of_its_own_is_counted_with_equal_ones_that_came_before() -> None:
    env = LocalEnvironment("mixed")
    texts = ["a", "long enough for a table of its own", ""]
    records = [*texts, *texts, *(Text(text) for text in texts), *texts]
    counts = env.from_batch(records).keyby(ops.identity()).count().collect()
    env.submit(autostop=True)
    assert dict(counts) == dict.fromkeys(texts, 4) and len(counts) == 3


def test_words_of_json_lines() -> None:
    lines = [json.dumps({"text": f"Word{n % 7} other", "n": n}) for n in range(1000)]
    env = LocalEnvironment("json")
    words = env.from_batch(lines).map(ops.parse_json()).map(ops.field("text")).map(ops.lower()).flatmap(ops.split())
    counts = words.keyby(ops.identity()).count().collect()
    some = words.filter(ops.contains("word3")).map(lambda word: word.upper()).count().collect()
    env.submit(autostop=True)
    assert dict(counts) == Counter(word for n in range(1000) for word in (f"word{n % 7}", "other"))
    assert some == [143]


def test_they_run_while_another_thread_has_the_interpreter() -> None:
    """The records of a chain of such functions are worked on while Python code never lets go of the lock for them.

    The task gets it for a block of records at a time, each time after 5 ms: blocks stay large, so it is not asked
    for often.
    """
    env = LocalEnvironment("free")
    lines = ["a b c d e f g h"] * 20000
    counts = env.from_batch(lines).flatmap(ops.split()).keyby(ops.identity()).count().collect()
    steps = 0
    over = threading.Event()

    def count() -> None:
        nonlocal steps
        while not over.is_set():
            steps += 1

    thread = threading.Thread(target=count)
    thread.start()
    begin = time.monotonic()
    try:
        env.submit(autostop=True)
    finally:
        over.set()
        thread.join()
    # A fraction of a second; with blocks of a record it would be 100 s and more.
    assert time.monotonic() - begin < 25
    assert dict(counts) == dict.fromkeys("abcdefgh", 20000) and steps > 0


def test_errors_name_the_operator_and_policies_work() -> None:
    env = LocalEnvironment("errors")
    env.from_batch([{"n": 1}, {}]).map(ops.field("n")).collect()
    with pytest.raises(JobFailed, match="field 'n'") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, KeyError)
    env = LocalEnvironment("skipped")
    got = env.from_batch([{"n": 1}, {}, {"n": 2}]).map(ops.field("n"), on_error="skip").collect()
    env.submit(autostop=True)
    assert got == [1, 2]
    with pytest.raises(ValueError, match="separator is empty"):
        ops.split("")


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


def test_containers_stay_the_objects_that_they_are() -> None:
    root: dict[str, Any] = {"name": "root"}
    root["children"] = [{"name": name, "parent": root} for name in "ab"]
    shared: Any = [0]
    for _ in range(60):
        shared = [shared, shared]
    nested, nan = deep(100_000), float("nan")
    records = [root, {"children": shared}, {"children": nested}, {"children": (nan, nan)}, {"children": {"a": [1]}}]
    env = LocalEnvironment("containers")
    stream = env.from_batch(records)
    same = stream.map(ops.identity()).collect()
    children = stream.map(ops.field("children")).map(ops.identity()).collect()
    again = env.from_batch(iter(records)).filter(ops.field("children")).map(ops.field("children")).collect()
    flat = stream.map(ops.field("children")).flatmap(ops.identity()).take(2).collect()
    keyed = stream.keyby(ops.field("name"), on_error="skip").count().collect()
    env.submit(autostop=True)
    assert [id(record) for record in same] == [id(record) for record in records]
    assert [id(got) for got in children] == [id(got) for got in again] == [id(r["children"]) for r in records]
    assert [id(got) for got in flat] == [id(child) for child in root["children"]]
    assert keyed == [("root", 1)]


def test_what_comes_after_sees_the_change_that_came_before() -> None:
    rows = [{"seen": []} for _ in range(5000)]  # type: ignore[var-annotated]
    env = LocalEnvironment("aliases")
    env.from_batch(rows).map(ops.identity()).map(ops.field("seen")).sink(lambda seen: seen.append(1))
    env.submit(autostop=True)
    assert all(row["seen"] == [1] for row in rows)


def test_plain_records_and_containers_keep_their_order() -> None:
    records = [n if n % 3 else {"n": [n]} for n in range(10_000)]
    env = LocalEnvironment("order")
    got = env.from_batch(records).map(ops.identity()).collect()
    fields = env.from_batch([{"n": record} for record in records]).map(ops.field("n")).map(ops.identity()).collect()
    env.submit(autostop=True)
    assert got == records and fields == records


@pytest.mark.parametrize(
    ("op", "record", "expected"),
    [
        (ops.contains("\udce9"), "caf\udce9", "caf\udce9"),
        (ops.field("\ud800"), {"\ud800": 5}, {"\ud800": 5}),
        (ops.field(3), {3: 4}, {3: 4}),  # type: ignore[arg-type]
        (ops.contains(2), [1, 2], [1, 2]),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_an_argument_of_any_kind_means_what_it_means_in_python(op: ops.Op, record: Any, expected: Any) -> None:
    env = LocalEnvironment("arguments")
    got = env.from_batch([record]).filter(op).collect()
    split = env.from_batch(["a\udce9b"]).flatmap(ops.split("\udce9")).collect()
    env.submit(autostop=True)
    assert got == [expected] and split == ["a", "b"]
