"""What may be spent on a service, and what its answers did cost."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sage import JobFailed, LocalEnvironment, Rate, Service, ServiceRefused, Spend, Usage, batched

FOREVER = 3600.0


class Llm(Service):
    def chat(self, question: str) -> dict[str, Any]:
        return {"text": question.upper(), "tokens": 3, "spent": 0.25}

    async def achat(self, question: str) -> dict[str, Any]:
        return self.chat(question)

    @batched(4, within=0)
    def embed(self, texts: list[str]) -> list[dict[str, Any]]:
        return [self.chat(text) for text in texts]


def usage(answer: dict[str, Any]) -> Usage:
    return Usage(cost=answer["tokens"], spent=answer["spent"])


def spent(records: list[str], name: str = "chat", **settings: Any) -> Any:
    """Runs a job whose calls cost something. Returns what was refused, and the figures."""
    env, refused = LocalEnvironment("spent"), list[str]()
    llm: Any = env.service("llm", Llm, **settings)

    def ask(question: str) -> None:
        try:
            getattr(llm, name)(question)
        except ServiceRefused as error:
            refused.append(error.reason)

    async def aask(question: str) -> None:
        await getattr(llm, name)(question)

    env.from_batch(records).sink(aask if name == "achat" else ask)
    policy = env.submit(autostop=True).metrics().services["llm"].policy
    assert policy is not None
    return refused, policy.rate


@pytest.mark.parametrize("name", ["chat", "achat", "embed"])
def test_what_answers_cost_counts_and_not_what_was_reserved(name: str) -> None:
    refused, rate = spent(["a"] * 4, name, spend=Spend(1.0, per=FOREVER), price=lambda q: 0.2, usage=usage)
    assert not refused and (rate["passed"], rate["spent_billionths"], rate["cost"]) == (4, 1_000_000_000, 12)


def test_each_method_may_have_a_cost_a_price_and_a_usage_of_its_own() -> None:
    mine: dict[str, Any] = {
        "cost": {"chat": lambda q: 4},
        "price": {"chat": lambda q: 0.25, "achat": lambda q: 0.5},
        "usage": {"achat": lambda answer: Usage(cost=7, spent=0.125)},
    }
    limits = {"spend": Spend(5.0, per=FOREVER), "rate": Rate(cost=100, per=FOREVER)}
    for name, cost, billionths in [("chat", 4, 250_000_000), ("achat", 7, 125_000_000), ("embed", 1, 0)]:
        refused, rate = spent(["a"], name, **limits, **mine)
        assert not refused and (rate["cost"], rate["spent_billionths"]) == (cost, billionths), name


@pytest.mark.parametrize("setting", ["cost", "price", "usage"])
@pytest.mark.parametrize("how", [{}, {"isolated": True}])
def test_a_setting_for_a_method_that_is_not_there_is_refused(setting: str, how: dict[str, Any]) -> None:
    env = LocalEnvironment("misspelt")
    env.service("llm", Llm, **{setting: {"chatt": usage}}, **how)
    env.from_batch([1]).collect()
    with pytest.raises(Exception, match=f"`{setting}`: `Llm` has no method `chatt`; did you mean one of these: .*chat"):
        env.submit(autostop=True)


def test_calls_are_refused_when_what_may_be_spent_is_spent() -> None:
    refused, rate = spent(["a"] * 6, spend=Spend(1.0, per=FOREVER), price=lambda q: 0.25, usage=usage)
    assert len(refused) == 2 and rate["refused"] == 2 and set(refused) == {"spent"}


def test_without_usage_a_call_costs_its_price() -> None:
    _, rate = spent(["a"] * 2, spend=[5, Spend(9.0, per=1)], price=lambda q: 0.125)
    assert rate["spent_billionths"] == 250_000_000


def test_without_a_price_a_call_may_go_while_anything_is_left() -> None:
    refused, rate = spent(["a"] * 6, spend=Spend(0.6, per=FOREVER), usage=usage)
    assert len(refused) == 3 and rate["spent_billionths"] == 750_000_000


def test_usage_settles_a_rate_of_cost() -> None:
    limit = Rate(cost=10, per=FOREVER)
    refused, rate = spent(["a"] * 3, rate=limit, cost=lambda q: 4, usage=lambda answer: Usage(cost=1))
    assert not refused and rate["cost"] == 3


def test_calls_that_wait_go_on_when_there_is_something_to_spend() -> None:
    refused, rate = spent(["a"] * 3, spend=Spend(0.25, per=0.05, waits=True), price=lambda q: 0.25)
    assert not refused and rate["waited"] == 2


@pytest.mark.parametrize("answer", [3, Usage(cost=-1), Usage(1, math.nan), ZeroDivisionError()])
def test_a_usage_that_cannot_be_is_told_and_what_was_reserved_counts(
    answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda event: told.append(event.exc_value))

    def says(_answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    _, rate = spent(["a"], spend=5, price=lambda q: 0.5, usage=says)
    assert rate["spent_billionths"] == 500_000_000 and len(told) == 1


def test_a_usage_of_none_is_what_was_reserved() -> None:
    _, rate = spent(["a"], spend=5, price=lambda q: 0.5, usage=lambda answer: None)
    assert rate["spent_billionths"] == 500_000_000


@pytest.mark.parametrize("price", [-1, math.nan, math.inf, "a", None])
def test_a_price_that_is_no_number_is_an_error_of_the_call(price: Any) -> None:
    with pytest.raises(JobFailed, match="the `price` of a request is a number from 0 on, not"):
        spent(["a"], spend=5, price=lambda q: price)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"spend": 0}, "`amount` of a Spend is more than 0, not 0"),
    ({"spend": -1}, "`amount` of a Spend is a number from 0 on, not -1"),
    ({"spend": math.nan}, "`amount` of a Spend is a number from 0 on, not nan"),
    ({"spend": math.inf}, "`amount` of a Spend is a number from 0 on, not inf"),
    ({"spend": "5"}, "`amount` of a Spend is a number from 0 on, not '5'"),
    ({"spend": Spend(1, per=0)}, "`per` of a Spend is more than 0 seconds, not 0"),
    ({"spend": Spend(1, waits="no")}, "`waits` of a Spend is True or False, not 'no'"),  # type: ignore[arg-type]
    ({"spend": 1, "price": 3}, "`price` is a function that is given the arguments of a call, not 3"),
    ({"spend": 1, "usage": 3}, "`usage` is a function that is given an answer, not 3"),
    ({"usage": {"chat": 3}}, "`usage` has a function that is given an answer, and for `chat` not 3"),
    ({"cost": {3: usage}}, "the name of a method in `cost` is a text, not 3"),
    ({"spent": 1}, "`service` has no parameter `spent`; did you mean `spend`"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as refused:
        LocalEnvironment("wrong").service("llm", Llm, **settings)
    assert message in str(refused.value)
