"""A thousand conversations at once, and one memory for all of them.

    sessions ─ turns ─ batch ─ remember ─ count ─ recall ─ forget

Everybody tells where their locker is, among small talk. When all turns are remembered, everybody asks for theirs: each
session recalls its own, and no other. In the end one of them is forgotten, with a receipt.

    python examples/python/memory.py [FILE]

It is kept in memory; with a path, in that file. The same in Rust: ``examples/memory.rs``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sage import LocalEnvironment
from sage.services import Embedder, Memory, NewTurn, Receipt, Scope

SESSIONS = 1_000
#: Turns that are remembered at once.
BATCH = 100


def session(number: int) -> Scope:
    """Each session is of another user."""
    return Scope("club", user=f"member {number}", session="first")


def locker(number: int) -> str:
    return f"My locker has the number {1_000 + number} in hall {number % 7}."


def turns(number: int) -> Iterator[tuple[Scope, NewTurn]]:
    """What is said in a session. The turns have ids, so that a run which is started again remembers nothing twice."""
    said = [
        ("user", "Good morning! The hall is full today."),
        ("assistant", "Good morning. What can I do for you?"),
        ("user", locker(number)),
        ("assistant", "I shall keep that in mind."),
        ("user", "Thanks, and see you on Monday."),
    ]
    for at, (role, text) in enumerate(said):
        yield session(number), NewTurn(role, text, id=str(at))


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else None
    with LocalEnvironment("memory") as env:
        memory = env.service("memory", Memory, [path], {"embedder": Embedder()})

        def recall(turns: int) -> tuple[int, int]:
            """Gives how many turns there are, and how many sessions recall their own locker."""
            asked = "In which hall is my locker, and what number does it have?"
            found = [(number, memory.recall(session(number), asked, k=1)) for number in range(SESSIONS)]
            return turns, sum(bool(best) and best[0].turn.text == locker(number) for number, best in found)

        def forget(told: tuple[int, int]) -> tuple[int, int, Receipt]:
            return *told, memory.erase(session(7))

        said = env.from_batch(range(SESSIONS)).flatmap(turns)
        remembered = said.batch(BATCH).flatmap(memory.append_all).count()
        told = remembered.map(recall).map(forget).collect()
        env.submit(autostop=True)
    for number, right, receipt in told:
        print(f"sessions: {SESSIONS}")
        print(f"turns: {number}")
        print(f"recalled right: {right} of {SESSIONS}")
        print(f"erased: {receipt.turns} turns")


if __name__ == "__main__":
    main()
