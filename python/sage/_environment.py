"""Environments: where pipelines and services are declared, and run."""

from __future__ import annotations

import atexit
import logging
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import _sage
from ._context import Context, ServiceCalls
from ._functions import BaseFunction, Made, allocate
from ._job import JobFailed, JobId, Report
from ._plan import Step, plan
from ._services import Hooks
from ._stream import DataStream, check_parallelism, name_of
from ._transformation import Transformation


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
    """

    def __init__(self, name: str = "localenvironment", config: dict[str, Any] | None = None) -> None:
        self.name = name
        self.config = dict(config or {})
        self.env_uuid = str(uuid.uuid4())
        self.pipeline: list[Transformation] = []
        self.logger = logging.getLogger(f"sage.{name}")
        self._services: dict[str, Made] = {}
        self._job: _sage.Job | None = None
        self._calls = ServiceCalls()
        self._names: dict[str, int] = {}

    def __enter__(self) -> LocalEnvironment:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _named(self, name: str) -> str:
        """The name, with a number where it is taken."""
        number = self._names[name] = self._names.get(name, 0) + 1
        return name if number == 1 else f"{name}-{number}"

    def _source(self, kind: str, function: Any, args: Any, kwargs: Any, name: str | None, parallelism: int) -> DataStream:
        step = Transformation(kind, self._named(name or name_of(function)), (function, args, kwargs))
        step.parallelism = check_parallelism(parallelism)
        self.pipeline.append(step)
        return DataStream(self, step)

    def from_batch(self, records: Any, *args: Any, name: str | None = None, **kwargs: Any) -> DataStream:
        """The records of a ``BatchFunction`` class, or of any iterable: ``None`` in a list is a record like others."""
        if isinstance(records, type) and issubclass(records, BaseFunction):
            return self._source("batch", records, args, kwargs, name, 1)
        if not isinstance(records, Iterable):
            raise TypeError(f"`from_batch` needs a BatchFunction class or an iterable, not {records!r}")
        return self._source("iterable", records, (), {}, name or "batch", 1)

    def from_collection(self, records: Any, *args: Any, **kwargs: Any) -> DataStream:
        """As ``from_batch``."""
        return self.from_batch(records, *args, **kwargs)

    def from_source(self, function: Any, *args: Any, name: str | None = None, **kwargs: Any) -> DataStream:
        """The records of a ``SourceFunction`` class, or of a callable that returns one at a time.

        The stream ends when a ``StopSignal`` is returned, or with the job.
        """
        if not callable(function):
            raise TypeError(f"`from_source` needs a SourceFunction class or a callable, not {function!r}")
        return self._source("source", function, args, kwargs, name, 1)

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
        metadata: bool = False,
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

        **A record** is what ``value_deserializer`` makes of its value: ``"json"`` (the default, of a text in UTF-8),
        ``"string"``, ``"bytes"``, or a function of ``bytes``. A record without a value is ``None``; the function is not
        called for it. What becomes of records on which it raises say ``on_error`` and ``retry``, as for ``map``. With
        ``metadata``, a record is a ``dict`` of its ``value``, ``timestamp`` (milliseconds since 1970), ``topic``,
        ``partition``, ``offset`` and ``key`` (a ``str``, or ``bytes`` where it is not UTF-8).

        **Where it begins**: at the offset that is committed for the group; without one, where ``auto_offset_reset``
        says: ``"earliest"``, ``"latest"``, or ``"none"``, which fails the job. Each partition is read in its order, by
        one of ``parallelism`` replicas. Jobs do not share the partitions of a group: each reads all of them.

        **Offsets** are committed once, when the job has succeeded and left nothing behind, by the call that waits for
        it: ``submit(autostop=True)``, ``wait``, ``stop``, or the program's end. After a failure, a cancel, a signal
        or a crash nothing is committed, and the next run gives the records again: none is lost, some may come twice.
        So an endless job should be ended by ``stop``. If the commit fails, ``JobFailed`` is raised, with the report of
        a job that has succeeded. ``enable_auto_commit=False`` commits nothing.

        **Limits.** ``connect_timeout`` is for how many seconds a broker is looked for before the job fails. About
        ``buffer_size`` records of each partition are fetched ahead, but not more than 16 MiB in each replica.
        ``max_poll_records`` is accepted because programs give it; there are no polls here.

        **Settings.** ``kafka_config`` has others, as kafka-python spells them or librdkafka, such as
        ``fetch_min_bytes=1`` or ``**{"fetch.min.bytes": 1}``. One that does not exist, or that the source sets itself,
        fails the job. Values are neither shown nor logged, as ``sasl_plain_password`` is one. The client has no TLS.
        """
        from ._kafka import deserializer, settings, source_options, whole

        options = source_options(bootstrap_servers, topic, group_id, auto_offset_reset, buffer_size, connect_timeout)
        whole("max_poll_records", max_poll_records, 1 << 31)
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
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise ValueError(f"`limit` is a whole number of at least 1, not {limit!r}")
        step = Transformation("future", self._named(name), (None, (), {}), options={"limit": limit})
        self.pipeline.append(step)
        return DataStream(self, step)

    def register_service(self, name: str, service: Any, *args: Any, **kwargs: Any) -> None:
        """Registers a service: a class with the arguments of its constructor."""
        if not callable(service):
            raise TypeError(f"`register_service` needs a class, not {service!r}")
        self._register(name, (service, args, kwargs))

    def register_service_factory(self, name: str, factory: Any) -> None:
        """Registers a service that a function makes."""
        if not callable(factory):
            raise TypeError(f"`register_service_factory` needs a function, not {factory!r}")
        self._register(name, (factory, (), {}))

    def _register(self, name: str, made: Made) -> None:
        if name in self._services:
            raise ValueError(f"there is a service `{name}` already; choose another name")
        self._services[name] = made

    def submit(self, autostop: bool = False) -> JobId:
        """Runs the job. With ``autostop``, waits until it is over and everything is stopped and cleaned; without, returns
        at once: see ``stop`` and ``wait``.

        Raises ``JobFailed`` from the user's own exception when the job did not succeed or left something behind,
        ``KeyboardInterrupt`` or ``SystemExit`` when a signal ended it; in each case, when everything is cleaned.
        """
        if self.is_running:
            raise RuntimeError(f"`{self.name}` is running; wait for it, or stop it")
        calls = ServiceCalls()
        services = [_Registration(name, self._factory(name, made, calls), []) for name, made in self._services.items()]
        timeouts = self.config.get("timeouts", {})
        job = _sage.start(
            self.name, self._plan(calls), services, calls.handles.update, signals=autostop and _on_main_thread(), timeouts=timeouts
        )
        self._job, self._calls = job, calls
        _running.add(job)
        job_id = JobId(job)
        if autostop:
            self.wait()
        return job_id

    @property
    def is_running(self) -> bool:
        """Whether a job of this environment is not over yet."""
        return self._job is not None and self._job.state != "ended"

    def wait(self, timeout: float | None = None) -> Report | None:
        """Waits until the job is over, and returns its report; ``None`` if it is not after ``timeout`` seconds.

        Raises what ``submit`` raises.
        """
        job = self._job
        if job is None:
            raise RuntimeError("nothing was submitted")
        if not job.wait(timeout):
            return None
        _running.discard(job)
        self._calls.close()
        return _result(job)

    def stop(self) -> None:
        """Ends the sources, and waits until what is in flight is finished and everything is cleaned."""
        if self._job is not None and self.is_running:
            self._job.drain()
            self.wait()

    def close(self) -> None:
        """As ``stop``. Does nothing when no job runs."""
        self.stop()

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
            made_instance.__init__(*args, **kwargs)
            return made_instance

        return lambda: Hooks(make)

    def _plan(self, calls: ServiceCalls) -> list[Step]:
        def context(step: Transformation, replica: int, parallelism: int) -> Context:
            return Context(step.name, calls, self.logger.getChild(step.name), replica, parallelism)

        return plan(self.pipeline, self.name, context)


def _result(job: _sage.Job) -> Report:
    """The report of a job that is over; raises if it is no success."""
    report = Report(job)
    if job.signal == 2:
        raise KeyboardInterrupt
    if job.signal is not None:
        raise SystemExit(128 + job.signal)
    if job.error is not None:
        raise JobFailed(job.error, report) from job.exception
    return report


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


#: Jobs that nobody has waited for. Held here, so that a job goes on though its environment is gone.
_running: set[_sage.Job] = set()


@atexit.register
def _end_all() -> None:
    """Cancels what still runs: no thread of the engine may be left when the interpreter ends."""
    for job in list(_running):
        job.cancel()
        job.wait()
