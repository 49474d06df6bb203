"""Policies of services: what is done for each call, whoever makes it."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from sage import (
    Breaker,
    Concurrency,
    JobFailed,
    LocalEnvironment,
    MapFunction,
    Passing,
    Rate,
    Retry,
    Service,
    ServiceError,
    ServiceRefused,
    Throttled,
    batched,
)
from sage._services import ServiceFactory

#: So long that only what ends the wait otherwise can have ended it.
FOREVER = 100_000.0

#: No wait between attempts.
AT_ONCE = Retry(4, 0, 0)


class Model(Service):
    """Raises what it is told to, one at a time, and then answers."""

    def __init__(self, raises: list[BaseException] | None = None) -> None:
        self.raises = list(raises or [])
        self.asked: list[Any] = []

    def chat(self, question: str) -> str:
        self.asked.append(question)
        if self.raises:
            raise self.raises.pop(0)
        return question.upper()

    async def achat(self, question: str) -> str:
        await asyncio.sleep(0)
        return self.chat(question)


class ByName(MapFunction):
    def execute(self, question: str) -> Any:
        return self.call_service("model", question, method="chat")


class ByFuture(MapFunction):
    def execute(self, question: str) -> Any:
        return self.call_service_async("model", question, method="chat").result()


def ways(model: Model) -> dict[str, Any]:
    """The ways in which a service is called."""

    async def awaits(question: str) -> str:
        return await model.achat(question)

    async def awaits_two(question: str) -> str:
        return (await asyncio.gather(model.achat(question)))[0]

    return {
        "handle": model.chat,
        "name": ByName,
        "future": ByFuture,
        "awaited": awaits,
        "as a task": awaits_two,
        "from a coroutine": lambda question: model.chat(question),
    }


WAYS = ["handle", "name", "future", "awaited", "as a task", "from a coroutine"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("times", [{}, {"timeout": FOREVER}, {"deadline": FOREVER}])
def test_a_call_is_tried_again_whoever_makes_it(way: str, times: dict[str, float]) -> None:
    env = LocalEnvironment("retried")
    model = env.service("model", Model, [[OSError("one"), OSError("two")]], retry=AT_ONCE, **times)
    answers = env.from_batch(["why", "how"]).map(ways(model)[way]).collect()
    job = env.submit(autostop=True)
    assert answers == ["WHY", "HOW"]
    policy = job.metrics().services["model"].policy
    assert policy is not None and (policy.calls, policy.attempts, policy.retries) == (2, 4, 2)
    assert "2 calls, 4 attempts, 2 retries" in str(job.report)


@pytest.mark.parametrize("way", WAYS)
def test_the_last_exception_keeps_its_traceback_and_says_how_often_it_was_tried(way: str) -> None:
    env = LocalEnvironment("given up")
    model = env.service("model", Model, [[OSError(str(n)) for n in range(9)]], retry=AT_ONCE)
    env.from_batch(["why"]).map(ways(model)[way]).collect()
    with pytest.raises(JobFailed, match="OSError: 3") as failed:
        env.submit(autostop=True)
    cause = failed.value.__cause__
    assert type(cause) is OSError and traceback.extract_tb(cause.__traceback__)[-1].name == "chat"
    assert getattr(cause, "__notes__", ["gave up after 4 attempts"]) == ["gave up after 4 attempts"]


class Http(Exception):
    def __init__(self, status: int, after: str | None = None) -> None:
        super().__init__(f"status {status}")
        self.status_code = status
        self.headers = {} if after is None else {"retry-after": after}


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (Http(400), 1),
        (Http(404), 1),
        (Http(408), 2),
        (Http(429), 2),
        (Http(429, "0"), 2),
        (Http(429, "Wed, 21 Oct 2026 07:28:00 GMT"), 2),
        (Http(500), 2),
        (ConnectionRefusedError(), 2),
        (ValueError(), 2),
    ],
)
def test_what_an_exception_means_is_known_of_the_usual_ones(error: Exception, attempts: int) -> None:
    env = LocalEnvironment("usual")
    model = env.service("model", Model, [[error]], retry=AT_ONCE)
    answers = env.from_batch(["why"]).map(model.chat, on_error="skip").collect()
    job = env.submit(autostop=True)
    policy = job.metrics().services["model"].policy
    assert policy is not None and policy.attempts == attempts and answers == (["WHY"] if attempts == 2 else [])


@pytest.mark.parametrize(("error", "refused"), [(Http(503, "0"), 1), (Http(429, "0"), 0)])
def test_a_delay_that_is_asked_for_is_a_failure_unless_the_service_has_too_much_to_do(
    error: Exception, refused: int
) -> None:
    env = LocalEnvironment("repaired")
    model = env.service("model", Model, [[error, error]], breaker=1)
    env.from_batch(["why", "how"]).map(model.chat, on_error="skip").collect()
    policy = env.submit(autostop=True).metrics().services["model"].policy
    assert policy is not None and policy.refused == refused


@pytest.mark.parametrize(
    ("told", "attempts"),
    [
        ("bad", 1),
        ("passing", 2),
        (Passing(0), 2),
        ("throttled", 2),
        (Throttled(0), 2),
        ("denied", 1),
        ("outage", 2),
        (None, 2),
    ],
)
def test_the_program_may_say_what_an_exception_means(told: Any, attempts: int) -> None:
    seen: list[Exception] = []

    def judge(error: Exception) -> Any:
        seen.append(error)
        return told

    error, env = OSError("odd"), LocalEnvironment("judged")
    model = env.service("model", Model, [[error]], retry=AT_ONCE, judge=judge)
    env.from_batch(["why"]).map(model.chat, on_error="skip").collect()
    policy = env.submit(autostop=True).metrics().services["model"].policy
    assert policy is not None and policy.attempts == attempts and seen == [error]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("told", ["worse", 3, Throttled(-1), Passing(-1)])
def test_a_judge_that_says_nothing_known_makes_no_other_attempt(told: Any) -> None:
    env = LocalEnvironment("misjudged")
    model = env.service("model", Model, [[OSError("odd")]], retry=AT_ONCE, judge=lambda _: told)
    env.from_batch(["why"]).map(model.chat).collect()
    with pytest.raises(JobFailed, match="OSError: odd"):
        env.submit(autostop=True)


class Stuck(Service):
    """Answers when it is let."""

    def __init__(self, goes_on: threading.Event) -> None:
        self.goes_on = goes_on
        self.calls = 0

    def look(self, key: str) -> str:
        self.calls += 1
        self.goes_on.wait(60)
        return key

    async def alook(self, key: str) -> str:
        await asyncio.get_running_loop().create_future()
        return key


@pytest.mark.parametrize("setting", ["timeout", "deadline"])
@pytest.mark.parametrize("way", ["handle", "name", "future", "awaited"])
def test_a_call_that_takes_too_long_raises_a_timeout_error(setting: str, way: str) -> None:
    goes_on = threading.Event()
    env = LocalEnvironment("late")
    slow = env.service("slow", Stuck, [goes_on], **{setting: 0.02})  # type: ignore[arg-type]
    got: list[Exception] = []

    class Ask(MapFunction):
        def execute(self, key: str) -> str:
            try:
                if way == "name":
                    return str(self.call_service("slow", key, method="look"))
                if way == "future":
                    return str(self.call_service_async("slow", key, method="look").result())
                return slow.look(key)
            except TimeoutError as error:
                got.append(error)
                return "late"
            finally:
                goes_on.set()

    async def awaits(key: str) -> str:
        try:
            return await slow.alook(key)
        except TimeoutError as error:
            got.append(error)
            return "late"

    function: Any = awaits if way == "awaited" else Ask
    answers = env.from_batch(["a"]).map(function).collect()
    job = env.submit(autostop=True)
    method = "alook" if way == "awaited" else "look"
    wanted = {
        "timeout": f"service `slow` did not answer `{method}` within 0.02 s",
        "deadline": f"service `slow` had not answered `{method}` by the deadline of the call",
    }
    assert answers == ["late"] and str(got[0]) == wanted[setting]
    assert job.report.data["cleanliness"] == "clean"


def test_a_deadline_travels_inward_through_nested_services() -> None:
    goes_on, env = threading.Event(), LocalEnvironment("nested")
    inner = env.service("inner", Stuck, [goes_on], deadline=FOREVER)
    late: list[str] = []

    class Outer(Service):
        def ask(self, key: str) -> str:
            try:
                return inner.look(key)
            except TimeoutError as error:
                late.append(str(error))
                goes_on.set()
                raise

        async def aask(self, key: str) -> str:
            try:
                return await inner.alook(key)
            except (TimeoutError, asyncio.CancelledError) as error:
                late.append(str(error) or "cancelled")
                raise

    outer = env.service("outer", Outer, deadline=0.02, after=["inner"])

    async def awaits(key: str) -> str:
        return await outer.aask(key)

    env.from_batch(["a"]).map(outer.ask, on_error="skip").collect()
    env.from_batch(["a"]).map(awaits, on_error="skip").collect()
    job = env.submit(autostop=True)
    assert job.metrics().services["inner"].policy.failed >= 1  # type: ignore[union-attr]
    assert job.report.data["cleanliness"] == "clean" and late


def test_another_service_answers_where_one_fails() -> None:
    env = LocalEnvironment("fallback")
    small = env.service("small", Model)
    failing = [OSError("down"), Http(400), OSError("down")]
    model = env.service("model", Model, [failing], fallback=small)

    async def awaits(question: str) -> str:
        return await model.achat(question)

    answers = env.from_batch(["a", "b"]).map(model.chat, on_error="skip").map(awaits).collect()
    job = env.submit(autostop=True)
    # The request that is at fault itself goes nowhere else.
    assert answers == ["A"]
    assert job.metrics().services["model"].policy.fallbacks == 2  # type: ignore[union-attr]
    assert list(job.report.services) == ["small", "model"]


def test_calls_through_another_handle_have_other_settings() -> None:
    goes_on, env = threading.Event(), LocalEnvironment("derived")
    slow: Any = env.service("slow", Stuck, [goes_on], timeout=FOREVER)
    quick = slow.with_policy(timeout=0.02)
    late: list[str] = []

    def both(key: str) -> str:
        with pytest.raises(TimeoutError) as raised:
            quick.look(key)
        late.append(str(raised.value))
        goes_on.set()
        return str(slow.look(key))

    answers = env.from_batch(["a"]).map(both).collect()
    env.submit(autostop=True)
    assert answers == ["a"] and late == ["service `slow` did not answer `look` within 0.02 s"]


def test_a_handle_of_a_service_without_a_policy_cannot_change_it() -> None:
    env = LocalEnvironment("none")
    model: Any = env.service("model", Model)
    env.from_batch(["a"]).map(model.with_policy(timeout=1).chat).collect()
    with pytest.raises(JobFailed, match="`model` has no policy of which a call could have other settings"):
        env.submit(autostop=True)


class Embedder(Service):
    def __init__(self, gives: Callable[[list[Any]], Any] | None = None) -> None:
        self.gives = gives or (lambda texts: [len(text) for text in texts])
        self.batches: list[list[Any]] = []

    @batched(4, within=FOREVER)
    def embed(self, texts: list[str]) -> list[int | Exception]:
        self.batches.append(texts)
        return list(self.gives(texts))

    @batched(4, within=FOREVER)
    async def aembed(self, texts: list[str]) -> list[int | Exception]:
        await asyncio.sleep(0)
        self.batches.append(texts)
        return list(self.gives(texts))

    @batched(100, within=FOREVER, cost=len, most_cost=4)
    def costly(self, texts: list[str]) -> list[int]:
        self.batches.append(texts)
        return [len(texts)] * len(texts)

    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


def embedding(embedder: Embedder, way: str) -> Any:
    async def awaits(text: str) -> int:
        return await embedder.aembed(text)

    return awaits if way == "awaited" else embedder.embed


@pytest.mark.parametrize("way", ["handle", "awaited"])
@pytest.mark.parametrize("settings", [{}, {"timeout": FOREVER}, {"retry": 3}, {"isolated": True}])
def test_requests_of_several_callers_are_answered_together(way: str, settings: dict[str, Any]) -> None:
    env = LocalEnvironment("together")
    embedder = env.service("embedder", Embedder, **settings)
    texts = ["a", "bb", "ccc", "dddd"] * 2
    sizes = env.from_batch(texts).map(embedding(embedder, way), in_flight=4).collect()
    job = env.submit(autostop=True)
    assert sizes == [1, 2, 3, 4] * 2
    policy = job.metrics().services["embedder"].policy
    assert policy is not None and (policy.calls, policy.batches, policy.batched) == (8, 2, 8)


def test_a_class_with_such_a_method_may_be_registered_in_any_way() -> None:
    class Embeds(MapFunction):
        def execute(self, text: str) -> Any:
            return self.call_service("embedder", text, method="embed")

    for way in ("class", "factory"):
        env = LocalEnvironment("registered")
        if way == "class":
            env.register_service("embedder", Embedder)
        else:
            env.register_service_factory("embedder", ServiceFactory("embedder", Embedder))
        sizes = env.from_batch(["a", "bb", "ccc", "dddd"]).map(Embeds, in_flight=4).collect()
        policy = env.submit(autostop=True).metrics().services["embedder"].policy
        assert sizes == [1, 2, 3, 4] and policy is not None and policy.batches == 1


@pytest.mark.parametrize("way", ["handle", "awaited"])
def test_requests_of_worker_processes_are_answered_together(way: str) -> None:
    env = LocalEnvironment("elsewhere", workers="processes")
    embedder = env.service("embedder", Embedder)
    sizes = env.from_batch(["a", "bb", "ccc", "dddd"]).map(embedding(embedder, way), in_flight=4).collect()
    policy = env.submit(autostop=True).metrics().services["embedder"].policy
    assert sizes == [1, 2, 3, 4] and policy is not None and policy.batches == 1


@pytest.mark.parametrize("way", ["handle", "awaited"])
def test_an_exception_among_the_answers_is_that_of_one_request(way: str) -> None:
    env = LocalEnvironment("one of them")
    gives = [lambda texts: [ValueError("long") if text == "bb" else len(text) for text in texts]]
    embedder = env.service("embedder", Embedder, gives)
    function = embedding(embedder, way)
    sizes = env.from_batch(["a", "bb", "ccc", "dddd"]).map(function, in_flight=4, on_error="skip").collect()
    job = env.submit(autostop=True)
    assert sizes == [1, 3, 4]
    assert "ValueError: long" in str(job.report)


@pytest.mark.parametrize("way", ["handle", "awaited"])
def test_a_batch_that_is_rejected_is_cut_until_the_request_at_fault_is_known(way: str) -> None:
    def gives(texts: list[str]) -> list[int]:
        if "bb" in texts:
            raise Http(422)
        return [len(text) for text in texts]

    env = LocalEnvironment("poisoned")
    embedder = env.service("embedder", Embedder, [gives])
    function = embedding(embedder, way)
    sizes = env.from_batch(["a", "bb", "ccc", "dddd"]).map(function, in_flight=4, on_error="skip").collect()
    job = env.submit(autostop=True)
    assert sizes == [1, 3, 4]
    policy = job.metrics().services["embedder"].policy
    assert policy is not None and policy.batches == 5 and policy.failed == 1


@pytest.mark.parametrize("way", ["handle", "awaited"])
def test_a_method_that_gives_too_few_answers_says_how_many(way: str) -> None:
    env = LocalEnvironment("too few")
    embedder = env.service("embedder", Embedder, [lambda texts: [1]])
    env.from_batch(["a"] * 4).map(embedding(embedder, way), in_flight=4).collect()
    with pytest.raises(JobFailed, match="it gave 1 answers to a batch of 4 requests"):
        env.submit(autostop=True)


def test_a_batch_costs_no_more_than_it_may() -> None:
    env = LocalEnvironment("costs")
    embedder = env.service("embedder", Embedder)
    sizes = env.from_batch(["aa", "aa", "aaaa"]).map(embedder.costly, in_flight=3).collect()
    env.submit(autostop=True)
    assert sizes == [2, 2, 1]


def test_outside_of_a_job_a_call_is_a_batch_of_one() -> None:
    embedder = Embedder()
    assert embedder.embed("abc") == 3 and asyncio.run(embedder.aembed("ab")) == 2
    assert embedder.embed.together(["a", "ab"]) == [1, 2]
    raises = Embedder(lambda texts: [ValueError("long")])
    with pytest.raises(ValueError, match="long"):
        raises.embed("a")
    with pytest.raises(ValueError, match="`embed` gave 0 answers to a batch of 1 request"):
        Embedder(lambda texts: []).embed("a")


@pytest.mark.parametrize("args", [(), ("a", "b")])
def test_a_call_of_such_a_method_has_one_request(args: tuple[str, ...]) -> None:
    env = LocalEnvironment("one")
    embedder: Any = env.service("embedder", Embedder)
    env.from_batch([1]).map(lambda _: embedder.embed(*args)).collect()
    with pytest.raises(JobFailed, match="`embed` answers requests together, so a call of it has one argument"):
        env.submit(autostop=True)


def test_a_service_that_a_function_makes_is_known_to_batch_too_late() -> None:
    env = LocalEnvironment("unknown")
    env.service("embedder", lambda: Embedder())
    env.from_batch([1]).collect()
    with pytest.raises(JobFailed, match="`embed` of `Embedder` answers requests together, and the job does not know"):
        env.submit(autostop=True)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"timeout": 0}, "`timeout` of a call is more than 0 seconds, not 0; leave it out for none"),
    ({"timeout": math.inf}, "`timeout` of a call is more than 0 seconds, not inf; leave it out for none"),
    ({"timeout": "1"}, "`timeout` of a call is more than 0 seconds, not '1'"),
    ({"deadline": math.nan}, "`deadline` of a call is more than 0 seconds, not nan"),
    ({"deadline": -1}, "`deadline` of a call is more than 0 seconds, not -1"),
    ({"retry": 0}, "`attempts` of a Retry, which makes at least one attempt, is a whole number from 1"),
    ({"retry": math.inf}, "`retry` is a number of attempts or a Retry, not inf"),
    ({"retry": "3"}, "`retry` is a number of attempts or a Retry, not '3'"),
    ({"pause_on_outage": 0}, "`pause_on_outage` is more than 0 seconds, not 0"),
    ({"judge": "bad"}, "`judge` is a function that is given an exception, not 'bad'"),
    ({"rate": 0}, "`rate`, of calls within a second, is a whole number of at least 1, not 0"),
    ({"rate": math.inf}, "`rate`, of calls within a second, is a whole number of at least 1, not inf"),
    ({"rate": Rate()}, "a Rate has `calls` or `cost`, and `per`, not Rate(calls=None"),
    ({"rate": Rate(1, 1)}, "a Rate has `calls` or `cost`, and `per`, not Rate(calls=1"),
    ({"rate": Rate(1, per=0)}, "`per` of a Rate is more than 0 seconds, not 0"),
    ({"rate": Rate(1, burst=0)}, "`burst` of a Rate is a whole number of at least 1, not 0"),
    ({"rate": Rate(cost=1)}, "a Rate of cost needs `cost`, which says of the arguments of a call what it costs"),
    ({"cost": 3}, "`cost` is a function that is given the arguments of a call, not 3"),
    ({"concurrency": 0}, "`concurrency`, of calls at once, is a whole number of at least 1, not 0"),
    ({"concurrency": math.inf}, "`concurrency`, of calls at once, is a whole number of at least 1, not inf"),
    ({"concurrency": "8"}, "`concurrency`, of calls at once, is a whole number of at least 1, not '8'"),
    ({"concurrency": Concurrency(0)}, "`calls` of a Concurrency is a whole number of at least 1, not 0"),
    ({"concurrency": Concurrency(1, queue=-1)}, "`queue` of a Concurrency is a whole number of at least 0, not -1"),
    ({"concurrency": Concurrency(2, adaptive=3)}, "no more than its `calls`, is a whole number from 1 to 2, not 3"),
    ({"breaker": 0}, "`breaker`, of failures in a row, is a whole number from 1 to 100,000, not 0"),
    ({"breaker": math.inf}, "`breaker`, of failures in a row, is a whole number from 1 to 100,000, not inf"),
    ({"breaker": Breaker(share=0)}, "`share` of a Breaker is above 0, and 1 at most, not 0"),
    ({"breaker": Breaker(share=math.nan)}, "`share` of a Breaker is a number, not nan"),
    ({"breaker": Breaker(open_for=0)}, "`open_for` of a Breaker is more than 0 seconds, not 0"),
    ({"breaker": Breaker(probes=0)}, "`probes` of a Breaker is a whole number from 1"),
    ({"breaker": Breaker(at_least=21)}, "no more than its `of_last`, is a whole number from 1 to 20, not 21"),
    ({"retry_budget": -1}, "`retry_budget` is how many retries there may be for each call, from 0 to 1,000, not -1"),
    ({"retry_budget": math.inf}, "`retry_budget` is a number, not inf"),
    ({"fallback": 3}, "`fallback` takes handles of services, or their names, not 3"),
    ({"timout": 1}, "`service` has no parameter `timout`; did you mean `timeout`"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    env = LocalEnvironment("wrong")
    with pytest.raises((ValueError, TypeError), match=message.replace("(", r"\(")):
        env.service("model", Model, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "the size of a batch is a whole number of at least 1, not 0"),
        ({"size": math.inf}, "the size of a batch is a whole number of at least 1, not inf"),
        ({"size": len}, "`batched` needs the size of a batch"),
        ({"size": 1, "within": -1}, "`within` of a batch is a time that is not negative, in seconds, not -1"),
        ({"size": 1, "within": math.inf}, "`within` of a batch is a time that is not negative"),
        ({"size": 1, "cost": 3}, "`cost` of a batch is a function of a request, not 3"),
        ({"size": 1, "cost": len, "most_cost": 0}, "`most_cost` of a batch is a whole number of at least 1, not 0"),
        ({"size": 1, "most_cost": 3}, "`most_cost` of a batch needs `cost`"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        batched(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        *({"retry": 1}, {"timeout": 1}, {"pause_on_outage": math.inf}, {"rate": 1}, {"cost": len}),
        *({"concurrency": 1}, {"breaker": 1}, {"retry_budget": 0}, {"retry_budget": 1}),
    ],
)
def test_one_and_infinite_are_settings_like_others(settings: dict[str, Any]) -> None:
    env = LocalEnvironment("limits")
    model = env.service("model", Model, **settings)
    answers = env.from_batch(["a"]).map(model.chat).collect()
    env.submit(autostop=True)
    assert answers == ["A"]


def test_a_fallback_that_is_no_service_is_refused() -> None:
    env = LocalEnvironment("no fallback")
    env.service("model", Model, fallback="small")
    env.from_batch([1]).collect()
    with pytest.raises(Exception, match="small"):
        env.submit(autostop=True)


WAITS: dict[str, dict[str, Any]] = {
    "retry": {"retry": Retry(2, FOREVER, FOREVER)},
    "retry in time": {"retry": Retry(2, FOREVER, FOREVER), "deadline": 2 * FOREVER},
    "outage": {"pause_on_outage": math.inf, "judge": lambda error: "outage"},
}


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("way", ["handle", "name", "future", "awaited"])
def test_a_cancelled_job_ends_each_wait_at_once(wait: str, way: str) -> None:
    met = threading.Event()

    class Fails(Model):
        def chat(self, question: str) -> str:
            met.set()
            raise OSError("down")

    env = LocalEnvironment("cancelled")
    model = env.service("model", Fails, **WAITS[wait])
    env.from_batch(["why"]).map(ways(model)[way]).collect()
    job = env.submit()
    assert met.wait(60)
    job.cancel()
    with pytest.raises(JobFailed) as failed:
        job.wait(60)
    report = failed.value.report
    assert report is not None and report.data["outcome"] == "cancelled" and report.data["cleanliness"] == "clean"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("sage")]


@pytest.mark.parametrize("way", ["handle", "awaited"])
def test_a_cancelled_job_ends_the_wait_for_a_batch_at_once(way: str) -> None:
    env, begun = LocalEnvironment("cancelled batch"), threading.Event()
    embedder = env.service("embedder", Embedder)
    inner = embedding(embedder, way)

    def embeds(text: str) -> Any:
        begun.set()
        return inner(text)

    async def awaits(text: str) -> Any:
        begun.set()
        return await inner(text)

    env.from_batch(["why"]).map(awaits if way == "awaited" else embeds).collect()
    job = env.submit()
    assert begun.wait(60)
    job.cancel()
    with pytest.raises(JobFailed) as failed:
        job.wait(60)
    report = failed.value.report
    assert report is not None and report.data["cleanliness"] == "clean"


def test_a_caller_that_is_cancelled_cancels_the_task_of_its_call() -> None:
    told: list[str] = []
    begun = asyncio.Event()

    class Waits(Service):
        async def ask(self, key: str) -> str:
            try:
                begun.set()
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                told.append("cancelled")
                raise
            return key

    env = LocalEnvironment("left")
    waits = env.service("waits", Waits, retry=3)

    async def leaves(key: str) -> str:
        task = asyncio.ensure_future(waits.ask(key))
        await begun.wait()
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return "left"

    answers = env.from_batch(["a"]).map(leaves).collect()
    env.submit(autostop=True)
    assert answers == ["left"] and told == ["cancelled"]


def test_a_coroutine_that_nobody_awaits_is_refused_as_without_a_policy() -> None:
    env = LocalEnvironment("unawaited")
    model = env.service("model", Model, retry=3)
    env.from_batch(["a"]).map(lambda question: model.achat(question)).collect()
    with pytest.raises(JobFailed, match="returned a coroutine, and nothing awaits it"):
        env.submit(autostop=True)


def test_a_service_is_started_for_another_that_calls_it_while_it_is_set_up() -> None:
    env = LocalEnvironment("early")
    model = env.service("model", Model, retry=3)
    told: list[str] = []

    class Early(Service):
        def setup(self) -> None:
            told.append(model.chat("early"))

    env.service("early", Early)
    env.from_batch([1]).collect()
    env.submit(autostop=True)
    assert told == ["EARLY"]


def test_many_calls_of_call_service_async_that_wait_take_no_threads() -> None:
    class Waits(Service):
        """Is busy the first time it is asked each question."""

        def __init__(self) -> None:
            self.asked: set[int] = set()

        def ask(self, n: int) -> int:
            if n in self.asked:
                return n
            self.asked.add(n)
            raise Http(429)

    class Many(MapFunction):
        def execute(self, n: int) -> int:
            calls = [self.call_service_async("waits", k, method="ask") for k in range(n)]
            return sum(call.result() for call in calls)

    env = LocalEnvironment("many")
    env.service("waits", Waits, retry=Retry(2, 0.05, 0.05), timeout=FOREVER)
    sums = env.from_batch([300]).map(Many).collect()
    env.submit(autostop=True)
    assert sums == [sum(range(300))]


@pytest.mark.parametrize("options", [{}, {"in_flight": 4}])
def test_calls_of_worker_processes_go_through_the_policy(options: dict[str, Any]) -> None:
    env = LocalEnvironment("elsewhere", workers="processes")
    model: Any = env.service("model", Model, [[OSError("one"), OSError("two")]], retry=AT_ONCE)
    once = model.with_policy(retry=1)

    def ask(question: str) -> str:
        try:
            return str(once.chat(question))
        except OSError:
            return str(model.chat(question))

    answers = env.from_batch(["a"]).map(ask, **options).collect()
    job = env.submit(autostop=True)
    policy = job.metrics().services["model"].policy
    assert answers == ["A"] and policy is not None
    assert (policy.calls, policy.attempts, policy.retries, policy.failed) == (2, 3, 1, 1)


def test_coroutines_of_worker_processes_go_through_the_policy() -> None:
    env = LocalEnvironment("elsewhere", workers="processes")
    model = env.service("model", Model, [[OSError("one"), OSError("two")]], retry=AT_ONCE)

    async def ask(question: str) -> str:
        return await model.achat(question)

    answers = env.from_batch(["a", "b"]).map(ask).collect()
    policy = env.submit(autostop=True).metrics().services["model"].policy
    assert answers == ["A", "B"] and policy is not None and policy.retries == 2


def test_a_call_that_is_refused_says_why() -> None:
    env, spoken = LocalEnvironment("refused"), Rate(cost=10, per=FOREVER)
    model = env.service("model", Model, rate=spoken, cost=len, retry=AT_ONCE)
    env.from_batch(["a question too long"]).map(model.chat).collect()
    with pytest.raises(JobFailed, match="the call costs 19, and at most 10 may be spent at once") as failed:
        env.submit(autostop=True)
    cause = failed.value.__cause__
    assert isinstance(cause, ServiceRefused) and isinstance(cause, ServiceError) and cause.reason == "cost_too_large"


@pytest.mark.parametrize("way", ["handle", "name", "future", "awaited"])
def test_calls_beyond_the_rate_wait_for_their_turn_until_the_job_is_cancelled(way: str) -> None:
    asked = threading.Event()

    class Asked(Model):
        def chat(self, question: str) -> str:
            asked.set()
            return super().chat(question)

    env = LocalEnvironment("rate")
    model = env.service("model", Asked, rate=Rate(calls=1, per=FOREVER))
    answers = env.from_batch(["a", "b"]).map(ways(model)[way]).collect()
    job = env.submit()
    assert asked.wait(60)
    while not job.metrics().services["model"].policy.waiting:  # type: ignore[union-attr]
        threading.Event().wait(0.001)
    job.cancel()
    with pytest.raises(JobFailed) as failed:
        job.wait(60)
    report = failed.value.report
    assert report is not None and report.data["cleanliness"] == "clean" and answers in ([], ["A"])


@pytest.mark.parametrize("way", ["handle", "awaited"])
def test_no_more_calls_are_under_way_than_may_be(way: str) -> None:
    most, inside = [0], threading.Semaphore(0)

    class Counts(Service):
        def __init__(self) -> None:
            self.lock, self.inside = threading.Lock(), 0

        def enter(self) -> None:
            with self.lock:
                self.inside += 1
                most[0] = max(most[0], self.inside)

        def leave(self) -> None:
            with self.lock:
                self.inside -= 1

        def ask(self, n: int) -> int:
            self.enter()
            inside.acquire(timeout=0.001)
            self.leave()
            return n

        async def aask(self, n: int) -> int:
            self.enter()
            await asyncio.sleep(0.001)
            self.leave()
            return n

    env = LocalEnvironment("at once")
    counts = env.service("counts", Counts, concurrency=2)

    async def awaits(n: int) -> int:
        return await counts.aask(n)

    numbers = env.from_batch(range(40)).map(awaits if way == "awaited" else counts.ask, in_flight=8).collect()
    policy = env.submit(autostop=True).metrics().services["counts"].policy
    assert numbers == list(range(40)) and most == [2]
    assert policy is not None and policy.waited > 0 and policy.waiting == 0


def test_code_that_is_past_its_timeout_keeps_its_place() -> None:
    goes_on, env = threading.Event(), LocalEnvironment("kept")
    slow: Any = env.service("slow", Stuck, [goes_on], concurrency=Concurrency(1, queue=0))
    quick = slow.with_policy(timeout=0.02)
    told: list[str] = []

    def ask(key: str) -> None:
        with pytest.raises(TimeoutError):
            quick.look(key)
        with pytest.raises(ServiceRefused) as refused:
            slow.look(key)
        told.append(refused.value.reason)
        goes_on.set()

    env.from_batch(["a"]).sink(ask)
    env.submit(autostop=True)
    assert told == ["queue_full"]


@pytest.mark.parametrize("way", ["handle", "awaited"])
def test_calls_are_refused_after_failures_in_a_row(way: str) -> None:
    env = LocalEnvironment("open")
    model = env.service("model", Model, [[OSError("down")] * 9], breaker=Breaker(2, open_for=FOREVER))
    env.from_batch(list("abcd")).map(ways(model)[way], on_error="skip", in_flight=1).collect()
    job = env.submit(autostop=True)
    policy = job.metrics().services["model"].policy
    assert policy is not None and (policy.failed, policy.refused) == (4, 2)
    assert policy.last_error is not None and policy.last_error.endswith("down")
    assert job.report.services["model"]["errors"] == 2


@pytest.mark.parametrize("cost", [-1, 1.5, "3", None])
def test_a_cost_that_is_no_number_is_an_error_of_the_call(cost: Any) -> None:
    env = LocalEnvironment("cost")
    model = env.service("model", Model, rate=5, cost=lambda question: cost)
    env.from_batch(["a"]).map(model.chat).collect()
    with pytest.raises(JobFailed, match="the `cost` of a request is a whole number from 0 on, not"):
        env.submit(autostop=True)


def test_a_job_may_be_submitted_again() -> None:
    env = LocalEnvironment("again")
    model = env.service("model", Model, [[OSError("one")]], retry=AT_ONCE, timeout=FOREVER)
    answers = env.from_batch(["a"]).map(model.chat).collect()
    for _ in range(2):
        env.submit(autostop=True)
    assert answers == ["A", "A"]
    with pytest.raises(ServiceError, match="can be called while a job of its environment runs"):
        model.chat("after")


class Variables(Service):
    def get(self, key: str) -> str:
        return VARIABLE.get()

    async def aget(self, key: str) -> str:
        return VARIABLE.get()

    @batched(1)
    def together(self, keys: list[str]) -> list[str]:
        return [VARIABLE.get()]


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.mark.parametrize("settings", [{"retry": 2}, {"timeout": FOREVER}])
def test_a_method_has_its_callers_context_variables(settings: dict[str, Any]) -> None:
    env = LocalEnvironment("context")
    variables = env.service("variables", Variables, **settings)

    class Sets(MapFunction):
        def execute(self, key: str) -> tuple[str, str, str]:
            VARIABLE.set(key)
            future = self.call_service_async("variables", key, method="get")
            return variables.get(key), variables.together(key), future.result()

    async def awaits(key: str) -> str:
        VARIABLE.set(key)
        return await variables.aget(key)

    got = env.from_batch(["k"]).map(Sets).collect()
    awaited = env.from_batch(["k"]).map(awaits).collect()
    env.submit(autostop=True)
    assert got == [("k", "k", "k")] and awaited == ["k"]
