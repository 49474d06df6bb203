"""What a caller may rely on about kept answers, and about the figures of a policy."""

from __future__ import annotations

import math
import threading
from dataclasses import fields
from typing import Any

import pytest

from sage import Breaker, Keep, LocalEnvironment, Service
from sage import PolicyMetrics as Figures


class Counts(Service):
    """Answers a call with how many there were."""

    def __init__(self) -> None:
        self.calls = 0

    def chat(self, question: Any) -> list[int]:
        self.calls += 1
        return [self.calls]


@pytest.mark.parametrize("question", [math.nan, math.inf, [-math.inf], {"deep": [math.nan]}])
def test_a_call_with_a_number_that_json_does_not_have_is_made_each_time(question: Any) -> None:
    env = LocalEnvironment("kept")
    counts = env.service("counts", Counts, version="1", keep={"chat": Keep(cache=9)})
    answers = env.from_batch([question, question]).map(counts.chat).collect()
    policy = env.submit(autostop=True).metrics().services["counts"].policy
    assert answers == [[1], [2]]
    assert policy is not None and policy.kept[0]["cache"]["uncached"] == 2


def test_arguments_that_are_equal_in_python_but_not_in_json_are_different_calls() -> None:
    env = LocalEnvironment("kept")
    counts = env.service("counts", Counts, version="1", keep={"chat": Keep(cache=9)})
    answers = env.from_batch([1, 1.0, True, 0.0, -0.0, "1"]).map(counts.chat).collect()
    env.submit(autostop=True)
    assert answers == [[1], [2], [3], [4], [5], [6]]


def test_callers_that_share_a_call_get_an_answer_each() -> None:
    here = threading.Event()

    class Slow(Service):
        def chat(self, question: str) -> list[str]:
            here.wait(60)
            return [question]

    env = LocalEnvironment("kept")
    slow = env.service("slow", Slow, version="1", keep={"chat": Keep(cache=9)})
    answers = env.from_batch(["a"] * 4).map(slow.chat, in_flight=4).collect()
    job = env.submit()

    def policy() -> Figures:
        figures = job.metrics().services["slow"].policy
        assert figures is not None
        return figures

    while policy().calls < 4:
        threading.Event().wait(0.01)
    here.set()
    job.wait()
    assert answers == [["a"]] * 4 and len({id(answer) for answer in answers}) == 4
    assert policy().attempts == 1


def test_the_figures_of_a_policy_are_those_of_the_report_while_the_job_runs_and_after() -> None:
    goes_on = threading.Event()
    env = LocalEnvironment("figures")
    settings: dict[str, Any] = {"rate": 1000, "concurrency": 4, "breaker": Breaker(3)}
    counts = env.service("counts", Counts, version="1", keep={"chat": Keep(cache=9)}, **settings)
    env.from_batch(["a", "a"]).map(counts.chat).map(lambda _: goes_on.wait(60)).collect()
    job = env.submit()

    def policy() -> Figures | None:
        return job.metrics().services["counts"].policy

    while (live := policy()) is None or not live.attempts:
        threading.Event().wait(0.01)
    assert live.breaker is not None and live.breaker["state"] == "closed"
    assert live.concurrency is not None and live.concurrency["limit"] == 4
    goes_on.set()
    report = job.wait()
    assert report is not None
    (told,) = (row["policy"] for row in report.data["services"] if row["name"] == "counts")
    over = policy()
    assert over is not None and set(told) <= {each.name for each in fields(Figures)}
    for name in ("calls", "attempts", "breaker", "rate", "concurrency", "journal", "outages", "held"):
        assert getattr(over, name) == told[name], name
    assert list(over.kept) == told["kept"]
