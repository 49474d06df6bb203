"""What a job has done so far and is doing, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ._arguments import like
from ._keywords import spelt
from ._rates import DONE, Rates

if TYPE_CHECKING:
    from ._running import Run

#: What is between the names of functions that run together.
_TOGETHER = " → "

@dataclass(frozen=True)
class OperatorMetrics:
    """The figures of a step, over all its replicas. Functions that run together are one step here, as in a report.

    >>> env = LocalEnvironment("figures")
    >>> kept = env.from_batch([1, 0, 2]).map(lambda n: 1 / n, name="part", on_error="skip").collect()
    >>> part = env.submit(autostop=True).metrics().operators["part"]
    >>> part.records_in, part.records_out, part.failed
    (3, 2, 1)
    """

    name: str
    parallelism: int
    #: The records that it took; of a source, those that it read.
    records_in: int
    #: The records that it gave; of a sink, those that it wrote.
    records_out: int
    #: The records on which it failed.
    failed: int
    #: How many further attempts ``retry`` made.
    retried: int
    #: The records that came too late for their windows.
    late: int
    #: How many records it took per second, over the last five seconds or ten records, a minute at most; when the job is
    #: over, over all of it.
    rate: float


@dataclass(frozen=True)
class PolicyMetrics:
    """The figures of a service's policy. A call has one attempt or more.

    >>> env = LocalEnvironment("figures")
    >>> prices = env.service("prices", dict, [{"tea": 3}], retry=3)
    >>> kept = env.from_batch(["tea", "tea"]).map(prices.get).collect()
    >>> policy = env.submit(autostop=True).metrics().services["prices"].policy
    >>> policy.calls, policy.attempts, policy.retries
    (2, 2, 0)
    """

    #: The calls that were begun, and those of them that raised: an exception of the service, or one of the policy.
    calls: int
    failed: int
    #: How often a request was sent to the service, or put into a batch; and how often of that it was another time.
    attempts: int
    retries: int
    #: The attempts that took longer than they might.
    timed_out: int
    #: The calls that were not let through, and those that went on to a fallback.
    refused: int
    fallbacks: int
    #: The calls that wait for their turn at the moment, as the service's rate or concurrency says, and how often one
    #: has had to.
    waiting: int
    waited: int
    #: The batches that were sent, and the requests in them.
    batches: int
    batched: int
    #: How often the service was not there, and how many calls were held for that.
    outages: int
    held: int
    #: How often a call was made again, as the service's process was lost while it was inside, and another took its
    #: place.
    made_again: int
    #: Why the last attempt that failed did so, its first 300 characters; ``None`` before the first.
    last_error: str | None
    #: The median and the 99th percentile of how long calls took with all their waits, in seconds, of a sample.
    p50: float | None
    p99: float | None
    #: Its breaker: ``state`` (``closed``, ``open``, ``half_open``), and how often it ``opened``, ``half_opened``,
    #: ``closed`` and ``refused``; ``None`` if there is none.
    breaker: Mapping[str, Any] | None
    #: Its rates and spends: the calls that ``passed``, ``waited``, are ``waiting``, were ``given_back`` and
    #: ``refused``; ``pauses`` that the service asked for; the ``cost`` of those that ended, and ``spent_billionths``.
    rate: Mapping[str, Any] | None
    #: Its limit of calls at once: ``in_flight``, ``limit``, ``waiting``, ``waited``, ``stuck``, ``replaced``,
    #: ``refused`` and ``cuts``.
    concurrency: Mapping[str, Any] | None
    #: For each ``method`` whose answers were kept, its ``cache`` (entries, bytes and hits in memory and on disk,
    #: ``evicted``, ``uncached``) and its ``flight`` (``shared``: equal calls that were made at the same time).
    kept: tuple[Mapping[str, Any], ...]
    #: Its journal: ``entries``, ``bytes``, ``hits``, ``misses``, ``begun_not_ended`` (the idempotency keys of calls
    #: that were out at a kill), ``torn_bytes``, ``erased`` and ``uncached``; ``None`` if nothing was asked of it.
    journal: Mapping[str, Any] | None
    #: What its methods read from answers, summed up: what the answers have in common, ``of``, and the ``sums``.
    tallies: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class ServiceMetrics:
    """The figures of a service. Of calls, one in 64 is timed, but of async methods each.

    >>> env = LocalEnvironment("figures")
    >>> prices = env.service("prices", dict, [{"tea": 3}])
    >>> kept = env.from_batch(["tea", "tea"]).map(prices.get).collect()
    >>> service = env.submit(autostop=True).metrics().services["prices"]
    >>> service.calls, service.in_flight, service.errors
    (2, 0, 0)
    """

    name: str
    #: ``registered``, ``initialising``, ``ready``, ``stopping``, ``cleaning``, ``cleaned``, …
    state: str
    #: The calls that it took, those in flight included.
    calls: int
    #: The calls that it works on at the moment; those of async methods until they were awaited.
    in_flight: int
    #: The calls that raised.
    errors: int
    #: The median and the 99th percentile of how long calls took, in seconds; ``None`` if none was timed.
    p50: float | None
    p99: float | None
    #: What its policy did; ``None`` if it has none.
    policy: PolicyMetrics | None = None


@dataclass(frozen=True)
class TaskMetrics:
    """What a thread of the job does: one replica of the steps that run together. Times are in seconds.

    >>> from threading import Event
    >>> env, goes_on = LocalEnvironment("tasks"), Event()
    >>> kept = env.from_batch([1]).map(lambda n: goes_on.wait(60), name="wait").collect()
    >>> job = env.submit()
    >>> [(task.name, task.blocked_by) for task in job.metrics().tasks]
    [('batch', None)]
    >>> goes_on.set()
    >>> report = job.wait()
    """

    name: str
    #: ``not_started``, ``busy``, ``idle`` (it waits for records), ``blocked`` (it waits for room behind it), ``paused``
    #: or ``ended``.
    doing: str
    #: For how long.
    since: float
    #: What holds it back while it is blocked: the ``pace`` of the next task, or the ``bytes`` or ``blocks`` that wait.
    blocked_by: str | None
    #: How long it was each, since it was started.
    busy: float
    blocked: float
    idle: float


@dataclass(frozen=True)
class QueueMetrics:
    """The records that wait between two steps that run on different threads, or are being worked on behind it.

    >>> from threading import Event
    >>> env, goes_on = LocalEnvironment("queues"), Event()
    >>> kept = env.from_batch([1]).map(lambda n: goes_on.wait(60), name="wait", parallelism=2).collect()
    >>> job = env.submit()
    >>> [(queue.source, queue.target) for queue in job.metrics().queues]
    [('batch', 'wait'), ('wait', 'collect')]
    >>> goes_on.set()
    >>> report = job.wait()
    """

    #: The step that gives them, and the one that takes them.
    source: str
    target: str
    records: int
    #: About how many bytes they have.
    bytes: int


@spelt
@dataclass(frozen=True)
class JobMetrics:
    """What a job has done so far and is doing: see ``JobId.metrics``.

    >>> env = LocalEnvironment("figures")
    >>> kept = env.from_batch(range(1000)).map(abs).collect()
    >>> env.submit(autostop=True).metrics()  # doctest: +ELLIPSIS
    JobMetrics(job='...', environment='figures', state='ended', outcome='succeeded', elapsed=..., done=1000, ...)
    """

    #: The job's id, and the name of its environment.
    job: str
    environment: str
    #: As ``JobId.state``; and when that is ``ended``, how it came out, in one word.
    state: str
    outcome: str | None
    #: How many seconds it has taken since it was submitted.
    elapsed: float
    #: The records that its sources have read, those of them that are finished or dropped, and how many there will be:
    #: ``None`` if that is not known.
    read: int
    done: int
    total: int | None
    #: How many records were done per second, over the last five seconds or ten records, a minute at most; when the job
    #: is over, over all of it.
    rate: float
    #: The records on which steps failed, and the further attempts that they made.
    failed: int
    retried: int
    #: The steps and the services, by their names.
    operators: dict[str, OperatorMetrics] = field(repr=False)
    services: dict[str, ServiceMetrics] = field(repr=False)
    #: The job's threads, and the queues between them; none when the job is over.
    tasks: list[TaskMetrics] = field(repr=False)
    queues: list[QueueMetrics] = field(repr=False)

    def step(self, name: str) -> OperatorMetrics:
        """The figures of a step by its name; of several that run together, those of all of them. Raises ``KeyError`` if
        there is none.

        >>> env = LocalEnvironment("figures")
        >>> kept = env.from_batch([1, 2]).map(abs, name="size").filter(bool, name="some").collect()
        >>> metrics = env.submit(autostop=True).metrics()
        >>> metrics.step("size").name, metrics.step("size").records_in
        ('size → some → collect', 2)
        """
        found = self.operators.get(name)
        together = (row for row in self.operators.values() if name in row.name.split(_TOGETHER))
        row = found or next(together, None)
        if row is None:
            raise KeyError(f"there is no step `{name}`; {like(name, self.operators, 'there is none')}")
        return row

    @property
    def eta(self) -> float | None:
        """In how many seconds the job will be over, at this rate; ``None`` if that cannot be told.

        >>> env = LocalEnvironment("figures")
        >>> kept = env.from_batch([1]).collect()
        >>> env.submit(autostop=True).metrics().eta is None  # as it is over
        True
        """
        if self.total is None or not self.rate or self.state == "ended":
            return None
        return max(self.total - self.done, 0) / self.rate


def of_run(run: Run) -> JobMetrics:
    """The metrics of a job of this process."""
    import json  # few programs ask for them

    state, told = run.state, run.job.metrics_json()
    data: dict[str, Any] = json.loads(told or run.job.report_json or "{}")
    names = {"job": run.job.id, "environment": run.name, "state": "ended" if told is None else state}
    return _metrics(names, data, run.input.names, run.input.all(), run.rates if told is not None else None)


def of_report(job: str, data: Mapping[str, Any]) -> JobMetrics:
    """The metrics of a job of which there is the report."""
    names = {"job": job, "environment": data.get("environment", ""), "state": "ended"}
    return _metrics(names, data, frozenset(), None, None)


def _metrics(
    names: dict[str, str], data: Mapping[str, Any], sources: frozenset[str], total: int | None, rates: Rates | None
) -> JobMetrics:
    rows = data.get("operators", [])
    counts = {row["name"]: row["records_in"] for row in rows}
    read = sum(count for name, count in counts.items() if name in sources)
    done = max(read - data.get("unfinished", data.get("dropped", 0)), 0)
    counts[DONE] = done
    if rates is not None:
        elapsed, per_second = rates.since(counts)
    else:
        elapsed = _seconds(data.get("elapsed")) or 0.0
        per_second = {name: count / elapsed if elapsed else 0.0 for name, count in counts.items()}
    operators = {row["name"]: _operator(row, per_second[row["name"]]) for row in rows}
    return JobMetrics(
        **names,
        outcome=data.get("outcome"),
        elapsed=elapsed,
        read=read,
        done=done,
        total=total,
        rate=per_second[DONE],
        failed=sum(operator.failed for operator in operators.values()),
        retried=sum(operator.retried for operator in operators.values()),
        operators=operators,
        services={row["name"]: _service(row) for row in data.get("services", [])},
        tasks=[_task(row) for row in data.get("tasks", [])],
        queues=[QueueMetrics(row["from"], row["to"], row["records"], row["bytes"]) for row in data.get("queues", [])],
    )


def _operator(row: Mapping[str, Any], rate: float) -> OperatorMetrics:
    return OperatorMetrics(
        name=row["name"],
        parallelism=row["parallelism"],
        records_in=row["records_in"],
        records_out=row["records_out"],
        failed=row["failed"],
        retried=row["retries"],
        late=row["late"],
        rate=rate,
    )


def _service(row: Mapping[str, Any]) -> ServiceMetrics:
    p50, p99 = _seconds(row["p50"]), _seconds(row["p99"])
    policy = _policy(row["policy"]) if row.get("policy") else None
    return ServiceMetrics(row["name"], row["state"], row["calls"], row["calls_inside"], row["errors"], p50, p99, policy)


def _policy(row: Mapping[str, Any]) -> PolicyMetrics:
    counts = {each.name: row.get(each.name) or 0 for each in fields(PolicyMetrics)}
    counts["retries"] = row["retries"]["scheduled"]
    limits = [row.get("rate") or {}, row.get("concurrency") or {}]
    counts |= {name: sum(limit.get(name, 0) for limit in limits) for name in ("waiting", "waited")}
    others = {name: row.get(name) for name in ("last_error", "breaker", "rate", "concurrency", "journal")}
    others |= {name: tuple(row.get(name) or ()) for name in ("kept", "tallies")}
    others |= {"p50": _seconds(row["p50"]), "p99": _seconds(row["p99"])}
    return PolicyMetrics(**counts | others)


def _task(row: Mapping[str, Any]) -> TaskMetrics:
    since, busy, blocked, idle = (_seconds(row[name]) or 0.0 for name in ("since", "busy", "blocked", "idle"))
    return TaskMetrics(row["name"], row["doing"], since, row["blocked_by"], busy, blocked, idle)


def _seconds(duration: Mapping[str, int] | None) -> float | None:
    return None if duration is None else duration["secs"] + duration["nanos"] / 1e9
