"""The environment whose jobs run in this process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from logging import INFO
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from . import _sage
from ._arguments import numbered, said, truth, whole
from ._base_environment import BaseEnvironment
from ._config import Timeouts, check_config, log_dir_of, on_signal_of, ray_of
from ._context import Context, JobContext, ServiceCalls
from ._interrupted import Sources, is_by_signal, leave_out_ours
from ._job import Heeding, JobId, Report
from ._jobmanager import JobInfo, JobManager, known
from ._keywords import spelt
from ._kinds import ITERABLE
from ._makers import Maker
from ._pipeline import declared
from ._plan import Step, plan
from ._progress import chosen, shown
from ._running import Run, start
from ._scheduler import BaseScheduler, Started, completes, delays
from ._services import Hooks
from ._session import OF_JOB, written_to
from ._stacks import where_stuck
from ._transformation import Transformation

if TYPE_CHECKING:
    from ._call_policies import CallPolicy
    from ._progress import Wanted
    from .ray._cluster import Cluster


class _Registration(NamedTuple):
    """A service, as the engine registers it."""

    name: str
    factory: Any
    after: list[str]
    #: In a process of its own.
    isolated: bool
    #: What is done for its calls.
    policy: Any


class _Options(NamedTuple):
    """How the engine runs a job: see ``plan.rs``."""

    name: str
    #: Whether the first SIGINT or SIGTERM is a drain that ends in success.
    finishes: bool
    timeouts: Timeouts
    most_queued_calls: int
    queue_bytes: int
    log_dir: Any
    #: Is asked for the stack of a thread that missed a deadline.
    where_stuck: Callable[[int], str | None] = where_stuck


class Observer(Protocol):
    """What sees the jobs of an environment."""

    def begins(self, run: Run) -> AbstractContextManager[None]:
        """A job is started inside of the block: its threads have the context of it."""

    def service(self, name: str, instance: Any) -> Any:
        """What takes the place of a service, for those who call it."""


@spelt
class LocalEnvironment(BaseEnvironment):
    """Declares pipelines and the services they call, and runs them on threads of this process.

    >>> env = LocalEnvironment("squares")
    >>> squares = env.from_batch([1, 2, 3]).map(lambda n: n * n).collect()
    >>> job = env.submit(autostop=True)
    >>> squares
    [1, 4, 9]

    The engine reads these keys of ``config``. ``"timeouts"``: the limits in seconds of ``setup``, ``drain``,
    ``cancel``, ``stop`` and ``cleanup``. ``"most_queued_calls"``: how many asynchronous calls of services may wait for
    a thread (default 1,000); beyond that, ``call_service_async`` itself waits. ``"queue_bytes"``: how many bytes may
    wait between two steps that run on different threads (default 64 MiB; a larger record passes alone); the bytes are
    estimated from a sample of the records and one level of the objects they refer to. ``"on_signal"``: what the first
    SIGINT or SIGTERM does: after ``"drain"`` (the default) the job ends as interrupted and files are not made final;
    ``"finish"`` is like ``stop``: sinks finish, and the job succeeds. ``"log_dir"``: a folder such as ``".sage/logs"``
    for log files of each job; by default that of the environment variable ``SAGE_LOG_DIR``, or none. ``"keep_none"``:
    whether the ``None`` that a ``map`` returns is a record, where the step does not say; it is read when the step is
    declared (default: ``False``). ``"fault_tolerance"``: a new instance takes the place of a function that raised, and
    the record is tried again; the keys of the mapping are SAGE's, see docs/coming-from-sage.md (default: ``None``).
    ``"on_worker_loss"``: what becomes of a worker process that ends by itself, where a step does not say it: see
    ``DataStream`` (default: ``"fail"``).
    Every other key is the program's own, but a key that looks like a misspelt one of these is an error.

    ``scheduler`` is ``"fifo"`` (the default), ``"load_aware"``, or an object with ``make_decision``: see
    ``sage.runtime.BaseScheduler``. ``enable_monitoring`` has no effect: every job has a ``report``.

    ``workers="processes"`` runs each replica of a function in a process of its own, so that Python code uses more than
    one core; what a function needs is pickled with cloudpickle. Sources, sinks, windows and services stay in this
    process. How many replicas there are is as before: say ``parallelism``. ``workers="ray"``: see ``sage.ray``.
    """

    #: Where its jobs run.
    platform = "local"

    env_uuid: JobId | None

    def __init__(
        self,
        name: str = "localenvironment",
        config: Mapping[str, Any] | None = None,
        scheduler: Any = None,
        enable_monitoring: bool = False,
        *,
        workers: str | None = None,
    ) -> None:
        super().__init__(name, config, scheduler, enable_monitoring, workers=workers)
        #: What sees its jobs begin and their services being called: see `integrations`.
        self._observers: list[Observer] = []
        self._consumed: set[Transformation] = set()
        self._started = self.scheduler._started if isinstance(self.scheduler, BaseScheduler) else Started()

    @property
    def uuid(self) -> JobId | None:
        """As ``env_uuid``."""
        return self.env_uuid

    @property
    def jobmanager(self) -> JobManager:
        """The jobs of this process, by their ids.

        >>> env = LocalEnvironment("seen")
        >>> stream = env.from_batch([1]).print()
        >>> job = env.submit(autostop=True)
        1
        >>> env.jobmanager.get_job_status(job)["status"]
        'stopped'
        """
        return JobManager()

    @property
    def client(self) -> JobManager:
        """As ``jobmanager``: it answers the same questions, and there is no daemon to ask."""
        return JobManager()

    @property
    def env_base_dir(self) -> str | None:
        """The folder for what functions of the job write, beside the job's log files; ``None`` if it has none. It is
        known from ``submit`` on.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     env = LocalEnvironment("logged", config={"log_dir": folder})
        ...     numbers = env.from_batch([1]).collect()
        ...     job = env.submit(autostop=True)
        ...     env.env_base_dir.startswith(folder)
        True
        """
        return None if self._run is None else self._run.log_dir

    def get_scheduler_metrics(self) -> dict[str, Any]:
        """How many tasks of this environment's scheduler were started, and how soon: see ``BaseScheduler``.

        >>> env = LocalEnvironment("numbers")
        >>> numbers = env.from_batch([1, 2]).collect()
        >>> job = env.submit(autostop=True)
        >>> env.get_scheduler_metrics()["total_scheduled"]
        1
        """
        metrics = getattr(self.scheduler, "get_metrics", None)
        if callable(metrics):
            told = metrics()
            if not isinstance(told, Mapping):
                raise TypeError(f"`get_metrics` of a scheduler returns a mapping, not {said(told)}")
            return dict(told)
        return self._started.metrics(type(self.scheduler).__name__, self.platform)

    def submit(self, autostop: bool = False, *, progress: Wanted = None) -> JobId:
        """Runs the job. With ``autostop``, waits until it is over and everything is stopped and cleaned. Without,
        returns at once; see ``JobId``, ``stop`` and ``wait``.

        Raises ``JobFailed`` from the user's own exception if the job did not succeed or left something behind, and
        ``KeyboardInterrupt`` or ``SystemExit`` if a signal ended it; in each case after the cleanup.

        While it waits, a line on standard error shows how far the job is, if standard error is a terminal or a notebook
        and the job prints nothing there itself: ``enrich 636/2,000 32 % 19.9/s ETA 1:08 failed 2 retried 14``. At the
        end, one line stays. ``progress=True`` always shows it, ``progress=False`` never; ``"rich"`` and ``"tqdm"`` show
        a bar of these packages; a function is called with the ``JobMetrics`` ten times a second, and once more at the
        end. When a signal ends the job, standard error says what is still being finished, and at the end how far the
        job came, unless ``progress`` is ``False``.

        An environment may be submitted again when its job is over.

        >>> env = LocalEnvironment("numbers")
        >>> halves = env.from_batch([1, 0]).map(lambda n: 1 / n).collect()
        >>> try:
        ...     job = env.submit(autostop=True)
        ... except JobFailed as error:
        ...     print(error)
        job `numbers` failed at operator `lambda → collect`, record 2: in `lambda`: ZeroDivisionError: division by zero
        """
        truth("`autostop`", autostop)
        return self._submit(JobInfo(self, autostop), autostop, progress)

    def _begins(self) -> tuple[list[Transformation], Iterator[float]]:
        """Checks whether a job may begin. Returns the sources that it reads for good, and what asks the scheduler."""
        declared.discard(self)
        check_config(self.config)
        if self.is_running:
            raise RuntimeError(f"`{self.name}` is running; wait for it, or stop it")
        return self._iterators(), delays(self.scheduler, lambda: plan(self._steps, self._context()))

    def _submit(
        self, info: JobInfo, waits: bool, progress: Wanted = None, submitted: float | None = None
    ) -> JobId:
        """Runs the job, which the job manager knows by ``info``, and perhaps waits for it. If it says when the job was
        ``submitted``, the scheduler was asked."""
        shows = chosen(progress, self._steps) if waits else None
        iterators, asked = self._begins()
        if submitted is None:
            submitted = time.time()
            for delay in asked:
                time.sleep(delay)
        open_ends = self._warn_of_open_ends()
        context = self._context()
        calls = ServiceCalls(context, self._bindings)
        policies = self._policies_as_run()
        services = [
            _Registration(
                name,
                self._factory(name, factory, calls, context),
                self._after[name],
                name in self._isolated,
                policies.get(name),
            )
            for name, factory in self._services.items()
        ]
        run = Run(calls, self.name, submitted, Sources(self._steps))
        if progress is not False:
            run.sources = run.input

        def begin(is_on_main: bool) -> None:
            try:
                steps = plan(self._steps, context, open_ends)
                options = self._options(context)
                cluster = self._cluster(steps, context)
                if cluster is not None:
                    calls.places = cluster.places
                    run.at_end.append(cluster.leave)
                for step in steps:
                    if isinstance(step.spec, _sage.Spec.Source) and step.spec.serves:
                        from ._serving import served  # few programs have such a source

                        step.spec = served(step.of[0].made, self._services, self._isolated)
                    if isinstance(step.make, Maker):
                        step.make = step.make.here(calls)

                def bind(handles: dict[str, _sage.Handle], job_id: str, log_dir: str | None) -> None:
                    calls.bind(handles, job_id, log_dir)
                    if cluster is not None:
                        cluster.job = job_id
                    if log_dir is not None:
                        run.at_end.append(written_to(log_dir, self.logger))

                outer = OF_JOB.set(object())
                try:
                    with ExitStack() as around:
                        for observer in self._observers:
                            around.enter_context(observer.begins(run))
                        _sage.start(run, options, is_on_main, steps, services, bind)
                finally:
                    OF_JOB.reset(outer)
                if cluster is not None:
                    run.job.on_end(cluster.release)  # though nobody may wait for it
            except BaseException:
                if not run.goes_on:
                    calls.close()
                    run.ends()
                raise

        with Heeding(run, lambda: self._begun(run, info, iterators)):
            start(run, begin)
            self._begun(run, info, iterators)
            if waits:
                with shown(run, progress, shows):
                    JobId(run).wait()
        return JobId(run)

    def _begun(self, run: Run, info: JobInfo, iterators: list[Transformation]) -> None:
        self._run = run
        self._consumed.update(iterators)
        self.env_uuid = JobId(run)
        if run.info is None:
            info.begins(run)
            known(info)
            self._started.count(run)
            if self.logger.isEnabledFor(INFO):
                steps, services = numbered(len(self.pipeline), "step"), numbered(len(self._services), "service")
                self.logger.info("job %s has begun, with %s and %s", run.job.id, steps, services)
            run.at_end += completes(self.scheduler, run)
            if run.job.is_over:
                run.ends()

    async def submit_async(self, *, progress: Wanted = None) -> JobId:
        """Runs the job while the event loop goes on, and returns when the job is over. Raises what ``submit`` raises.

        If the task that awaits it is cancelled, it cancels the job, and raises ``CancelledError`` after the cleanup.
        ``progress`` is as for ``submit``.

        >>> import asyncio
        >>> async def main():
        ...     env = LocalEnvironment("squares")
        ...     squares = env.from_batch([1, 2, 3]).map(lambda n: n * n).collect()
        ...     await env.submit_async()
        ...     return squares
        >>> asyncio.run(main())
        [1, 4, 9]
        """
        submitted, shows = time.time(), chosen(progress, self._steps)
        for delay in self._begins()[1]:
            import asyncio  # takes longer than all the package

            await asyncio.sleep(delay)
        job = self._submit(JobInfo(self, False), False, progress, submitted)
        assert self._run is not None, "it has just begun"
        with shown(self._run, progress, shows):
            await job._until_over()
        return job

    def _iterators(self) -> list[Transformation]:
        """The sources that can be read only once. Raises if an earlier job has read one."""
        kinds = Iterator, AsyncIterator
        once = [step for step in self._steps if step.kind is ITERABLE and isinstance(step.made[0], kinds)]
        for step in once:
            if step in self._consumed:
                raise _sage.SubmitError(
                    f"the iterator of `{step.name}` can be read once, and an earlier job has read it; "
                    "for several jobs begin with a list, or a BatchFunction"
                )
        return once

    def _doing(self) -> str:
        return "" if self._run is None else f", job {self._run.state}"

    @property
    def job(self) -> JobId | None:
        """The job that was submitted last.

        >>> env = LocalEnvironment("numbers")
        >>> env.job is None
        True
        >>> numbers = env.from_batch([1, 2]).collect()
        >>> env.submit(autostop=True) == env.job
        True
        """
        return None if self._run is None else JobId(self._run)

    @property
    def is_running(self) -> bool:
        """Whether a job of this environment is not over yet.

        >>> from itertools import count
        >>> env = LocalEnvironment("endless")
        >>> stream = env.from_batch(count()).sink(lambda n: None)
        >>> job = env.submit()
        >>> env.is_running
        True
        >>> env.stop()
        >>> env.is_running
        False
        """
        return self._run is not None and self._run.state != "ended"

    def wait(self, timeout: float | None = None) -> Report | None:
        """Waits until the job is over, and returns its report; returns ``None`` if it is not over after ``timeout``
        seconds.

        Raises what ``submit`` raises.

        >>> env = LocalEnvironment("numbers")
        >>> numbers = env.from_batch([1, 2]).collect()
        >>> job = env.submit()
        >>> env.wait().outcome, numbers
        ('succeeded', [1, 2])
        """
        job = self.job
        if job is None:
            raise RuntimeError("no job was submitted")
        return job.wait(timeout)

    def stop(self) -> None:
        """Ends the sources, and waits until the records in flight are finished and everything is cleaned.

        Raises what ``submit`` raises, unless that was raised before. Does nothing if no job was submitted.

        >>> from itertools import count
        >>> env = LocalEnvironment("endless")
        >>> numbers = env.from_batch(count()).take(1_000_000_000).count().collect()
        >>> job = env.submit()
        >>> env.stop()
        >>> job.report.outcome, len(numbers)
        ('succeeded', 1)
        """
        run = self._run
        if run is None or run.is_told:
            return
        with Heeding(run):
            run.job.drain()
            JobId(run).wait()

    def close(self) -> None:
        """As ``stop``, and lets go of the pipeline: another one may be declared then. Services stay registered.

        >>> env = LocalEnvironment("twice")
        >>> first = env.from_batch([1]).collect()
        >>> job = env.submit(autostop=True)
        >>> env.close()
        >>> second = env.from_batch([2]).collect()
        >>> job = env.submit(autostop=True)
        >>> first, second
        ([1], [2])
        """
        with Heeding(self._run):
            self._let_go()
            self._consumed.clear()
            self.stop()

    def __exit__(self, kind: object, *raised: Any) -> None:
        (exception, traceback) = raised
        try:
            super().__exit__(kind, *raised)
        except (KeyboardInterrupt, SystemExit) as ends:
            # One signal has ended the block and the job: what it raised in the block is what goes on.
            if not is_by_signal(exception) or type(exception) is not type(ends):
                raise
            exception.args = exception.args or ends.args
            exception.report = ends.report  # type: ignore[union-attr]
        if is_by_signal(exception):
            leave_out_ours(traceback)

    def _factory(self, name: str, factory: Any, calls: ServiceCalls, job: JobContext) -> Any:
        policy = self._policies.get(name)
        kept = None if policy is None else policy.methods()
        if name in self._isolated:
            from ._isolated import Isolated  # few environments have some
            from ._portable import pickled_service
            from ._stand_in import IsolatedHooks

            pickled = pickled_service(name, factory, job)
            restarts, setup = self._isolated[name].restarts, job.timeouts.setup
            cls = getattr(factory, "service_class", None)
            isolated = partial(Isolated, name, pickled, calls, restarts, setup, name in self._policies_as_run())
            return self._observed(name, lambda left: IsolatedHooks(isolated(), left, cls, kept or ()))
        context = Context(name, calls, self.logger.getChild(name))
        made = partial(Hooks, lambda: factory.create_service(context), calls.loop, kept)
        return self._observed(name, lambda _left: made())

    def _policies_as_run(self) -> dict[str, CallPolicy]:
        """The policies, as the engine takes them. Services that are fallbacks have one as well."""
        if not self._policies:
            return {}
        from ._call_policies import CallPolicy
        from ._verdicts import MADE_AGAIN, judged_by

        others = {other: CallPolicy() for policy in self._policies.values() for other in policy.fallback}
        policies = others | self._policies
        restarted = {name for name, isolation in self._isolated.items() if isolation.restarts}
        return {
            name: policy._replace(judge=judged_by(policy.judge), make_again=MADE_AGAIN if name in restarted else 0)
            for name, policy in policies.items()
        }

    def _observed(self, name: str, make: Callable[[float], Any]) -> Callable[[float], Any]:
        """What makes the hooks of a service whose calls the observers see."""
        observers = list(self._observers)

        def made(left: float) -> Any:
            hooks = make(left)
            for observer in observers:
                hooks.instance = observer.service(name, hooks.instance)
            return hooks

        return made if observers else make

    def _cluster(self, steps: list[Step], job: JobContext) -> Cluster | None:
        """The Ray cluster of the workers that are there."""
        on_ray = [step for step in steps if getattr(step.make, "where", "") == "ray"]
        services = self._isolated if self.workers == "ray" else {}
        if not on_ray and not services:
            return None
        from .ray._cluster import joined
        from .ray._demands import Demand

        demands = [Demand(step.make, step.make.name, False, step.parallelism, step.make.takes) for step in on_ray]
        demands += [Demand(name, name, True, 1, told.takes) for name, told in services.items()]
        return joined(ray_of(self.config), demands, job.timeouts.setup, self.logger)

    def _options(self, context: JobContext) -> _Options:
        config = self.config
        queued_calls = whole("`most_queued_calls`", config.get("most_queued_calls", 1000), 1, 10_000_000)
        queue_bytes = whole("`queue_bytes`", config.get("queue_bytes", 64 << 20), 1, 1 << 62)
        finishes, folder = on_signal_of(config) == "finish", log_dir_of(config)
        return _Options(self.name, finishes, context.timeouts, queued_calls, queue_bytes, folder)
