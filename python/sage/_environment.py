"""Environments: where pipelines and services are declared, and run."""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import isgeneratorfunction
from typing import Any, NoReturn, TypeVar, cast
from weakref import WeakSet

from . import _sage
from ._arguments import SAGE_ONLY, check_call, check_none_left, parameters, seconds, text, truth, warn, whole
from ._awaiting import check_hook
from ._config import check_config, on_signal_of, timeouts_of
from ._context import Context, ServiceCalls
from ._counts import parts_of
from ._functions import BaseFunction, KafkaSourceFunction, Made, allocate, is_function_class
from ._handles import ServiceHandle, name_of_service
from ._interrupted import Sources
from ._job import JobId, Report
from ._pickling import refuse
from ._plan import Step, plan
from ._policies import retried
from ._progress import shown
from ._running import Run, start
from ._services import Hooks
from ._stacks import where_stuck
from ._stream import DataStream, check_not_async, check_parallelism, name_of
from ._transformation import Transformation


T = TypeVar("T")

#: Environments with a stream that ends, of which nobody has asked for anything yet.
_declared: WeakSet[LocalEnvironment] = WeakSet()


_FORGOTTEN = "{} was declared and never submitted, so nothing ran: call `submit(autostop=True)`"


@atexit.register
def _warn_of_declared() -> None:
    """Warns of pipelines that a program declared and did not run, unless it ends by an exception."""
    forgotten = sorted(env.name for env in list(_declared))
    if forgotten and not hasattr(sys, "last_value"):
        names = ", ".join(f"`{name}`" for name in forgotten[:3]) + (", …" if len(forgotten) > 3 else "")
        warn(_FORGOTTEN.format(names))


@dataclass
class _Registration:
    name: str
    factory: Any
    after: list[str]


class LocalEnvironment:
    """Declares pipelines and the services they call, and runs them on threads of this process.

    >>> env = LocalEnvironment("squares")
    >>> squares = env.from_batch([1, 2, 3]).map(lambda n: n * n).collect()
    >>> job = env.submit(autostop=True)
    >>> squares
    [1, 4, 9]

    Of ``config``, the engine reads ``"timeouts"``, the limits in seconds of ``setup``, ``drain``, ``cancel``,
    ``stop`` and ``cleanup``; ``"most_queued_calls"``, how many asynchronous calls of services may wait for a
    thread (default 1,000), beyond which ``call_service_async`` waits itself; ``"queue_bytes"``, how many bytes may
    wait between two steps that run on threads of their own, as estimated by a sample of the records and one level
    of what they refer to (default 64 MiB; a larger record passes alone); ``"on_signal"``, what the first
    SIGINT or SIGTERM does: ``"drain"`` (the default), after which the job ends as interrupted and files are not
    made final, or ``"finish"``, which is like ``stop``: sinks finish, and the job succeeds; and ``"log_dir"``, a
    folder such as ``".sage/logs"`` for log files of each job; there are none unless it is set. Every other key
    is the program's own, but for one that looks like one of these misspelt, which is an error.
    """

    def __init__(self, name: str = "localenvironment", config: Mapping[str, Any] | None = None) -> None:
        self.name = text("the name of an environment", name)
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(f"`config` is a mapping, not {config!r}; `load_config` reads a file")
        self.config: dict[str, Any] = dict(config or {})
        check_config(self.config)
        self.pipeline: list[Transformation] = []
        self._services: dict[str, Made] = {}
        self._after: dict[str, list[str]] = {}
        self._bindings: dict[str, _sage.Binding] = {}
        self._run: Run | None = None
        self._consumed: set[Transformation] = set()
        self._is_closed = False
        self._names: dict[str, int] = {}

    @cached_property
    def env_uuid(self) -> str:
        """A UUID of this environment."""
        from uuid import uuid4  # takes longer than most of the package

        return str(uuid4())

    @cached_property
    def logger(self) -> logging.Logger:
        """The logger of this environment, ``sage.`` and its name."""
        return logging.getLogger(f"sage.{self.name}")

    def __enter__(self) -> LocalEnvironment:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is not None:
            _declared.discard(self)
        self.close()

    def _has_sink(self) -> None:
        """A stream of it ends: from now on it is one to be submitted."""
        if self._run is None:
            _declared.add(self)

    def _named(self, name: str) -> str:
        """The name of a new step, with a number where it is taken."""
        self._check_open()
        text("the name of a step", name)
        number = self._names[name] = self._names.get(name, 0) + 1
        return name if number == 1 else f"{name}-{number}"

    def _source(
        self, kind: str, function: Any, args: Any, kwargs: Any, name: str | None, parallelism: int
    ) -> DataStream:
        if kind != "iterable":
            check_not_async("from_source" if kind == "source" else "from_batch", function, name)
        step = Transformation(kind, self._named(name or name_of(function)), (function, args, kwargs))
        step.parallelism = check_parallelism(parallelism)
        self.pipeline.append(step)
        return DataStream(self, step)

    def from_batch(self, records: Any, *args: Any, name: str | None = None, **kwargs: Any) -> DataStream:
        """The records of a ``BatchFunction`` class, or of any iterable: ``None`` in a list is a record like others.
        An iterator is closed when the job is over, if it has ``close``, as generators have; but not one that is made
        for ``with``, such as a file."""
        if is_function_class(records):
            kwargs = _for_constructor(records, args, kwargs)
            return self._source("batch", records, args, kwargs, name, 1)
        if not isinstance(records, Iterable):
            hint = ""
            if isinstance(records, BaseFunction):
                hint = f"; pass the class `{type(records).__name__}` and its arguments, not an object of it"
            elif callable(records):
                hint = f"; pass what `{name_of(records)}` returns, by calling it"
            raise TypeError(f"`from_batch` needs a BatchFunction class or an iterable, not {records!r}{hint}")
        check_none_left("from_batch", args, {key: kwargs[key] for key in kwargs.keys() - SAGE_ONLY}, ("name",))
        _warn_of(records)
        return self._source("iterable", records, (), {}, name or "batch", 1)

    def from_collection(self, records: Any, *args: Any, **kwargs: Any) -> DataStream:
        """As ``from_batch``."""
        return self.from_batch(records, *args, **kwargs)

    def from_source(self, function: Any, *args: Any, name: str | None = None, **kwargs: Any) -> DataStream:
        """The records of a ``SourceFunction`` class, or of a callable that returns one at a time.

        The stream ends when a ``StopSignal`` is returned, or with the job. ``KafkaSourceFunction`` is
        ``from_kafka_source``.

        ``retry``, a number of attempts or a ``Retry``, calls the function again when it raised, as often as that says
        from its last record on: of the same object, so what it reconnects to it reconnects to in ``execute``. It must
        not go on behind what it could not read. A generator cannot be gone on with after it has raised, so
        ``from_batch`` has no ``retry``, and a function that goes on with one inside must make a new one.
        """
        if function is KafkaSourceFunction:
            return self.from_kafka_source(*args, name=name, **kwargs)
        if isinstance(function, BaseFunction):
            raise TypeError(f"pass the class `{type(function).__name__}` and its arguments, not an object of it")
        if not callable(function):
            hint = "; for what can be gone through there is `from_batch`" if isinstance(function, Iterable) else ""
            raise TypeError(f"`from_source` needs a SourceFunction class or a callable, not {function!r}{hint}")
        if isgeneratorfunction(function):
            raise TypeError(
                f"`{name_of(function)}` is a generator function, and `from_source` calls it for each record; "
                f"use `from_batch({name_of(function)}())`"
            )
        takes_retry = isinstance(function, type) and "retry" in parameters(function)
        retry = {} if takes_retry else retried(kwargs.pop("retry", None))
        if isinstance(function, type):
            kwargs = _for_constructor(function, args, kwargs)
        else:
            known = ("name", "retry")
            check_none_left("from_source", args, {key: kwargs[key] for key in kwargs.keys() - SAGE_ONLY}, known)
        stream = self._source("source", function, args, kwargs, name, 1)
        self.pipeline[-1].options.update(retry)
        return stream

    def from_kafka_source(
        self,
        bootstrap_servers: str | list[str],
        topic: str | list[str],
        group_id: str,
        auto_offset_reset: str = "latest",
        value_deserializer: Any = None,
        buffer_size: int = 10_000,
        max_poll_records: int = 500,
        *,
        until_end: bool = False,
        metadata: bool = True,
        enable_auto_commit: bool = True,
        connect_timeout: float = 10.0,
        parallelism: int = 1,
        name: str | None = None,
        on_error: Any = "fail",
        retry: Any = None,
        **kafka_config: Any,
    ) -> DataStream:
        """The records of a Kafka topic, without end; or of several topics.

        With ``until_end``, the stream ends where the partitions ended when the job started.

        **A record** is a ``dict`` of its ``value``, ``timestamp`` (milliseconds since 1970), ``topic``,
        ``partition``, ``offset`` and ``key`` (a ``str``, or ``bytes`` where it is not UTF-8); with
        ``metadata=False`` the value alone. The value is what ``value_deserializer`` makes of it: ``"json"``
        (the default, of a text in UTF-8), ``"string"``, ``"bytes"``, or a function of ``bytes``. One that is
        not there is ``None``; the function is not called for it. What becomes of records on which it raises say
        ``on_error`` and ``retry``, as for ``map``.

        **Where it begins**: at the offset that is committed for the group; without one, where ``auto_offset_reset``
        says: ``"earliest"``, ``"latest"``, or ``"none"``, which fails the job. Each partition is read in its order, by
        one of ``parallelism`` replicas. Jobs do not share the partitions of a group: each reads all of them.

        **Offsets** are committed once, when the job has succeeded and left nothing behind, by the call that waits for
        it: ``submit(autostop=True)``, ``wait``, ``stop``, or the program's end. After a failure, a cancel, a signal
        or a crash nothing is committed, and the next run gives the records again: none is lost, some may come twice.
        So an endless job should be ended by ``stop``, or by a signal with ``config={"on_signal": "finish"}``. If
        the commit fails, ``JobFailed`` is raised, with the report of
        a job that has succeeded. ``enable_auto_commit=False`` commits nothing.

        **Limits.** ``connect_timeout`` is for how many seconds a broker is looked for before the job fails. About
        ``buffer_size`` records of each partition are fetched ahead, but not more than 16 MiB in each replica.
        ``max_poll_records`` is accepted because programs give it; there are no polls here.

        **Settings.** ``kafka_config`` has others, as kafka-python spells them or librdkafka, such as
        ``fetch_min_bytes=1`` or ``**{"fetch.min.bytes": 1}``. One that does not exist, or that the source sets itself,
        fails the job. Values are neither shown nor logged, as ``sasl_plain_password`` is one. The client has no TLS.
        """
        from ._kafka import deserializer, settings, source_options

        options = source_options(bootstrap_servers, topic, group_id, auto_offset_reset, buffer_size, connect_timeout)
        whole("`max_poll_records`", max_poll_records, 1, 1 << 31)
        function = deserializer(value_deserializer, metadata)
        options.update(until_end=bool(until_end), metadata=bool(metadata), commits=bool(enable_auto_commit))
        options["settings"] = settings(kafka_config)
        stream = self._source("kafka", None, (), {}, name or f"kafka {', '.join(options['topics'])}", parallelism)
        stream._step.options = options
        if function is None:
            return stream
        policies = {"on_error": on_error, "retry": retry}
        name = f"{stream._step.name} {name_of(function)}"
        return stream.map(function, parallelism=parallelism, name=name, **policies)

    def from_future(self, name: str, *, limit: int | None = None) -> DataStream:
        """A stream that another one fills, by ``fill_future``: for records that go round.

        ``limit`` is how many records may wait to go round (default 1,000,000); one more fails the job.
        """
        if limit is not None:
            limit = whole("`limit`", limit)
        step = Transformation("future", self._named(name), (None, (), {}), options={"limit": limit})
        self.pipeline.append(step)
        return DataStream(self, step)

    def register_service(self, name: str, service: Any, *args: Any, **kwargs: Any) -> None:
        """Registers a service: a class with the arguments of its constructor."""
        if not callable(service):
            raise TypeError(f"`register_service` needs a class, not {service!r}")
        check_call(service, args, kwargs)
        self._register(name, (service, args, kwargs))

    def register_service_factory(self, name: str, factory: Any) -> None:
        """Registers a service that a function makes."""
        if not callable(factory):
            raise TypeError(f"`register_service_factory` needs a function, not {factory!r}")
        check_call(factory, (), {})
        self._register(name, (factory, (), {}))

    def service(
        self,
        name: str,
        service: Callable[..., T],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        after: Iterable[Any] = (),
        timeout: float | None = None,
    ) -> T:
        """Registers a service, a class or a function that makes it, and returns its handle.

        ``db = env.service("db", VectorDB)``: to a type checker, ``db`` is a ``VectorDB``, so that
        ``db.search(q, k=4)`` is checked. When it runs, it is a ``ServiceHandle``, whose methods call the
        service of the job that runs at the moment; functions and other services may hold it, or one of its
        methods. Anything but methods, it refuses. The methods raise what the service's do, and ``ServiceError``
        while no job runs or once the service has stopped. One that is ``async`` returns its coroutine, and the
        call has ended for the engine when it did.

        ``after`` are the services that this one uses, as handles or names: it starts after them, and is cleaned
        before them. Services that are called without being declared are noticed when they are. ``timeout`` is a
        limit in seconds for each call through this handle: beyond it the caller gets a ``TimeoutError``, while
        the call goes on by itself.
        """
        if not callable(service):
            raise TypeError(f"`service` needs a class or a function that makes the service, not {service!r}")
        if isinstance(args, (str, bytes)) or not isinstance(args, Iterable):
            raise TypeError(f"`args` is a tuple of arguments for `{name_of(service)}`, not {args!r}")
        args, kwargs = tuple(args), dict(kwargs or {})
        check_call(service, args, kwargs)
        if timeout is not None:
            timeout = seconds("a timeout", timeout, more=True, hint="; leave it out for none")
        if isinstance(after, (str, ServiceHandle)):
            after = (after,)
        names = [name_of_service(other, self._bindings) for other in after]
        self._register(name, (service, args, kwargs), names)
        return cast(T, ServiceHandle(self._bindings[name], service, timeout))

    def _register(self, name: str, made: Made, after: list[str] | None = None) -> None:
        self._check_open()
        text("the name of a service", name)
        if name in self._services:
            raise ValueError(f"there is a service `{name}` already; choose another name")
        self._services[name] = made
        self._after[name] = after or []
        self._bindings[name] = _sage.Binding(name)

    def submit(self, autostop: bool = False, *, progress: bool | None = None) -> JobId:
        """Runs the job. With ``autostop``, waits until it is over and everything is stopped and cleaned;
        without, returns at once: see ``JobId``, and ``stop`` and ``wait``.

        Raises ``JobFailed`` from the user's own exception when the job did not succeed or left something behind,
        ``KeyboardInterrupt`` or ``SystemExit`` when a signal ended it; in each case, when everything is cleaned.

        While it waits, a line on standard error tells how far the job is: where that is a terminal or a
        notebook, and the job prints nothing there itself; always or never as ``progress`` says. When a signal ends
        the job, standard error says what is still being finished, and at the end how far it came, unless
        ``progress`` is ``False``.

        An environment may be submitted again when its job is over.
        """
        self._check_open()
        _declared.discard(self)
        truth("`autostop`", autostop)
        check_config(self.config)
        if self.is_running:
            raise RuntimeError(f"`{self.name}` is running; wait for it, or stop it")
        iterators = self._iterators()
        timeouts = timeouts_of(self.config)
        calls = ServiceCalls(self._bindings, timeouts)
        services = [
            _Registration(name, self._factory(name, made, calls), self._after[name])
            for name, made in self._services.items()
        ]
        queued_calls = whole("`most_queued_calls`", self.config.get("most_queued_calls", 1000), 1, 10_000_000)
        queue_bytes = whole("`queue_bytes`", self.config.get("queue_bytes", 64 << 20), 1, 1 << 62)
        run = Run(calls, self.name)
        if progress is not False:
            run.sources = Sources(self.pipeline)

        def begin(is_on_main: bool) -> None:
            try:
                steps = self._plan(calls)
                run.parts = parts_of(steps)
                _sage.start(
                    run,
                    self.name,
                    steps,
                    services,
                    calls.bind,
                    is_on_main=is_on_main,
                    on_signal=on_signal_of(self.config),
                    timeouts=timeouts,
                    most_queued_calls=queued_calls,
                    queue_bytes=queue_bytes,
                    log_dir=self.config.get("log_dir"),
                    where_stuck=where_stuck,
                )
            except BaseException:
                if not run.goes_on:
                    calls.close()
                raise

        try:
            start(run, begin)
            self._run = run
            self._consumed.update(iterators)
            job = JobId(run)
            if autostop:
                with shown(run.job, self.pipeline, self.name, progress):
                    job.wait()
        except BaseException as error:
            if not run.goes_on:
                raise
            # A handler of a signal has raised it while this thread did not wait.
            self._run = run
            self._consumed.update(iterators)
            job = JobId(run)
            job._wait(before=error)
        return job

    async def submit_async(self) -> JobId:
        """Runs the job while the event loop goes on, and returns when it is over; raises what ``submit`` raises.

        When the task that awaits it is cancelled, the job is cancelled too, and ``CancelledError`` raised when it is
        cleaned.
        """
        job = self.submit()
        await job._until_over()
        return job

    def _iterators(self) -> list[Transformation]:
        """The sources that can be read once; raises if an earlier job has."""
        once = [step for step in self.pipeline if step.kind == "iterable" and isinstance(step.made[0], Iterator)]
        for step in once:
            if step in self._consumed:
                raise _sage.SubmitError(
                    f"the iterator of `{step.name}` was given to an earlier job, and can be read once; "
                    "for several jobs begin with a list, or a BatchFunction"
                )
        return once

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError(f"`{self.name}` is closed; make a new environment")

    @property
    def job(self) -> JobId | None:
        """The job that was submitted last."""
        return None if self._run is None else JobId(self._run)

    @property
    def is_running(self) -> bool:
        """Whether a job of this environment is not over yet."""
        return self._run is not None and self._run.state != "ended"

    def wait(self, timeout: float | None = None) -> Report | None:
        """Waits until the job is over, and returns its report; ``None`` if it is not after ``timeout`` seconds.

        Raises what ``submit`` raises.
        """
        job = self.job
        if job is None:
            raise RuntimeError("nothing was submitted")
        return job.wait(timeout)

    def stop(self) -> None:
        """Ends the sources, and waits until what is in flight is finished and everything is cleaned.

        Raises what ``submit`` raises, unless that was raised before. Does nothing when no job was submitted.
        """
        if self._run is not None and not self._run.is_told:
            self._run.job.drain()
            self.wait()

    def close(self) -> None:
        """As ``stop``; nothing can be declared or submitted any more."""
        self._is_closed = True
        if self in _declared:
            _declared.discard(self)
            warn(_FORGOTTEN.format(f"`{self.name}`"))
        self.stop()

    def explain(self) -> str:
        """What is declared, in words: each step with what it takes its records from, and which steps run as one."""
        from ._html import described

        _declared.discard(self)
        lines = [f"environment `{self.name}`"]
        for step in self.pipeline:
            inputs = ", ".join(before.name for before, _ in step.inputs)
            lines.append(f"  {step.name}: {described(step)}" + (f" ← {inputs}" if inputs else ""))
        lines += [f"  service {name}" for name in self._services]
        try:
            steps = self._plan(ServiceCalls(self._bindings, timeouts_of(self.config)))
        except _sage.SubmitError as error:
            return "\n".join([*lines, f"cannot run yet: {error}"])
        run = [f"  [{step.name}]" + (f" ×{step.parallelism}" if step.parallelism > 1 else "") for step in steps]
        return "\n".join([*lines, "runs as", *run])

    def __reduce__(self) -> NoReturn:
        refuse(f"environment `{self.name}`", "make one where it is to be used")

    def _repr_html_(self) -> str:
        from ._html import graph

        _declared.discard(self)
        return graph(self.pipeline, self._services)

    def set_console_log_level(self, level: str) -> None:
        """The level from which on messages of this environment are shown: ``"DEBUG"``, ``"INFO"``, ``"WARNING"``, …"""
        self.logger.setLevel(level.upper())

    def _factory(self, name: str, made: Made, calls: ServiceCalls) -> Any:
        service, args, kwargs = made
        context = Context(name, calls, self.logger.getChild(name))

        def make() -> Any:
            if not isinstance(service, type):
                return service(*args, **kwargs)
            made_instance = allocate(service, args, kwargs)
            try:
                made_instance.ctx = context
            except AttributeError:
                pass  # a class with slots has no place for it
            check_hook(f"{service.__name__}.__init__", made_instance.__init__(*args, **kwargs))
            return made_instance

        return lambda: Hooks(make, calls.loop)

    def _plan(self, calls: ServiceCalls) -> list[Step]:
        def context(step: Transformation, replica: int, parallelism: int) -> Context:
            return Context(step.name, calls, self.logger.getChild(step.name), replica, parallelism)

        return plan(self.pipeline, self.name, context, calls.loop, timeouts_of(self.config))


def _for_constructor(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keywords for the constructor of a source: without those that SAGE reads itself, unless it has them too."""
    own = parameters(cls)
    kwargs = {key: value for key, value in kwargs.items() if key not in SAGE_ONLY or key in own}
    check_call(cls, args, kwargs, ("name",))
    return kwargs


def _warn_of(records: Any) -> None:
    """Warns of what can be gone through and is seldom meant to be, part by part."""
    if isinstance(records, (str, bytes, bytearray)):
        parts = "its letters" if isinstance(records, str) else "its bytes, as numbers"
        warn(
            f"`from_batch` of a {type(records).__name__} gives {parts}, one by one; pass `[…]` for one record, "
            "`FileSource` or `JSONLBatch` for a file, or `list(…)` if that is meant"
        )
    elif isinstance(records, dict):
        warn("`from_batch` of a dict gives its keys; pass `d.items()` or `[d]`, or `list(d)` if that is meant")
    elif hasattr(type(records), "__dataframe__"):
        warn(
            "`from_batch` of a data frame gives its columns; pass its rows: `df.to_dict('records')` of pandas, "
            "`df.iter_rows(named=True)` of polars, or `list(df)` if that is meant"
        )
