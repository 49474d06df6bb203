"""``Memory``: what it remembers and recalls. What it refuses, its file, and jobs have tests of their own."""

from __future__ import annotations

import pickle
import random
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from sage.services import (
    Embedder,
    Imported,
    Memory,
    NewTurn,
    OtherText,
    Parts,
    Recalled,
    Receipt,
    Scope,
    Turn,
    Vector,
    Version,
    Weights,
)

SCOPE = Scope("acme", user="u1", session="s1")
USER = Scope("acme", user="u1")
NOON = datetime(2026, 11, 28, 12, 0, 0, 250, tzinfo=timezone.utc)


class Clock:
    """Tells the time that a test says."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Letters:
    """An embedder of somebody else: it counts three letters."""

    id, dimensions = "letters", 3

    def embed_passages(self, texts: list[str]) -> list[list[float]]:
        return [[float(text.lower().count(letter)) for letter in "xyz"] for text in texts]

    def embed_queries(self, texts: list[str]) -> list[list[float]]:
        return self.embed_passages(texts)


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory() as memory:
        yield memory


def texts(turns: list[Turn]) -> list[str]:
    return [turn.text for turn in turns]


def test_turns_are_appended_in_each_of_their_forms(memory: Memory) -> None:
    turn = NewTurn("user", "one", id="1", said=NOON, importance=0.8, metadata={"n": 1, "at": NOON})
    message = {"role": "tool", "content": "three", "id": "3", "importance": 1, "metadata": {"tags": ["a", "b"]}}
    plain = {"role": "user", "content": "four"}
    ids = memory.append(SCOPE, [turn, ("assistant", "two"), message, plain])
    assert (len(ids), ids[0], ids[2]) == (4, "1", "3") and len(set(ids)) == 4
    window = memory.window(SCOPE, 9)
    assert [(turn.id, turn.role, turn.text) for turn in window] == list(
        zip(ids, ["user", "assistant", "tool", "user"], ["one", "two", "three", "four"])
    )
    first, _, third, _ = window
    assert (first.scope, first.said, first.importance, first.expires) == (SCOPE, NOON, 0.8, None)
    assert first.metadata == {"n": 1, "at": NOON} and third.metadata == {"tags": ["a", "b"]}
    assert first.said.tzinfo is timezone.utc and third.importance == 1.0
    # Any iterable is a list.
    assert memory.append(SCOPE, (("user", text) for text in [])) == []
    assert memory.append_all([(USER, turn), (SCOPE, turn)]) == ["1", "1"]
    assert (memory.count(USER), memory.count(SCOPE), memory.count(Scope("acme", agent="a"))) == (5, 4, 0)


def test_a_turn_that_is_appended_again_is_remembered_once(memory: Memory) -> None:
    turns = [NewTurn("user", "Tea is hot.", id="1"), NewTurn("user", "Ice is cold.", id="2")]
    memory.append(SCOPE, turns)
    memory.update(SCOPE, "1", "Tea is lukewarm.")
    memory.delete(SCOPE, "2")
    assert memory.append(SCOPE, turns) == ["1", "2"]
    assert texts(memory.window(SCOPE, 9)) == ["Tea is lukewarm."]
    for other in (NewTurn("user", "Tea is cold.", id="1"), NewTurn("assistant", "Tea is hot.", id="1")):
        with pytest.raises(OtherText, match='turn "1" of tenant acme, user u1, session s1 is there already'):
            memory.append(SCOPE, [("user", "new"), other])
    assert memory.count(SCOPE) == 1


def test_a_window_is_so_many_turns_or_tokens(memory: Memory) -> None:
    memory.append(SCOPE, [("user", f"text {number}") for number in range(10)])
    window = lambda *args, **kwargs: [turn.text[-1] for turn in memory.window(SCOPE, *args, **kwargs)]  # noqa: E731
    assert window(3) == ["7", "8", "9"] and window(turns=1) == ["9"] and len(window(100)) == 10
    # A text has two tokens, and six letters.
    assert window(tokens=5) == ["8", "9"] and window(tokens=1) == [] and window(2, tokens=100) == ["8", "9"]
    assert window(tokens=18, count_by=len) == ["7", "8", "9"] and window(tokens=17, count_by=len) == ["8", "9"]
    assert window(tokens=3, count_by=lambda text: True) == ["7", "8", "9"]
    # What counts may ask the memory itself.
    assert len(window(tokens=4, count_by=lambda text: memory.count(SCOPE) // 10)) == 4


def test_a_recall_tells_what_its_scores_are_made_of(memory: Memory) -> None:
    said = [NOON - timedelta(days=days) for days in (60, 30, 0)]
    words = ["I moved to Basel in May.", "Tea is hot.", "Basel has a river."]
    turns = [NewTurn("user", text, said=at, importance=at == NOON) for text, at in zip(words, said)]
    clock = Clock()
    with Memory(embedder=Embedder(), clock=clock) as memory:
        memory.append(SCOPE, turns)
        weights = Weights(context=0)
        found = memory.recall(USER, "When did I move to Basel?", weights=weights)
        assert [recalled.turn.text for recalled in found] == [words[0], words[2]]
        for recalled, recency, importance in zip(found, (0.25, 1.0), (0, 1)):
            parts = recalled.parts
            assert (round(parts.recency, 5), parts.importance) == (recency, importance)
            assert 0 < parts.words < 1 and 0 < parts.similarity < 1
            names = ("similarity", "words", "recency", "importance")
            total = sum(getattr(parts, name) * getattr(weights, name) for name in names)
            assert recalled.score == pytest.approx(total, abs=1e-5)
        assert memory.recall(USER, "When did I move to Basel?", weights=weights) == found
        lived = memory.recall(USER, "Basel", half_life=timedelta(days=60), weights=Weights(context=0))
        assert [round(each.parts.recency, 5) for each in lived] == [1.0, 0.5]
        assert memory.recall(USER, "Basel", half_life=60 * 86_400.0)[0].parts.recency == 1.0
        assert memory.recall(USER, "Basel", k=1)[0].turn.text == words[2]
        between = sum(each.score for each in found) / 2
        assert len(memory.recall(USER, "When did I move to Basel?", weights=weights, min_score=between)) == 1
        assert memory.recall(USER, "") == memory.recall(USER, "zebra") == memory.recall(Scope("b"), "Basel") == []
        # The turn beside one that fits.
        assert [(each.turn.text, each.parts.context > 0) for each in memory.recall(USER, "moved", 2)] == [
            (words[0], False),
            (words[1], True),
        ]


def test_vectors_come_from_an_embedder_or_with_the_turns() -> None:
    with Memory(embedder=Letters()) as memory:
        memory.append(SCOPE, [("a", "xxx"), ("b", "yyy")])
        assert memory.recall(SCOPE, "x", 1)[0].parts.similarity == 1.0
        memory.update(SCOPE, memory.window(SCOPE, 1)[0].id, "xx")
        assert [each.turn.text for each in memory.recall(SCOPE, "x")] == ["xx", "xxx"]
    for made_by in (Letters(), ("letters", 3)):
        with Memory(vectors_made_by=made_by) as memory:
            memory.append(SCOPE, [NewTurn("a", "east", vector=[1, 0, 0]), NewTurn("b", "up", vector=Vector([0, 0, 1]))])
            memory.append(SCOPE, [{"role": "c", "content": "both", "vector": array("f", [1, 0, 1])}, ("d", "none")])
            alone = Weights(context=0)
            found = memory.recall(SCOPE, "?", vector=(0.0, 0.0, 2.0), weights=alone)
            assert [(each.turn.text, round(each.parts.similarity, 3)) for each in found] == [("up", 1), ("both", 0.707)]
            memory.update(SCOPE, found[0].turn.id, vector=[0.0, 1.0, 0.0])
            assert [each.turn.text for each in memory.recall(SCOPE, "?", vector=[0, 1, 0], weights=alone)] == ["up"]


def test_nothing_of_a_scope_is_found_in_another(memory: Memory) -> None:
    choose = random.Random(18)
    scopes = [
        Scope(tenant, user=user, agent=agent, session=session)
        for tenant in "ab"
        for user in (None, "u", "v")
        for agent in (None, "g")
        for session in (None, "s")
    ]
    turns = [(choose.choice(scopes), NewTurn("user", f"tea {number}", id=str(number))) for number in range(300)]
    memory.append_all(turns)
    for scope in scopes:
        own = {turn.id for whose, turn in turns if scope.contains(whose)}
        assert {turn.id for turn in memory.window(scope, 1000)} == own
        assert {each.turn.id for each in memory.recall(scope, "tea", 1000)} == own
        assert memory.count(scope) == len(own)
        within = memory.scopes(scope)
        assert set(within) == {whose for whose, _ in turns if scope.contains(whose)} and len(set(within)) == len(within)


def test_every_version_stays_readable_at_its_moment() -> None:
    clock = Clock()
    with Memory(clock=clock) as memory:
        moments = [memory.moment()]
        changes: list[Callable[[], Any]] = [
            lambda: memory.append(SCOPE, [NewTurn("user", "Basel", id="a", metadata={"n": 1})]),
            lambda: memory.update(SCOPE, "a", "Bern", importance=0.5),
            lambda: memory.update(SCOPE, "a", metadata={}),
            lambda: memory.delete(SCOPE, "a"),
        ]
        for change in changes:
            change()
            moments.append(memory.moment())
        assert moments == sorted(set(moments)) and all(moment.tzinfo is timezone.utc for moment in moments)
        told = [None, ("Basel", 0.0, {"n": 1}), ("Bern", 0.5, {"n": 1}), ("Bern", 0.5, {}), None]
        for moment, expected in zip(moments, told):
            # The same moment elsewhere.
            moment = moment.astimezone(timezone(timedelta(hours=9)))
            turn = memory.get(SCOPE, "a", at=moment)
            assert (turn and (turn.text, turn.importance, turn.metadata)) == expected
            assert memory.window(SCOPE, 9, at=moment) == ([turn] if turn else [])
            assert [each.turn for each in memory.recall(SCOPE, "Basel Bern", at=moment)] == ([turn] if turn else [])
        versions = memory.history(SCOPE, "a")
        assert [version.text for version in versions] == ["Basel", "Bern", "Bern", None]
        assert versions[0] == Version(versions[0].recorded, "Basel", metadata={"n": 1})
        assert memory.get(SCOPE, "a") is None and memory.history(SCOPE, "b") == []


def test_turns_expire_at_their_moment() -> None:
    clock = Clock()
    with Memory(ttl=timedelta(seconds=100), clock=clock) as memory:
        short, shorter = NewTurn("user", "short", ttl=10), NewTurn("user", "shorter", ttl=timedelta(seconds=9.5))
        memory.append(SCOPE, [short, shorter, {"role": "user", "content": "brief", "ttl": 20}, ("user", "long")])
        expires = [turn.expires and turn.expires - NOON for turn in memory.window(SCOPE, 9)]
        assert expires == [timedelta(seconds=seconds) for seconds in (10, 9.5, 20, 100)]
        seen = []
        for seconds in (9.499999, 0.000001, 0.499999, 0.000001, 10, 79.999999, 0.000001):
            clock.forward(seconds)
            seen.append(memory.count(SCOPE))
        assert seen == [4, 3, 3, 2, 1, 1, 0]


def test_a_clock_that_goes_back_changes_no_order(memory: Memory) -> None:
    clock = Clock()
    with Memory(clock=clock) as memory:
        memory.append(SCOPE, [("user", "first")])
        between = memory.moment()
        clock.forward(-3600)
        memory.append(SCOPE, [("user", "second")])
        first, second = memory.window(SCOPE, 9)
        assert first.recorded < between < second.recorded
        assert memory.window(SCOPE, 9, at=between) == [first]


def test_a_clock_that_fails_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, raised = Clock(), []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: raised.append(told.exc_value))
    with Memory(clock=lambda: clock()) as memory:
        memory.append(SCOPE, [("user", "first")])
        clock.now = "noon"  # type: ignore[assignment]
        memory.append(SCOPE, [("user", "second")])
        assert [turn.said for turn in memory.window(SCOPE, 9)] == [NOON, pytest.approx(NOON, abs=timedelta(seconds=1))]
    assert raised and all("`clock()` is a datetime" in str(error) for error in raised)


def test_a_summary_stands_in_the_place_of_what_it_sums_up(memory: Memory) -> None:
    turns = [NewTurn("user", f"detail {n}", said=NOON + timedelta(minutes=n), importance=n / 10) for n in range(6)]
    memory.append(SCOPE, turns)

    def summarise(old: list[Turn]) -> str:
        # Nothing is locked meanwhile.
        memory.append(SCOPE, [("user", "meanwhile")])
        return " and ".join(turn.text[-1] for turn in old)

    summary = memory.compact(SCOPE, 2, summarise)
    assert summary is not None and (summary.role, summary.importance) == ("summary", 0.3)
    assert summary.message() == {"role": "system", "content": "0 and 1 and 2 and 3"}
    assert summary.said == NOON + timedelta(minutes=3)
    assert texts(memory.window(SCOPE, 9)) == [summary.text, "detail 4", "detail 5", "meanwhile"]
    assert memory.compact(SCOPE, 4, summarise) is None
    assert memory.keep_latest(SCOPE, 1) == 3 and memory.keep_latest(SCOPE, 0) == 1 and memory.count(SCOPE) == 0


def test_the_longest_turn_is_remembered(memory: Memory) -> None:
    [id] = memory.append(SCOPE, [("user", "x" * 2**20)])
    turn = memory.get(SCOPE, id)
    assert turn is not None and len(turn.text) == 2**20 and len(repr(turn)) < 200


def test_scopes_and_turns_are_values(memory: Memory) -> None:
    [id] = memory.append(SCOPE, [NewTurn("user", "text " * 20, importance=0.1, ttl=60, metadata={"at": NOON})])
    turn, [recalled] = memory.window(SCOPE, 1)[0], memory.recall(SCOPE, "text")
    new = NewTurn("user", "x", id="i", said=NOON, ttl=0.25, importance=0.3, metadata={"n": [1]}, vector=[1.0, 0.5])
    values = [
        *(Scope("a"), SCOPE, new, NewTurn("user", "x"), turn, *memory.history(SCOPE, id), Version(NOON, None)),
        *(recalled, recalled.parts, Parts(), Weights(), Weights(context=0.25), Imported(1, 2, 3)),
        *(memory.erase_turn(SCOPE, id), memory.erase(SCOPE), Receipt(SCOPE, tags=["a"])),
    ]
    for value in values:
        assert pickle.loads(pickle.dumps(value)) == value
        assert [value == other for other in values].count(True) == 1 and value != 7
    assert {SCOPE: 1}[Scope("acme", user="u1", session="s1")] == 1 and len({hash(Scope(str(n))) for n in range(9)}) > 1
    assert (SCOPE.tenant, SCOPE.user, SCOPE.agent, SCOPE.session) == ("acme", "u1", None, "s1")
    assert eval(repr(SCOPE)) == SCOPE and str(SCOPE) == "tenant acme, user u1, session s1"
    assert SCOPE.tag() == 'memory ["acme","u1",null,"s1"]' != USER.tag()
    assert (new.ttl, new.importance, new.vector) == (0.25, 0.3, Vector([1.0, 0.5]))
    assert repr(turn) == f"<Turn of tenant acme, user u1, session s1: 'user', '{('text ' * 20)[:40]}…'>"
    assert turn == Turn(
        *(SCOPE, id, "user", "text " * 20, turn.said),
        **{"recorded": turn.recorded, "expires": turn.expires, "importance": 0.1, "metadata": {"at": NOON}},
    )
    assert recalled == Recalled(turn, recalled.score, recalled.parts)
    # They cannot be changed.
    with pytest.raises(AttributeError):
        turn.text = "y"  # type: ignore[misc]


def test_a_receipt_says_what_is_gone_and_what_is_out_of_reach(memory: Memory) -> None:
    memory.append(SCOPE, [NewTurn("user", "x", id="a"), ("user", "y")])
    memory.update(SCOPE, "a", "z")
    receipt = memory.erase(USER)
    assert (receipt.scope, receipt.id, receipt.turns, receipt.versions, receipt.answers) == (USER, None, 2, 3, 0)
    assert set(receipt.tags) == {USER.tag(), SCOPE.tag()}
    told = str(receipt).splitlines()
    assert told[0] == (
        "erased of tenant acme, user u1: 2 turns in 3 versions, 0 bytes of the file, 0 answers of services"
    )
    assert told[1:] == ["out of reach:", *(f"- {what}" for what in Receipt.OUT_OF_REACH)]
    assert memory.erase(USER).turns == 0


def test_threads_share_a_memory(memory: Memory) -> None:
    failures: list[BaseException] = []

    def talk(number: int) -> None:
        try:
            scope = Scope("acme", session=str(number))
            for turn in range(100):
                memory.append(scope, [("user", f"tea {number} {turn}")])
                assert memory.count(scope) == turn + 1
                assert texts(memory.window(scope, 1)) == [f"tea {number} {turn}"]
                assert memory.recall(scope, f"{turn}", 1)[0].turn.scope == scope
            if number % 2:
                assert memory.erase(scope).turns == 100
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert failures == [] and memory.count(Scope("acme")) == 200


def test_a_thread_that_asks_lets_others_run() -> None:
    """What counts in one thread waits for another, which asks the same memory."""
    with Memory() as memory:
        memory.append(SCOPE, [("user", "x")])
        meet = threading.Barrier(2, timeout=30)

        def count(_text: str) -> int:
            meet.wait()
            meet.wait()
            return 1

        counts: list[int] = []
        thread = threading.Thread(target=lambda: counts.append(len(memory.window(SCOPE, tokens=1, count_by=count))))
        thread.start()
        meet.wait()
        memory.append(SCOPE, [("user", "y")])
        meet.wait()
        thread.join()
        assert counts == [1] and memory.count(SCOPE) == 2
