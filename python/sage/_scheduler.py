"""Schedulers, as SAGE's environments take them: they are asked about each task before it starts, and tell how many were
started, and how soon.

On threads of one process all tasks start together and the system shares the cores among them, so a policy of placement
has nothing to choose here: the two that have a name differ in that only.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ._arguments import said, seconds, text, whole
from ._keywords import spelt
from ._sage import tasks

if TYPE_CHECKING:
    from ._plan import Step
    from ._running import Run
    from ._transformation import Transformation


@spelt
@dataclass
class PlacementDecision:
    """What a scheduler decides about a task. Here ``delay`` has an effect; the rest is for clusters."""

    target_node: str | None = None
    resource_requirements: dict[str, Any] | None = None
    #: How many seconds ``submit`` waits before it goes on to the next task; ``submit_async`` awaits them.
    delay: float = 0.0
    immediate: bool = True
    placement_strategy: str = "default"
    affinity_tasks: list[str] | None = None
    anti_affinity_tasks: list[str] | None = None
    reason: str = ""
    priority: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def immediate_default(cls, reason: str = "") -> PlacementDecision:
        """To start at once, wherever there is room."""
        return cls(reason=reason or "at once")

    @classmethod
    def with_resources(
        cls, cpu: float | None = None, gpu: float | None = None, memory: int | str | None = None, reason: str = ""
    ) -> PlacementDecision:
        """To start at once, where there are these resources."""
        wanted = {"cpu": cpu, "gpu": gpu, "memory": memory}
        there = {name: amount for name, amount in wanted.items() if amount is not None}
        return cls(resource_requirements=there or None, reason=reason or f"needs {there}")

    @classmethod
    def with_node(cls, node_id: str, strategy: str = "default", reason: str = "") -> PlacementDecision:
        """To start at once, on this node."""
        return cls(target_node=node_id, placement_strategy=strategy, reason=reason or f"on node {node_id}")

    @classmethod
    def with_delay(cls, delay_seconds: float, reason: str = "") -> PlacementDecision:
        """To start after so many seconds."""
        return cls(delay=delay_seconds, immediate=False, reason=reason or f"after {delay_seconds} s")


class TaskNode(NamedTuple):
    """A task that is about to start: one replica of steps that run on one thread."""

    #: As in the report, with ``/`` and the number of the replica where there are several.
    name: str
    #: Its steps, in the order of the records' way; and the first of them.
    transformations: tuple[Transformation, ...]
    transformation: Transformation | None
    parallel_index: int
    parallelism: int


class Started:
    """How many tasks were started, and how soon."""

    def __init__(self) -> None:
        self._tasks = 0
        self._seconds = 0.0
        #: The jobs whose tasks are not counted yet.
        self._runs: list[Run] = []
        self._lock = threading.Lock()

    def count(self, run: Run) -> None:
        """Counts the tasks of this job too."""
        with self._lock:
            over, self._runs = self._runs, [run]
            for before in over:
                if before.job.state == "ended":
                    self._tasks, self._seconds = self._with(before)
                else:
                    self._runs.append(before)

    def _with(self, run: Run) -> tuple[int, float]:
        begins = [at for at, what, _, state in run.job.history() if what == "task" and state == "running"]
        return self._tasks + len(begins), self._seconds + sum(begins) - len(begins) * run.submitted

    def metrics(self, kind: str, platform: str) -> dict[str, Any]:
        """See ``BaseScheduler.get_metrics``."""
        with self._lock:
            counted = [self._with(run) for run in self._runs]
            tasks = self._tasks + sum(tasks - self._tasks for tasks, _ in counted)
            latency = self._seconds + sum(latency - self._seconds for _, latency in counted)
        average = 1000 * latency / tasks if tasks else 0.0
        told = {"scheduler_type": kind, "total_scheduled": tasks, "avg_latency_ms": average}
        return {**told, "decisions": tasks, "platform": platform}


class BaseScheduler(ABC):
    """Is asked about each task of a job before it starts: override ``make_decision``.

    >>> from sage.runtime import BaseScheduler, PlacementDecision
    >>> class Noted(BaseScheduler):
    ...     def make_decision(self, task_node):
    ...         print("starts", task_node.name)
    ...         return PlacementDecision.immediate_default("noted")
    >>> env = LocalEnvironment("noted", scheduler=Noted())
    >>> squares = env.from_batch([1, 2]).map(lambda n: n * n, name="square").collect()
    >>> job = env.submit(autostop=True)
    starts batch
    """

    platform = "local"

    #: For a subclass that counts by itself; ``get_metrics`` does not read them.
    scheduled_count = 0

    @cached_property
    def decision_history(self) -> list[PlacementDecision]:
        """For a subclass that keeps its decisions."""
        return []

    @cached_property
    def _started(self) -> Started:
        return Started()

    def __getstate__(self) -> dict[str, Any]:
        # What was started in this process was not in another.
        return {name: value for name, value in vars(self).items() if name != "_started"}

    @abstractmethod
    def make_decision(self, task_node: TaskNode) -> PlacementDecision:
        """What to do with a task. ``submit`` calls it, on its thread, for each task of the job, before anything is
        started. What it raises, ``submit`` raises."""

    def get_metrics(self) -> dict[str, Any]:
        """How the tasks were started: ``scheduler_type``, the name of the class; ``total_scheduled``, how many were;
        ``avg_latency_ms``, how long after ``submit``, on average; ``decisions``, one for each; and ``platform``.

        >>> from sage.runtime import FIFOScheduler
        >>> scheduler = FIFOScheduler()
        >>> env = LocalEnvironment("numbers", scheduler=scheduler)
        >>> numbers = env.from_batch([1, 2]).collect()
        >>> job = env.submit(autostop=True)
        >>> scheduler.get_metrics()["scheduler_type"]
        'FIFO'
        """
        return self._started.metrics(type(self).__name__.removesuffix("Scheduler"), self.platform)

    def task_completed(self, task_name: str) -> None:
        """Called for each task, when the job is over."""

    def shutdown(self) -> None:
        """Lets go of what it has; by default it has nothing. The program calls it."""


@spelt
class FIFOScheduler(BaseScheduler):
    """Starts the tasks in their order, at once. This is the default."""

    def __init__(self, platform: str = "local") -> None:
        self.platform = text("`platform`", platform)

    def make_decision(self, task_node: Any) -> PlacementDecision:
        """At once."""
        return PlacementDecision.immediate_default()


@spelt
class LoadAwareScheduler(FIFOScheduler):
    """As ``FIFOScheduler``: see above. ``max_concurrent`` and ``strategy`` are kept, and have no effect here."""

    def __init__(self, platform: str = "local", max_concurrent: int = 10, strategy: str = "balanced") -> None:
        super().__init__(platform)
        self.max_concurrent = whole("`max_concurrent`", max_concurrent)
        self.strategy = text("`strategy`", strategy)


_NAMED = {"fifo": FIFOScheduler, "load_aware": LoadAwareScheduler, "loadaware": LoadAwareScheduler}


def scheduler_of(scheduler: Any) -> Any:
    """The scheduler that an environment was given: a name, an object with ``make_decision``, or ``None``."""
    if scheduler is None:
        return FIFOScheduler()
    if isinstance(scheduler, str):
        try:
            return _NAMED[scheduler.lower()]()
        except KeyError:
            names = "`fifo` or `load_aware`"
            raise ValueError(f"`scheduler` is {names}, or an object with `make_decision`, not {scheduler!r}") from None
    if isinstance(scheduler, type) or not callable(getattr(scheduler, "make_decision", None)):
        hint = "; pass an object of it" if isinstance(scheduler, type) else ""
        raise TypeError(f"`scheduler` is a name or an object with `make_decision`, not {scheduler!r}{hint}")
    return scheduler


def delays(scheduler: Any, planned: Callable[[], list[Step]]) -> Iterator[float]:
    """Asks a scheduler about the tasks of a job. Gives how long to wait before the next question, where it says so."""
    if getattr(scheduler.make_decision, "__func__", None) is FIFOScheduler.make_decision:
        return
    steps = planned()
    made_of = {step.name: step.of for step in steps}
    for name, operators, replica, parallelism in tasks(steps):
        of = tuple(step for operator in operators for step in made_of.get(operator, ()))
        decision = scheduler.make_decision(TaskNode(name, of, of[0] if of else None, replica, parallelism))
        if decision is not None and not hasattr(decision, "delay"):
            raise TypeError(
                f"`make_decision` of a scheduler returns a `PlacementDecision`, or `None`, not {said(decision)}"
            )
        delay = seconds("`delay` of a scheduler's decision", getattr(decision, "delay", 0.0))
        if delay:
            yield delay


def completes(scheduler: Any, run: Run) -> list[Callable[[], None]]:
    """What is to be called when a job is over, for a scheduler that wants to know of its tasks."""
    tell = getattr(scheduler, "task_completed", None)
    if not callable(tell) or getattr(tell, "__func__", None) is BaseScheduler.task_completed:
        return []

    def complete() -> None:
        # The job has ended as it has, whatever a scheduler makes of it.
        for name in {name: None for _, what, name, state in run.job.history() if what == "task" and state != "created"}:
            try:
                tell(name)
            except Exception:
                message = "`task_completed` of the scheduler failed for task `%s`"
                logging.getLogger(f"sage.{run.name}").exception(message, name)

    return [complete]
