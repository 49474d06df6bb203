"""Answers of services that are kept: caches, journals, and what their calls are known by."""

from __future__ import annotations

import math
import os
import resource
import threading
from pathlib import Path
from typing import Any

import pytest

from sage import Cache, JobFailed, Journal, Keep, LocalEnvironment, Service, batched, erase_answers


class Llm(Service):
    def __init__(self, asked: list[Any], answer: Any = None) -> None:
        self.asked, self.answer = asked, answer

    def chat(self, *args: Any, **kwargs: Any) -> Any:
        self.asked.append((args, kwargs))
        return [*args] if self.answer is None else self.answer

    async def achat(self, question: str) -> Any:
        self.asked.append(question)
        return [question]

    @batched(8, within=0)
    def embed(self, texts: list[str]) -> list[Any]:
        self.asked.extend(texts)
        return [[text] for text in texts]

    @batched(8, within=0)
    async def aembed(self, texts: list[str]) -> list[Any]:
        self.asked.extend(texts)
        return [[text] for text in texts]


class Keyed(Service):
    def __init__(self, log: Path) -> None:
        self.log = log

    def chat(self, question: str, *, idempotency_key: str | None = None) -> str:
        with self.log.open("a") as log:
            log.write(f"{question} {idempotency_key}\n")
        return question.upper()


def asks(records: list[Any], how: Any, *, ask: Any = None, name: str = "chat", service: Any = None, **more: Any) -> Any:
    """Runs a job that asks for each record. Returns the answers, what reached the service, and its figures."""
    env, asked = LocalEnvironment("kept"), []
    llm: Any = env.service("llm", *(service or (Llm, [asked])), **{"version": "1", "keep": {name: how}} | more)
    method = getattr(llm, name)
    answers = env.from_batch(records).map((lambda q: ask(llm, q)) if ask else method).collect()
    policy = env.submit(autostop=True).metrics().services["llm"].policy
    assert policy is not None
    return answers, asked, policy


@pytest.mark.parametrize("name", ["chat", "achat", "embed", "aembed"])
def test_an_equal_call_is_answered_from_memory(name: str) -> None:
    async def awaits(llm: Any, question: str) -> Any:
        return await getattr(llm, name)(question)

    env, asked = LocalEnvironment("kept"), list[Any]()
    llm = env.service("llm", Llm, [asked], version="1", keep={name: Keep(cache=10)})

    async def ask(question: str) -> Any:
        return await getattr(llm, name)(question)

    method = ask if name.startswith("a") else getattr(llm, name)
    answers = env.from_batch(["a", "b", "a"]).map(method, in_flight=1).collect()
    policy = env.submit(autostop=True).metrics().services["llm"].policy
    assert answers == [["a"], ["b"], ["a"]] and len(asked) == 2
    assert policy is not None and (policy.attempts, policy.kept[0]["cache"]["memory_hits"]) == (2, 1)


def test_a_caller_that_changes_its_answer_changes_nobody_elses() -> None:
    def ask(llm: Any, question: str) -> Any:
        answer = llm.chat(question)
        seen = list(answer)
        answer.append("changed")
        return seen

    answers, asked, _ = asks(["a", "a", "a"], Keep(cache=10), ask=ask)
    assert answers == [["a"]] * 3 and len(asked) == 1


@pytest.mark.parametrize("answer", [(1, 2), {1: 2}, {1, 2}, math.inf, [["deep", (1,)]]])
def test_with_pickle_an_answer_of_any_type_is_kept(answer: Any, tmp_path: Path) -> None:
    for calls in (1, 0):
        asked: list[Any] = []
        keep = Keep(codec="pickle", journal=True)
        answers, _, _ = asks([1], keep, service=(Llm, [asked, answer]), journal=tmp_path)
        assert answers == [answer] and type(answers[0]) is type(answer) and len(asked) == calls


@pytest.mark.parametrize("answer", [(1, 2), {1: 2}, {1, 2}, [["deep", (1,)]]])
def test_an_answer_without_json_is_handed_on_and_counted_where_no_journal_is(answer: Any) -> None:
    asked: list[Any] = []
    answers, _, policy = asks([1, 1], Keep(cache=10), service=(Llm, [asked, answer]))
    assert answers == [answer] * 2 and len(asked) == 2 and policy.kept[0]["cache"]["uncached"] == 2


def test_an_answer_without_json_fails_its_call_where_a_journal_is(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match='tuple is not of JSON') as failed:
        asks([1], Keep(journal=True), service=(Llm, [[], (1,)]), journal=tmp_path)
    assert 'codec="pickle"' in str(failed.value.__cause__)


@pytest.mark.parametrize("argument", [(1,), {1: 2}, {1}, b"a", object(), [[(1,)]]])
def test_an_argument_without_json_is_asked_each_time_and_counted(argument: Any) -> None:
    answers, asked, policy = asks([0, 0], Keep(cache=10), ask=lambda llm, _: len(llm.chat(argument)))
    assert answers == [1, 1] and len(asked) == 2 and policy.kept[0]["cache"]["uncached"] == 2


def test_arguments_that_differ_only_in_the_order_of_keys_are_the_same_and_others_are_not() -> None:
    calls: list[Any] = [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1.0, "b": 2}, {"a": True, "b": 2}, ["a"], "a", None]
    _, asked, _ = asks(calls, Keep(cache=100))
    assert len(asked) == len(calls) - 1
    _, asked, _ = asks([1, 2], Keep(cache=9), ask=lambda llm, n: llm.chat(q=1, k=2) if n == 1 else llm.chat(k=2, q=1))
    assert len(asked) == 1


def test_a_function_says_what_a_call_is_known_by() -> None:
    keep = Keep(cache=10, arguments=lambda question: question.lower() if question != "now" else None)
    _, asked, policy = asks(["A", "a", "now", "now"], keep)
    assert [args[0] for args, _ in asked] == ["A", "now", "now"] and policy.kept[0]["cache"]["uncached"] == 2


def test_each_sample_has_an_answer_of_its_own() -> None:
    _, asked, _ = asks([0, 1, 1, 2, 0], Keep(cache=10), ask=lambda llm, n: llm.with_policy(sample=n).chat("a"))
    assert len(asked) == 3


def test_another_version_has_other_answers(tmp_path: Path) -> None:
    keep = Keep(cache=Cache(disk=tmp_path / "cache"))
    calls = [len(asks(["a"], keep, version=version)[1]) for version in ("1", "1", "2", "1")]
    assert calls == [1, 0, 1, 0]


def test_answers_live_as_long_as_is_said(tmp_path: Path) -> None:
    keep = Keep(cache=Cache(disk=tmp_path, time_to_live=1e-3))
    assert [len(asks(["a"], keep)[1]) for _ in range(2)] == [1, 1]


def test_exceptions_are_not_kept(tmp_path: Path) -> None:
    asked: list[Any] = []

    class Fails(Service):
        def chat(self, question: str) -> str:
            asked.append(question)
            raise ValueError(question)

    env = LocalEnvironment("fails")
    fails = env.service("llm", Fails, version="1", journal=tmp_path, keep={"chat": Keep(cache=9, journal=True)})
    env.from_batch(["a", "a"]).map(fails.chat, on_error="skip").collect()
    env.submit(autostop=True)
    assert asked == ["a", "a"]


def test_equal_calls_at_the_same_time_share_one() -> None:
    both, goes_on = threading.Semaphore(0), threading.Event()

    class Slow(Service):
        def chat(self, question: str) -> list[str]:
            both.release()
            assert goes_on.wait(60)
            return [question]

    env = LocalEnvironment("shared")
    slow = env.service("llm", Slow, version="1", keep={"chat": Keep()})
    answers = env.from_batch(["a"] * 4).map(slow.chat, in_flight=4).collect()
    job = env.submit()
    assert both.acquire(timeout=60)
    while job.metrics().services["llm"].policy.calls < 4:  # type: ignore[union-attr]
        threading.Event().wait(0.001)
    goes_on.set()
    job.wait(60)
    policy = job.metrics().services["llm"].policy
    assert answers == [["a"]] * 4 and policy is not None and policy.attempts == 1
    assert len({id(answer) for answer in answers}) == 4


def test_a_tag_erases_answers_everywhere(tmp_path: Path) -> None:
    keep = Keep(cache=Cache(memory=9, disk=tmp_path / "cache"), journal=True, tag=lambda q: q[0])
    erased: list[int] = []

    def ask(llm: Any, question: str) -> Any:
        if question.startswith("erase"):
            erased.append(erase_answers(llm, question[-1]))
            return None
        return llm.chat(question)

    secret = "b-secret"
    records = ["a1", secret, "a2", "erase a", "a1", "erase z"]
    _, asked, policy = asks(records, keep, ask=ask, journal=tmp_path / "run")
    assert erased == [2, 0] and len(asked) == 4 and policy.journal["erased"] == 2
    asks([secret, "erase b"], keep, ask=ask, journal=tmp_path / "run")
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(secret.encode() in bytes for bytes in kept)


def test_a_method_gets_the_same_idempotency_key_in_a_run_that_asks_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        service = (Keyed, [log])
        answers, _, policy = asks(["a", "b"], Keep(journal=True), service=service, journal=Journal(tmp_path / "run"))
        assert answers == ["A", "B"]
    asks(["a"], Keep(cache=9), service=(Keyed, [log]))
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == ["a", "b", "a"] and lines[2][1] == "None"
    assert len({line[1] for line in lines[:2]}) == 2 and all(len(line[1]) == 32 for line in lines[:2])
    assert policy.journal["hits"] == 2


@pytest.mark.parametrize("how", [{"workers": "processes"}, {}])
def test_answers_are_kept_for_worker_processes_and_of_services_in_their_own(how: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        env = LocalEnvironment("elsewhere", **how)
        settings: Any = {} if how else {"isolated": True}
        keep = {"chat": Keep(cache=9, journal=True)}
        keyed = env.service("llm", Keyed, [log], version="1", journal=tmp_path / "run", keep=keep, **settings)
        answers = env.from_batch(["a", "b", "a"]).map(keyed.chat).collect()
        env.submit(autostop=True)
        assert answers == ["A", "B", "A"]
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == ["a", "b"] and all(len(line[1]) == 32 for line in lines)


def test_two_processes_do_not_use_one_folder(tmp_path: Path) -> None:
    keep = {"chat": Keep(cache=Cache(disk=tmp_path), journal=False)}
    env = LocalEnvironment("two")
    settings: dict[str, Any] = {"version": "1", "keep": keep}
    one, other = (env.service(name, Llm, [[]], **settings) for name in ("one", "other"))
    env.from_batch(["a"]).map(lambda q: (one.chat(q), other.chat(q))).collect()
    with pytest.raises(JobFailed, match="is used already in this process"):
        env.submit(autostop=True)


@pytest.mark.parametrize("full_disk", ["fail", "go on"])
def test_a_full_disk_fails_the_call_or_is_counted(full_disk: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", full_disk=full_disk)
    large = "x" * 200_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        if full_disk == "fail":
            with pytest.raises(JobFailed, match="there is no room for more in"):
                asks([large], Keep(journal=True), journal=journal)
        else:
            answers, _, policy = asks([large], Keep(journal=True), journal=journal)
            assert answers == [[large]] and policy.journal["uncached"] == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_only_the_user_may_read_what_is_kept(tmp_path: Path) -> None:
    asks(["a"], Keep(journal=True), journal=tmp_path / "run")
    assert {os.stat(path).st_mode & 0o077 for path in (tmp_path / "run").rglob("*")} == {0}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"keep": {"chat": Keep(cache=9)}}, "give it a `version`"),
    ({"keep": {"chat": Keep(journal=True)}, "version": "1"}, "`chat` keeps its answers in a journal: give the service"),
    ({"keep": Keep(cache=9), "version": "1"}, "`keep` says of methods how their answers are kept"),
    ({"keep": {"chat": 9}, "version": "1"}, "`keep` has a Keep for each method, and for `chat` not 9"),
    ({"keep": {3: Keep()}, "version": "1"}, "the name of a method in `keep` is a text, not 3"),
    ({"keep": {"chat": Keep(cache=0)}, "version": "1"}, "is a whole number of at least 1, not 0"),
    ({"keep": {"chat": Keep(cache=math.nan)}, "version": "1"}, "at least 1, not nan"),  # type: ignore[arg-type]
    ({"keep": {"chat": Keep(cache=Cache())}, "version": "1"}, "a Cache has `memory`, a number of answers, or `disk`"),
    ({"keep": {"chat": Keep(cache=Cache(memory=9, memory_bytes=-1))}, "version": "1"}, "`memory_bytes` of a Cache"),
    ({"keep": {"chat": Keep(cache=Cache(disk="", disk_bytes=9))}, "version": "1"}, "`disk` of a Cache is the path"),
    ({"keep": {"chat": Keep(cache=Cache(disk="d", disk_bytes=0))}, "version": "1"}, "`disk_bytes` of a Cache"),
    ({"keep": {"chat": Keep(cache=Cache(9, time_to_live=0))}, "version": "1"}, "`time_to_live` of a Cache is more"),
    ({"keep": {"chat": Keep(cache=Cache(9, time_to_live=math.nan))}, "version": "1"}, "`time_to_live` of a Cache"),
    ({"keep": {"chat": Keep(cache=Cache(9, when_in_use="wait"))}, "version": "1"}, '"fail" or "go on", not \'wait\''),
    ({"keep": {"chat": Keep(cache=Cache(9, largest_answer=1 << 32))}, "version": "1"}, "`largest_answer` of a Cache"),
    ({"keep": {"chat": Keep(codec="yaml")}, "version": "1"}, '`codec` of a Keep is "json" or "pickle", not \'yaml\''),
    ({"keep": {"chat": Keep(tag="user")}, "version": "1"}, "`tag` of a Keep is a function"),  # type: ignore[arg-type]
    ({"keep": {"chat": Keep(arguments=3)}, "version": "1"}, "`arguments` of a Keep"),  # type: ignore[arg-type]
    ({"journal": ""}, "`journal` is the path of a folder, not ''"),
    ({"journal": Journal("d", full_disk="no")}, '`full_disk` of a Journal is "fail" or "go on", not \'no\''),
    ({"journal": Journal("d", largest_answer=0)}, "`largest_answer` of a Journal"),
    ({"journal": Journal("d", sync="yes")}, "`sync` of a Journal is True or False"),  # type: ignore[arg-type]
    ({"version": 1}, "`version` of a service is a text, not 1"),
    ({"versoin": "1"}, "`service` has no parameter `versoin`; did you mean `version`"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    env = LocalEnvironment("wrong")
    with pytest.raises((ValueError, TypeError)) as refused:
        env.service("llm", Llm, [[]], **settings)
    assert message in str(refused.value)


@pytest.mark.parametrize(("made", "given"), [(Cache, "memry"), (Keep, "jurnal"), (Journal, "sinc")])
def test_an_unknown_setting_names_the_one_that_was_meant(made: Any, given: str) -> None:
    with pytest.raises(TypeError, match=f"has no parameter `{given}`; did you mean"):
        made(**{given: 1})


@pytest.mark.parametrize("how", [{}, {"isolated": True}])
def test_a_method_that_is_not_there_cannot_be_kept(how: dict[str, Any]) -> None:
    env = LocalEnvironment("misspelt")
    env.service("llm", Llm, [[]], version="1", keep={"chatt": Keep()}, **how)
    env.from_batch([1]).collect()
    with pytest.raises(Exception, match="`keep`: `Llm` has no method `chatt`; did you mean one of these: .*chat"):
        env.submit(autostop=True)


@pytest.mark.parametrize("sample", [-1, 1.5, math.nan, "a"])
def test_a_sample_is_a_whole_number(sample: Any) -> None:
    llm = LocalEnvironment("sample").service("llm", Llm, [[]], version="1")
    with pytest.raises(ValueError, match="`sample` of a call is a whole number of at least 0"):
        llm.with_policy(sample=sample)


def test_a_tag_that_is_no_text_fails_the_call() -> None:
    with pytest.raises(JobFailed, match="`tag` of the answers of `chat` is a text or None, not 3"):
        asks(["a"], Keep(cache=9, tag=lambda q: 3))  # type: ignore[arg-type,return-value]
