"""Figures of jobs for Prometheus: ``pip install 'sage-dataflow[prometheus]'``.

>>> from prometheus_client import start_http_server
>>> from sage.integrations.prometheus import JobCollector
>>> jobs = JobCollector()  # in the registry that `start_http_server(8000)` serves
>>> env = LocalEnvironment("orders")
>>> kept = env.from_batch([1, 2]).map(abs).collect()
>>> job = env.submit(autostop=True)
>>> [sample.value for family in jobs.collect() for sample in family.samples if sample.name == "sage_records_done_total"]
[2.0]
>>> jobs.close()
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise ImportError(
        "`sage.integrations.prometheus` needs prometheus_client: pip install 'sage-dataflow[prometheus]'",
        name=missing.name,
    ) from missing

from .._jobmanager import JobManager
from .._keywords import spelt
from .._metrics import JobMetrics, of_run

__all__ = ["JobCollector"]


@spelt
class JobCollector(Collector):
    """Tells a registry of prometheus_client of the jobs of this process, when it is scraped.

    Of each environment's name it tells of the job that was submitted last, as long as that runs or the program holds
    its id or its environment. ``pipeline`` is the label for that name; others are ``step``, ``source`` and ``target``
    of queues, ``task`` and ``service``. ``registry`` is by default the one of the process.

    >>> from sage.integrations.prometheus import JobCollector
    >>> jobs = JobCollector()
    >>> jobs.close()  # it is in the registry no more
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = REGISTRY if registry is None else registry
        self._registry.register(self)

    def close(self) -> None:
        """Leaves the registry.

        >>> from sage.integrations.prometheus import JobCollector
        >>> JobCollector().close()
        """
        self._registry.unregister(self)

    def describe(self) -> list[Metric]:
        """Nothing: so the registry asks for no figures when this is registered.

        >>> from sage.integrations.prometheus import JobCollector
        >>> jobs = JobCollector()
        >>> jobs.describe()
        []
        >>> jobs.close()
        """
        return []

    def collect(self) -> Iterator[Metric]:
        """The figures.

        >>> from sage.integrations.prometheus import JobCollector
        >>> jobs = JobCollector()
        >>> "sage_step_records_in" in [family.name for family in jobs.collect()]
        True
        >>> jobs.close()
        """
        families = _Families()
        for metrics in _jobs():
            families.add(metrics)
        yield from families.all.values()


def _jobs() -> list[JobMetrics]:
    """Those of the jobs that are there, the last one of each name."""
    last: dict[str, Any] = {}
    for info in JobManager().jobs.values():
        run = info._run()
        if run is not None and hasattr(run, "job") and (info.name not in last or last[info.name][0] <= run.submitted):
            last[info.name] = run.submitted, run
    return [of_run(run) for _, run in last.values()]


#: The families: name, what it is, whether it only grows, and the labels besides ``pipeline``.
_FAMILIES: dict[str, tuple[str, bool, tuple[str, ...]]] = {
    "sage_running": ("Whether the job runs.", False, ()),
    "sage_elapsed_seconds": ("How long the job has run.", False, ()),
    "sage_records_read": ("Records that the sources have read.", True, ()),
    "sage_records_done": ("Records that are finished.", True, ()),
    "sage_records_expected": ("Records that there will be, where that is known.", False, ()),
    "sage_step_records_in": ("Records that a step took.", True, ("step",)),
    "sage_step_records_out": ("Records that a step gave.", True, ("step",)),
    "sage_step_failed": ("Records on which a step failed.", True, ("step",)),
    "sage_step_retries": ("Further attempts of a step.", True, ("step",)),
    "sage_step_late": ("Records that came too late for their windows.", True, ("step",)),
    "sage_queue_records": ("Records that wait between two steps.", False, ("source", "target")),
    "sage_queue_bytes": ("Bytes that wait between two steps.", False, ("source", "target")),
    "sage_task_seconds": ("How long a task was busy, blocked or idle.", True, ("task", "doing")),
    "sage_service_calls": ("Calls of a service.", True, ("service",)),
    "sage_service_errors": ("Calls of a service that raised.", True, ("service",)),
    "sage_service_calls_in_flight": ("Calls that a service works on.", False, ("service",)),
    "sage_service_latency_seconds": ("How long calls of a service take.", False, ("service", "quantile")),
}


class _Families:
    """The figures of several jobs."""

    def __init__(self) -> None:
        self.all: dict[str, Metric] = {}
        for name, (words, grows, labels) in _FAMILIES.items():
            family = CounterMetricFamily if grows else GaugeMetricFamily
            self.all[name] = family(name, words, labels=("pipeline", *labels))

    def add(self, metrics: JobMetrics) -> None:
        """Adds those of a job."""

        def put(name: str, value: float | None, *labels: str) -> None:
            if value is not None:
                self.all[f"sage_{name}"].add_metric((metrics.environment, *labels), value)  # type: ignore[attr-defined]

        put("running", metrics.state != "ended")
        put("elapsed_seconds", metrics.elapsed)
        put("records_read", metrics.read)
        put("records_done", metrics.done)
        put("records_expected", metrics.total)
        for step in metrics.operators.values():
            put("step_records_in", step.records_in, step.name)
            put("step_records_out", step.records_out, step.name)
            put("step_failed", step.failed, step.name)
            put("step_retries", step.retried, step.name)
            put("step_late", step.late, step.name)
        waiting: dict[tuple[str, str], tuple[int, int]] = {}
        for queue in metrics.queues:
            records, size = waiting.get((queue.source, queue.target), (0, 0))
            waiting[queue.source, queue.target] = records + queue.records, size + queue.bytes
        for (source, target), (records, size) in waiting.items():
            put("queue_records", records, source, target)
            put("queue_bytes", size, source, target)
        spent: dict[tuple[str, str], float] = {}
        for task in metrics.tasks:
            for doing, seconds in (("busy", task.busy), ("blocked", task.blocked), ("idle", task.idle)):
                spent[task.name, doing] = spent.get((task.name, doing), 0.0) + seconds
        for (name, doing), seconds in spent.items():
            put("task_seconds", seconds, name, doing)
        for service in metrics.services.values():
            put("service_calls", service.calls, service.name)
            put("service_errors", service.errors, service.name)
            put("service_calls_in_flight", service.in_flight, service.name)
            put("service_latency_seconds", service.p50, service.name, "0.5")
            put("service_latency_seconds", service.p99, service.name, "0.99")
