"""``Memory`` as a service: of jobs on threads and in worker processes, isolated, with answers of other services."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from sage import JobFailed, Journal, Keep, LocalEnvironment, MapFunction, Service, ServiceError
from sage.services import Embedder, Memory, MemoryClosed, NewTurn, Recalled, Receipt, Scope, Turn, UnknownTurn

TENANT = Scope("acme")


def session(number: int) -> Scope:
    return Scope("acme", user=f"u{number % 10}", session=f"s{number}")


def threads() -> set[str]:
    """The names of this process's threads, but for one that it has from its first job on."""
    tasks = Path("/proc/self/task")
    return {(tasks / task / "comm").read_text().strip() for task in os.listdir(tasks)} - {"sage-signals"}


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("workers", [None, "processes"])
def test_fifty_sessions_of_a_job(isolated: bool, workers: str | None, tmp_path: Path) -> None:
    path = tmp_path / "memory.sage"
    before = threads()
    env = LocalEnvironment("sessions", workers=workers)
    kwargs = {"path": path, "embedder": Embedder(64)} if not isolated else {"path": path}
    memory = env.service("memory", Memory, kwargs=kwargs, isolated=isolated)

    def talk(number: int) -> int:
        memory.append(session(number % 50), [("user", f"I am number {number}."), {"role": "bot", "content": "Hello!"}])
        return number % 50

    def remembers(number: int) -> tuple[int, int, str]:
        recalled = memory.recall(session(number), f"number {number}", k=1)
        return number, len(memory.window(session(number), tokens=100)), recalled[0].turn.text

    asked = env.from_batch(range(150)).map(talk, parallelism=2).collect()
    # All have talked before the first is asked.
    report = env.submit(autostop=True).report
    assert sorted(asked) == sorted(list(range(50)) * 3)
    assert report.services["memory"]["state"] == "cleaned" and report.services["memory"]["calls"] == 150
    # Nothing of it is left in this process, and its file is free for the next job.
    assert threads() == before
    env = LocalEnvironment("again", workers=workers)
    memory = env.service("memory", Memory, kwargs=kwargs, isolated=isolated)
    found = env.from_batch(range(50)).map(remembers).collect()
    env.submit(autostop=True)
    assert sorted(found) == [(number, 6, f"I am number {number}.") for number in range(50)]
    with Memory(**kwargs) as again:  # type: ignore[arg-type]
        assert again.count(TENANT) == 300 and len(again.scopes(TENANT)) == 50


def test_errors_and_values_come_from_another_process(tmp_path: Path) -> None:
    env = LocalEnvironment("far")
    memory = env.service("memory", Memory, [tmp_path / "memory.sage"], isolated=True)

    def ask(_: int) -> list[Any]:
        [id] = memory.append(TENANT, [NewTurn("user", "tea", metadata={"n": 1})])
        told: list[Any] = [memory.get(TENANT, id), memory.recall(TENANT, "tea")[0]]
        with pytest.raises(UnknownTurn, match='there is no turn "nobody"') as unknown:
            memory.delete(TENANT, "nobody")
        with pytest.raises(ValueError, match="it says nothing"):
            memory.append(TENANT, [("user", "")])
        return [*told, unknown.value.verdict, memory.erase(TENANT)]

    told = env.from_batch([1]).map(ask).collect()
    env.submit(autostop=True)
    turn, recalled, verdict, receipt = told[0]
    assert isinstance(turn, Turn) and (turn.text, turn.metadata) == ("tea", {"n": 1})
    assert isinstance(recalled, Recalled) and recalled.turn == turn and verdict == "bad"
    assert isinstance(receipt, Receipt) and receipt.turns == 1


def test_functions_and_services_find_it_by_name() -> None:
    class Remember(MapFunction):
        def execute(self, text: str) -> int:
            self.call_service("memory", TENANT, [("user", text)], method="append")
            return int(self.call_service_async("memory", TENANT, method="count").result(10))

    class Counts(Service):
        def all(self) -> int:
            return int(self.call_service("memory", TENANT, method="count"))

    env = LocalEnvironment("named")
    env.register_service("memory", Memory)
    counts = env.service("counts", Counts)
    seen = env.from_batch(["one", "two"]).map(Remember).map(lambda count: (count, counts.all())).collect()
    env.submit(autostop=True)
    assert seen[-1] == (2, 2)


def test_async_functions_use_it() -> None:
    env = LocalEnvironment("async")
    memory = env.service("memory", Memory, kwargs={"embedder": Embedder(32)})

    async def talk(number: int) -> int:
        # By itself, or beside the loop.
        await asyncio.to_thread(memory.append, session(number), [("user", f"number {number}")])
        return len(memory.recall(session(number), f"{number}"))

    found = env.from_batch(range(40)).map(talk, in_flight=8).collect()
    env.submit(autostop=True)
    assert found == [1] * 40


def test_a_user_class_may_extend_it() -> None:
    hooks: list[str] = []

    class Chats(Memory):
        def __init__(self, tenant: str) -> None:
            super().__init__(ttl=3600)
            self.tenant = tenant

        def setup(self) -> None:
            super().setup()
            hooks.append("setup")

        def say(self, name: str, text: str) -> int:
            scope = Scope(self.tenant, session=name)
            self.append(scope, [("user", text)])
            return len(self.window(scope, 10))

        def cleanup(self) -> None:
            hooks.append(f"cleaned with {self.count(Scope(self.tenant))}")
            super().cleanup()

    env = LocalEnvironment("extended")
    chats = env.service("chats", Chats, ["acme"])
    said = env.from_batch(["a", "b", "a"]).map(lambda name: chats.say(name, "hello")).collect()
    env.submit(autostop=True)
    assert sorted(said) == [1, 1, 2] and hooks == ["setup", "cleaned with 3"]


def test_a_memory_that_is_there_already_may_be_a_service() -> None:
    made = Memory()
    env = LocalEnvironment("made")
    env.register_service_factory("memory", lambda: made)
    env.from_batch(["x"]).map(lambda text: made.append(TENANT, [("user", text)])).collect()
    env.submit(autostop=True)
    with pytest.raises(MemoryClosed):
        made.count(TENANT)


def test_a_file_that_another_has_open_fails_the_job(tmp_path: Path) -> None:
    path = tmp_path / "memory.sage"
    with Memory(path):
        env = LocalEnvironment("locked")
        env.service("memory", Memory, [path])
        env.from_batch([1]).collect()
        with pytest.raises(JobFailed, match="another process has `.*memory.sage` open"):
            env.submit(autostop=True)


class Model(Service):
    """Stands for a language model."""

    def ask(self, tag: str, question: str) -> str:
        return f"about {question}"


def test_answers_of_services_go_with_the_scope_they_are_about(tmp_path: Path) -> None:
    env = LocalEnvironment("answers")
    memory = env.service("memory", Memory, [tmp_path / "memory.sage"])
    keep = {"ask": Keep(cache=100, journal=True, tag=lambda tag, question: tag)}
    model = env.service("model", Model, version="1", journal=Journal(tmp_path / "journal"), keep=keep)
    journal = lambda: b"".join(file.read_bytes() for file in (tmp_path / "journal").iterdir())  # noqa: E731

    def talk(number: int) -> int:
        question = f"secret {number}"
        memory.append(session(number), [("user", question), ("bot", model.ask(session(number).tag(), question))])
        return number

    def forget(_: int) -> list[Receipt]:
        assert b"about secret 0" in journal()
        one = memory.erase(session(0), answers=[model])
        assert b"secret 0" not in journal() and b"about secret 10" in journal()
        user = memory.erase(Scope("acme", user="u0"), answers=[model.ask])
        return [one, user, memory.erase(TENANT, answers=iter([model, model.ask]))]

    receipts = env.from_batch([0, 1, 10, 20]).map(talk).count().flatmap(forget).collect()
    env.submit(autostop=True)
    one, user, rest = receipts
    assert [(each.turns, each.answers) for each in receipts] == [(2, 1), (4, 2), (2, 1)]
    assert one.tags == (session(0).tag(),)
    assert set(user.tags) == {Scope("acme", user="u0").tag(), session(10).tag(), session(20).tag()}
    assert set(rest.tags) == {TENANT.tag(), session(1).tag()}
    assert not any(b"secret" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_if_answers_are_left_nothing_is_erased() -> None:
    env = LocalEnvironment("later")
    keep = {"ask": Keep(cache=100, tag=lambda tag, question: tag)}
    model = env.service("model", Model, version="1", keep=keep)
    with Memory() as memory:
        memory.append(TENANT, [("user", "x")])
        with pytest.raises(ServiceError, match="answers of service `model` are erased while a job runs"):
            memory.erase(TENANT, answers=[model])
        assert memory.count(TENANT) == 1


def test_a_summary_is_made_by_a_service() -> None:
    class Sums(Service):
        def shout(self, turns: list[Turn]) -> str:
            return " ".join(turn.text.upper() for turn in turns)

    env = LocalEnvironment("sums")
    memory, sums = env.service("memory", Memory), env.service("sums", Sums)

    def compact(_: int) -> tuple[str, str]:
        memory.append(TENANT, [("user", "a"), ("user", "b"), ("user", "c")])
        first = memory.compact(TENANT, 1, sums.shout)
        return first.text if first else "", memory.window(TENANT, 9)[0].role

    made = env.from_batch([1]).map(compact).collect()
    env.submit(autostop=True)
    assert made == [("A B", "summary")]
