"""Environments: where pipelines and services are declared, and run."""

from __future__ import annotations

import atexit
import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from . import _sage
from ._context import Context, ServiceCalls
from ._functions import BaseFunction, Made, allocate
from ._handles import ServiceHandle, name_of_service
from ._job import JobFailed, JobId, Report
from ._plan import Step, plan
from ._services import Hooks
from ._stream import DataStream, check_parallelism, name_of
from ._transformation import Transformation


T = TypeVar("T")


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

    Of ``config``, the engine reads ``"timeouts"``, the limits in seconds of ``setup``, ``drain``, ``cancel``, ``stop`` and
    ``cleanup``, and ``"log_dir"``, a folder such as ``".sage/logs"`` for log files of each job; there are none unless it is set.
    """

    def __init__(self, name: str = "localenvironment", config: dict[str, Any] | None = None) -> None:
        self.name = name
        self.config = dict(config or {})
        self.env_uuid = str(uuid.uuid4())
        self.pipeline: list[Transformation] = []
        self.logger = logging.getLogger(f"sage.{name}")
        self._services: dict[str, Made] = {}
        self._after: dict[str, list[str]] = {}
        self._bindings: dict[str, _sage.Binding] = {}
        self._job: _sage.Job | None = None
        self._calls = ServiceCalls(self._bindings)
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

        ``db = env.service("db", VectorDB)``: to a type checker, ``db`` is a ``VectorDB``, so that ``db.search(q, k=4)`` is
        checked. When it runs, it is a ``ServiceHandle``, whose methods call the service of the job that runs at the moment;
        functions and other services may hold it, or one of its methods. Anything but methods, it refuses. The methods raise
        what the service's do, and ``ServiceError`` while no job runs or once the service has stopped. One that is ``async``
        returns its coroutine, and the call has ended for the engine when it did.

        ``after`` are the services that this one uses, as handles or names: it starts after them, and is cleaned before them.
        Services that are called without being declared are noticed when they are. ``timeout`` is a limit in seconds for each
        call through this handle: beyond it the caller gets a ``TimeoutError``, while the call goes on by itself.
        """
        if not callable(service):
            raise TypeError(f"`service` needs a class or a function that makes the service, not {service!r}")
        if timeout is not None and not timeout > 0:
            raise ValueError(f"a timeout is more than 0 seconds, not {timeout!r}; leave it out for none")
        if isinstance(after, (str, ServiceHandle)):
            after = (after,)
        names = [name_of_service(other, self._bindings) for other in after]
        self._register(name, (service, tuple(args), dict(kwargs or {})), names)
        return cast(T, ServiceHandle(self._bindings[name], service, timeout))

    def _register(self, name: str, made: Made, after: list[str] | None = None) -> None:
        if name in self._services:
            raise ValueError(f"there is a service `{name}` already; choose another name")
        self._services[name] = made
        self._after[name] = after or []
        self._bindings[name] = _sage.Binding(name)

    def submit(self, autostop: bool = False) -> JobId:
        """Runs the job. With ``autostop``, waits until it is over and everything is stopped and cleaned; without, returns
        at once: see ``stop`` and ``wait``.

        Raises ``JobFailed`` from the user's own exception when the job did not succeed or left something behind,
        ``KeyboardInterrupt`` or ``SystemExit`` when a signal ended it; in each case, when everything is cleaned.
        """
        if self.is_running:
            raise RuntimeError(f"`{self.name}` is running; wait for it, or stop it")
        # A job that nobody waited for may have left its own.
        self._calls.close()
        calls = ServiceCalls(self._bindings)
        services = [
            _Registration(name, self._factory(name, made, calls), self._after[name]) for name, made in self._services.items()
        ]
        options = {"timeouts": self.config.get("timeouts", {}), "log_dir": self.config.get("log_dir")}
        signals = autostop and _on_main_thread()
        try:
            job = _sage.start(self.name, self._plan(calls), services, calls.bind, signals=signals, **options)
        except BaseException:
            calls.close()
            raise
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
