"""What a ``Memory`` refuses, and what becomes of exceptions that its functions raise."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from test_memory import SCOPE, Letters, texts

from sage.services import (
    Memory,
    MemoryClosed,
    MemoryFull,
    NewTurn,
    Scope,
    TurnsChanged,
    UnknownTurn,
    Weights,
)


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory() as memory:
        yield memory


def of(**parts: Any) -> Callable[[Memory], Any]:
    return lambda memory: memory.append(SCOPE, [("user", "fine"), NewTurn(**{"role": "user", "text": "x", **parts})])


def embeds(**parts: Any) -> Callable[[Memory], Any]:
    """Appends to a memory whose embedder is odd."""
    odd = type("Odd", (Letters,), parts)()

    def append(_: Memory) -> None:
        with Memory(embedder=odd) as memory:
            memory.append(SCOPE, [("user", "x"), ("user", "y")])

    return append


ZERO = datetime(2026, 1, 1)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (of(text=""), ValueError, 'turn "without an id" is refused: it says nothing'),
        (of(text=" \n", id="a"), ValueError, 'turn "a" is refused: it says nothing'),
        (of(text="x" * (2**20 + 1)), ValueError, "its text has 1048577 bytes; 1048576 are taken: divide it"),
        (of(text="\ud800"), UnicodeEncodeError, "surrogates not allowed"),
        (of(text=b"x"), TypeError, "'bytes' object"),
        (of(text=None), TypeError, "'None' is not an instance of 'str'"),
        (of(role=""), ValueError, "its role has 0 bytes; 1 to 128 are taken"),
        (of(role="\udfff"), UnicodeEncodeError, "surrogates not allowed"),
        (of(id=""), ValueError, "its id has 0 bytes; 1 to 512 are taken"),
        (of(id="i" * 513), ValueError, "its id has 513 bytes"),
        (of(id=7), TypeError, "'int' object is not an instance of 'str'"),
        (of(importance=1.1), ValueError, "its importance is 1.1, which is not from 0 to 1"),
        (of(importance=float("nan")), ValueError, "its importance is NaN"),
        (of(importance="high"), TypeError, "must be real number, not str"),
        (of(ttl=0), ValueError, "`ttl` is more than 0 seconds, not 0"),
        (of(ttl=-1), ValueError, "`ttl` is more than 0 seconds, not -1"),
        (of(ttl="1 day"), ValueError, "`ttl` is more than 0 seconds, not '1 day'"),
        (of(said=ZERO), ValueError, "`said` is a datetime without a time zone"),
        (of(said=1_700_000_000), TypeError, "`said` is a datetime with a time zone, not int"),
        (of(metadata={"n": None}), TypeError, "`n` is NoneType: a value is a str, int"),
        (of(metadata={"n": float("inf")}), ValueError, "not a finite number, in `n`"),
        (of(metadata=[1]), TypeError, "metadata is a mapping of names to values, not list"),
        (of(vector=[1.0]), ValueError, "the memory was made without an embedder"),
        (of(vector="12"), TypeError, "a vector is a Vector, a list or tuple of numbers"),
        (lambda m: m.append(SCOPE, "text"), TypeError, "`turns` is a list of turns, not this str: put it in one"),
        (lambda m: m.append(SCOPE, NewTurn("a", "b")), TypeError, "a list of turns, not this NewTurn"),
        (lambda m: m.append(SCOPE, {"role": "a", "content": "b"}), TypeError, "a list of turns, not this dict"),
        (lambda m: m.append(SCOPE, ("user", "x")), TypeError, "or a mapping with `role` and `content`, not this str"),
        (lambda m: m.append(SCOPE, [("user",)]), TypeError, "a tuple of its role and text, or a mapping"),
        (lambda m: m.append(SCOPE, [["user", "x"]]), TypeError, "and `content`, not this list"),
        (lambda m: m.append(SCOPE, [(1, "x")]), TypeError, "`role` of a turn is a text, not int"),
        (lambda m: m.append(SCOPE, [("user", ["x"])]), TypeError, "`text` of a turn is a text, not list"),
        (lambda m: m.append(SCOPE, [{"role": "user"}]), ValueError, "has `role` and `content`"),
        (lambda m: m.append(SCOPE, [{"role": "a", "content": None}]), TypeError, "`content` of a turn is a text, not"),
        (lambda m: m.append(SCOPE, [{"role": "a", "content": "b", "text": 1}]), ValueError, "but no `text`"),
        (lambda m: m.append(SCOPE, 7), TypeError, "'int' object is not iterable"),
        (lambda m: m.append("acme", [("user", "x")]), TypeError, "'str' object is not an instance of 'Scope'"),
        (lambda m: m.append_all([("acme", ("user", "x"))]), TypeError, "tuples of a Scope and a turn, not this tuple"),
        (lambda m: m.append_all([NewTurn("a", "b")]), TypeError, "tuples of a Scope and a turn, not this NewTurn"),
        (lambda m: m.append_all([(SCOPE, "x")]), TypeError, "`role` and `content`, not this str"),
        (lambda m: m.update(SCOPE, "nobody", "x"), UnknownTurn, 'there is no turn "nobody" in tenant acme, user u1'),
        (lambda m: m.delete(SCOPE, "nobody"), UnknownTurn, 'there is no turn "nobody"'),
        (lambda m: m.erase_turn(SCOPE, "nobody"), UnknownTurn, 'there is no turn "nobody"'),
        (lambda m: m.update(SCOPE, "\ud800", "x"), UnicodeEncodeError, "surrogates not allowed"),
        (lambda m: m.get(SCOPE, "a", at=ZERO), ValueError, "`at` is a datetime without a time zone"),
        (lambda m: m.window(SCOPE, 1, at=0), TypeError, "`at` is a datetime with a time zone, not int"),
        (lambda m: m.window(SCOPE), TypeError, "a window has so many `turns`, so many `tokens`, or both"),
        (lambda m: m.window(SCOPE, 0), ValueError, "`turns` is a whole number of at least 1, not 0"),
        (lambda m: m.window(SCOPE, tokens=0.5), ValueError, "`tokens` is a whole number of at least 1, not 0.5"),
        (lambda m: m.window(SCOPE, 1, count_by=len), TypeError, "counts the `tokens` of a text"),
        (lambda m: m.window(SCOPE, tokens=1, count_by=7), TypeError, "counts the `tokens` of a text, not 7"),
        (lambda m: m.recall(SCOPE, "x", 0), ValueError, "`k` is a whole number from 1 to 16,384, not 0"),
        (lambda m: m.recall(SCOPE, "x", 16_385), ValueError, "`k` is a whole number from 1 to 16,384"),
        (lambda m: m.recall(SCOPE, None), TypeError, "'None' is not an instance of 'str'"),
        (lambda m: m.recall(SCOPE, "\ud800"), UnicodeEncodeError, "surrogates not allowed"),
        (lambda m: m.recall(SCOPE, "x", half_life=0), ValueError, "`half_life` is more than 0 seconds, not 0"),
        (lambda m: m.recall(SCOPE, "x", weights={"words": 1}), TypeError, "'dict' object is not an instance"),
        (lambda m: m.recall(SCOPE, "x", weights=Weights(words=-1)), ValueError, "weights are 0 or more"),
        (lambda m: m.recall(SCOPE, "x", min_score=float("nan")), ValueError, "the lowest score is not a number"),
        (lambda m: m.recall(SCOPE, "x", vector=[1.0]), ValueError, 'vector of "the query" is refused'),
        (lambda m: m.compact(SCOPE, 1, "short"), TypeError, "`summarise` is a function"),
        (lambda m: m.compact(SCOPE, -1, str), ValueError, "`keep` is a whole number of at least 0, not -1"),
        (lambda m: m.keep_latest(SCOPE, True), ValueError, "`keep` is a whole number of at least 0, not True"),
        (lambda m: m.erase(SCOPE, [len]), TypeError, "`answers` are handles of services, or methods of these, not"),
        (lambda _: Scope(""), ValueError, 'the tenant "" is refused: it is empty'),
        (lambda _: Scope("a", user="a\nb"), ValueError, "is refused: it has a control character"),
        (lambda _: Scope("a", agent="x" * 257), ValueError, "is refused: it has 257 bytes; 256 are taken"),
        (lambda _: Scope("a", session="\ud800"), UnicodeEncodeError, "surrogates not allowed"),
        (lambda _: Scope("a", "u1"), TypeError, "takes 1 positional arguments"),
        (lambda _: Scope("a").contains("a"), TypeError, "'str' object is not an instance of 'Scope'"),
        (lambda _: Memory(embedder=7), TypeError, "`embedder` is an object with an `id`, `dimensions`"),
        (lambda _: Memory(embedder=Letters(), vectors_made_by=("a", 1)), TypeError, "give one"),
        (lambda _: Memory(vectors_made_by="letters"), TypeError, "or a tuple of its `id` and `dimensions`, not 'let"),
        (lambda _: Memory(vectors_made_by=("a", 0)), ValueError, "the dimensions of vectors is a whole number from 1"),
        (lambda _: Memory(max_turns=0), ValueError, "`max_turns` is a whole number from 1"),
        (lambda _: Memory(ttl=0), ValueError, "`ttl` is more than 0 seconds, not 0; leave it out for ever"),
        (lambda _: Memory(synced="yes"), TypeError, "`synced` is True or False"),
        (lambda _: Memory(clock=7), TypeError, "`clock` is a function that gives a datetime, not 7"),
        (lambda _: Memory(clock=lambda: 7).open(), TypeError, "`clock()` is a datetime with a time zone"),
        (lambda _: Memory(clock=lambda: ZERO).open(), ValueError, "is a datetime without a time zone"),
        (embeds(dimensions=2), ValueError, 'the vector of "the embedder" is refused'),
        (embeds(embed_passages=lambda self, texts: [[1, 2, 3]]), ValueError, "1 were made of 2 texts"),
        (embeds(embed_passages=lambda self, texts: None), TypeError, "'NoneType' object is not iterable"),
        (embeds(embed_passages=lambda self, texts: ["abc"] * 2), TypeError, "a vector is a Vector, a list"),
        (embeds(embed_passages=lambda self, texts: [[1, 2, 1e300]] * 2), ValueError, "number 2 is not finite"),
    ],
)
def test_bad_input(memory: Memory, call: Callable[[Memory], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)) as refused:
        call(memory)
    assert len(str(refused.value)) < 400
    assert memory.count(Scope("acme")) == 0


class Strange(Exception):
    """What a function of the program raises."""


def test_what_functions_raise_comes_out_as_it_is() -> None:
    strange = Strange("mine")

    def fails(*_: object) -> Any:
        raise strange

    class Fails(Letters):
        fails = False

        def embed_passages(self, texts: list[str]) -> list[list[float]]:
            return fails() if self.fails else super().embed_passages(texts)

    embedder = Fails()
    with Memory(embedder=embedder) as memory:
        [id] = memory.append(SCOPE, [("user", "x")])
        embedder.fails = True
        calls: list[Callable[[], Any]] = [
            lambda: memory.window(SCOPE, tokens=5, count_by=fails),
            lambda: memory.compact(SCOPE, 0, fails),
            lambda: memory.append(SCOPE, [("user", "y")]),
            lambda: memory.update(SCOPE, id, "y"),
            lambda: memory.recall(SCOPE, "y"),
        ]
        for call in calls:
            with pytest.raises(Strange) as raised:
                call()
            assert raised.value is strange
        assert texts(memory.window(SCOPE, 9)) == ["x"] and len(memory.history(SCOPE, id)) == 1
        for ends in (KeyboardInterrupt, SystemExit):
            with pytest.raises(ends):
                memory.compact(SCOPE, 0, lambda _, ends=ends: sys.exit() if ends is SystemExit else _raise(ends()))
    with pytest.raises(Strange):
        Memory(clock=fails).open()


def _raise(error: BaseException) -> Any:
    raise error


def test_a_summary_that_comes_too_late_changes_nothing(memory: Memory) -> None:
    memory.append(SCOPE, [NewTurn("user", name, id=name) for name in "abc"])
    with pytest.raises(TurnsChanged, match="were changed while they were summarised") as changed:
        memory.compact(SCOPE, 1, lambda turns: str(memory.erase_turn(SCOPE, "a").turns))
    assert changed.value.verdict == "passing"
    for gives, error in ((lambda _: " ", ValueError), (lambda _: None, TypeError), (lambda _: "\ud800", ValueError)):
        with pytest.raises(error):
            memory.compact(SCOPE, 1, gives)  # type: ignore[arg-type]
    assert texts(memory.window(SCOPE, 9)) == ["b", "c"]


def test_what_counts_tokens_gives_a_number(memory: Memory) -> None:
    memory.append(SCOPE, [("user", "x"), ("user", "y")])
    for odd in (-1, None, "two", 1.5):
        with pytest.raises(ValueError, match=f"`count_by` gives a number of tokens, not {odd!r}"):
            memory.window(SCOPE, tokens=9, count_by=lambda _, odd=odd: odd)  # type: ignore[misc]


def test_a_full_memory_says_so() -> None:
    with Memory(max_turns=2) as memory:
        memory.append(SCOPE, [("user", "x"), NewTurn("user", "y", id="y")])
        with pytest.raises(MemoryFull, match="the memory is full: it holds its maximum of 2 turns") as full:
            memory.append(SCOPE, [("user", "z")])
        assert full.value.verdict == "bad"
        memory.erase_turn(SCOPE, "y")
        memory.append(SCOPE, [("user", "z")])


def test_a_memory_that_is_not_open_says_so() -> None:
    memory = Memory()
    calls: list[Callable[[], Any]] = [
        lambda: memory.append(SCOPE, [("user", "x")]),
        lambda: memory.update(SCOPE, "a", "x"),
        lambda: memory.get(SCOPE, "a"),
        lambda: memory.window(SCOPE, 1),
        lambda: memory.recall(SCOPE, "x"),
        lambda: memory.erase(SCOPE),
        lambda: memory.moment(),
        lambda: memory.expire(),
        lambda: memory.compact(SCOPE, 0, str),
    ]
    for _ in range(2):
        for call in calls:
            with pytest.raises(MemoryClosed, match="the memory is not open"):
                call()
        memory.open()
        memory.open()
        memory.append(SCOPE, [("user", "x")])
        memory.close()
        memory.close()
