"""Jobs in other systems, with the real packages: OpenTelemetry's spans, and figures that Prometheus scrapes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from sage import BaseService, JobFailed, LocalEnvironment, MapFunction, RemoteEnvironment, SubmitError
from sage.integrations.opentelemetry import trace
from sage.integrations.prometheus import JobCollector


class Traces:
    """What was exported."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exported = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exported))

    def named(self, begin: str) -> list[ReadableSpan]:
        return [span for span in self._exported.get_finished_spans() if span.name.startswith(begin)]

    def one(self, begin: str) -> ReadableSpan:
        (span,) = self.named(begin)
        return span


@pytest.fixture
def traces() -> Iterator[Traces]:
    made = Traces()
    yield made
    made.provider.shutdown()


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def own(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


class Slow(BaseService):
    def plain(self, n: int) -> int:
        return n

    async def later(self, n: int) -> int:
        await asyncio.sleep(0.02)
        return n


class Prices(BaseService):
    def setup(self) -> None:
        self.prices = {"tea": 3}

    def of(self, name: str) -> int:
        return self.prices[name]

    async def later(self, name: str) -> int:
        return self.prices[name]


def test_a_job_is_a_span_below_the_callers_with_its_tasks_below_it(traces: Traces) -> None:
    tracer = traces.provider.get_tracer("program")
    env = trace(LocalEnvironment("orders"), tracer_provider=traces.provider)

    def work(n: int) -> int:
        with tracer.start_as_current_span("in a function"):
            return n

    env.from_batch([1, 2]).map(work, name="work").keyby(abs).count(parallelism=2).collect()
    with tracer.start_as_current_span("the program's") as outer:
        job = env.submit(autostop=True)
    span = traces.one("job orders")
    assert parent(span) == outer.get_span_context().span_id
    assert span.attributes == {"sage.environment": "orders", "sage.job": str(job)}
    assert span.status.status_code is api.StatusCode.OK
    tasks = traces.named("task ")
    ran = [each for each in job._run.job.history() if each[1] == "task" and each[3] == "running"]
    assert len(tasks) == len(ran) > 1
    for task in tasks:
        assert parent(task) == own(span) and task.attributes is not None and task.attributes["sage.state"] == "finished"
        assert span.start_time is not None and span.end_time is not None
        assert task.start_time is not None and task.end_time is not None
        # The engine's moments and the span's are of two clocks, which agree to a few milliseconds.
        assert span.start_time - 50_000_000 <= task.start_time <= task.end_time <= span.end_time + 50_000_000
    assert [parent(each) for each in traces.named("in a function")] == [own(span)] * 2
    assert api.get_current_span() is api.INVALID_SPAN, "nothing of it is left here"


def test_a_failed_job_is_an_error_with_the_exception(traces: Traces) -> None:
    env = trace(LocalEnvironment("failing"), tracer_provider=traces.provider)
    env.from_batch([0]).map(lambda n: 1 // n).collect()
    with pytest.raises(JobFailed):
        env.submit(autostop=True)
    span = traces.one("job failing")
    assert span.status.status_code is api.StatusCode.ERROR and "failed" in (span.status.description or "")
    assert [event.attributes["exception.type"] for event in span.events if event.attributes] == ["ZeroDivisionError"]


def test_a_job_that_cannot_begin_is_an_error_and_the_next_one_a_span_of_its_own(traces: Traces) -> None:
    env = trace(LocalEnvironment("refused"), tracer_provider=traces.provider)
    env.register_service("db", Prices)
    env.service("other", Prices, after=["missing"])
    env.from_batch([1]).collect()
    with pytest.raises(SubmitError):
        env.submit(autostop=True)
    assert traces.one("job refused").status.status_code is api.StatusCode.ERROR


@pytest.mark.parametrize("one_call_in", [1, 3, 64])
def test_some_calls_of_services_are_spans_below_what_calls_them(traces: Traces, one_call_in: int) -> None:
    tracer = traces.provider.get_tracer("program")
    env = trace(LocalEnvironment("calls"), tracer_provider=traces.provider, one_call_in=one_call_in)
    prices = env.service("prices", Prices)
    env.register_service("named", Prices)

    class Ask(MapFunction):
        def execute(self, n: int) -> int:
            with tracer.start_as_current_span("asking"):
                return int(self.call_service("named", "tea", method="of")) + prices.of("tea")

    class Wait(MapFunction):
        async def execute(self, n: int) -> int:
            return int(await self.call_service("named", "tea", method="later"))

    asked = env.from_batch(range(9)).map(Ask).collect()
    waited = env.from_batch(range(9)).map(Wait, in_flight=3).collect()
    report = env.submit(autostop=True).report
    assert asked == [6] * 9 and waited == [3] * 9
    assert (report.services["named"]["calls"], report.services["prices"]["calls"]) == (18, 9)
    most = -(-9 // one_call_in)
    asking = {own(span) for span in traces.named("asking")}
    for name in ("named.of", "prices.of"):
        spans = traces.named(name)
        assert len(spans) == most and all(parent(span) in asking for span in spans)
        assert spans[0].attributes == {"sage.service": name.partition(".")[0], "sage.method": "of"}
    job = own(traces.one("job calls"))
    assert [parent(span) for span in traces.named("named.later")] == [job] * most


def test_a_call_that_raises_is_an_error_and_a_wrong_method_is_told_as_ever(traces: Traces) -> None:
    env = trace(LocalEnvironment("wrong"), tracer_provider=traces.provider, one_call_in=1)
    prices = env.service("prices", Prices)
    said: list[str] = []

    def ask(name: str) -> int:
        try:
            return prices.of(name)
        except KeyError:
            said.append("no price")
        try:
            return prices.off(name)  # type: ignore[attr-defined, no-any-return]
        except AttributeError as error:
            said.append(str(error))
        return 0

    env.from_batch(["coffee"]).map(ask).collect()
    env.submit(autostop=True)
    assert said == ["no price", "`Prices` has no method `off`; did you mean one of these: of?"]
    assert traces.one("prices.of").status.status_code is api.StatusCode.ERROR


def test_calls_of_a_service_in_a_process_of_its_own_are_spans(traces: Traces) -> None:
    env = trace(LocalEnvironment("apart"), tracer_provider=traces.provider, one_call_in=1)
    prices = env.service("prices", Slow, isolated=True)

    class Wait(MapFunction):
        async def execute(self, n: int) -> int:
            return await prices.later(n)

    waited = env.from_batch(range(2)).map(Wait).collect()
    asked = env.from_batch(range(2)).map(prices.plain).collect()
    env.submit(autostop=True)
    assert waited == asked == [0, 1]
    job = own(traces.one("job apart"))
    assert [parent(span) for span in traces.named("prices.")] == [job] * 4
    for span in traces.named("prices.later"):
        assert span.start_time is not None and span.end_time is not None
        assert span.end_time - span.start_time >= 10_000_000, "until it was awaited"


def test_only_jobs_of_this_process_can_be_traced() -> None:
    with pytest.raises(TypeError, match="`trace` is for environments whose jobs run in this process"):
        trace(RemoteEnvironment("far"))  # type: ignore[type-var]
    with pytest.raises(ValueError, match="`one_call_in` is a whole number"):
        trace(LocalEnvironment("none"), one_call_in=0)


# ---- Prometheus

Samples = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def scraped() -> Iterator[Any]:
    """Scrapes a registry over HTTP: the values, by name and labels but the pipeline's."""
    registry = CollectorRegistry()
    collector = JobCollector(registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)

    def scrape(pipeline: str) -> Samples:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        found: Samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = dict(sample.labels)
                if labels.pop("pipeline") == pipeline:
                    key = sample.name, tuple(labels.values())
                    assert key not in found, "each is told once"
                    found[key] = sample.value
        return found

    yield scrape
    server.shutdown()
    server.server_close()
    thread.join()
    collector.close()


def test_a_scrape_tells_of_a_job_while_it_runs_and_when_it_is_over(scraped: Any) -> None:
    env = LocalEnvironment("scraped")
    prices = env.service("prices", Prices)
    began, ends = threading.Event(), threading.Event()

    def price(name: str) -> int:
        try:
            return prices.of(name)
        finally:
            if name == "tea":
                began.set()
                assert ends.wait(60)

    names = env.from_batch(["coffee", "tea", "tea"], name="names").map(price, name="price", on_error="skip")
    names.keyby(abs).count(parallelism=2).collect()
    job = env.submit()
    assert began.wait(60)
    while scraped("scraped").get(("sage_step_failed_total", ("price",))) != 1.0:
        pass
    now = scraped("scraped")
    assert now["sage_running", ()] == 1.0 and now["sage_records_expected", ()] == 3.0
    assert now["sage_service_calls_total", ("prices",)] == 2.0 and now["sage_service_errors_total", ("prices",)] == 1.0
    assert now["sage_elapsed_seconds", ()] > 0.0
    assert any(name == "sage_task_seconds_total" and "busy" in labels for name, labels in now)
    assert any(name == "sage_queue_records" for name, _ in now)
    ends.set()
    job.wait()
    then = scraped("scraped")
    assert then["sage_running", ()] == 0.0 and then["sage_records_done_total", ()] == 3.0
    assert then["sage_step_records_in_total", ("price",)] == 3.0
    assert then["sage_step_records_out_total", ("price",)] == 2.0
    env.submit(autostop=True)
    assert scraped("scraped")["sage_records_done_total", ()] == 3.0, "it is that of the last job of this name"
    assert scraped("another") == {}


# ---- as they are imported


def test_neither_is_imported_unless_it_is_used_and_each_names_what_to_install() -> None:
    program = """
import sys
import sage
from sage import LocalEnvironment

env = LocalEnvironment("x")
env.from_batch([1]).collect()
env.submit(autostop=True).metrics()
assert not {"opentelemetry", "prometheus_client", "rich", "tqdm", "IPython"} & set(sys.modules)
for module in ("opentelemetry", "prometheus_client"):
    sys.modules[module] = None
for name in ("opentelemetry", "prometheus"):
    try:
        __import__(f"sage.integrations.{name}")
    except ImportError as error:
        print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines() == [
        "`sage.integrations.opentelemetry` needs OpenTelemetry: pip install 'sage-dataflow[opentelemetry]'",
        "`sage.integrations.prometheus` needs prometheus_client: pip install 'sage-dataflow[prometheus]'",
    ]
