"""The context of a function or a service: the job it runs in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ._arguments import like
from ._config import Timeouts
from ._handles import ServiceHandle
from ._job_loop import JobLoop
from ._keywords import spelt
from ._nones import Nones
from ._sage import Binding, caller

if TYPE_CHECKING:
    from ._faults import Faults
    from ._processes import Guard, WorkerTold
    from ._places import Place
    from ._restarts import Restarts
    from ._running import Run
    from ._sage import Caller, Handle, ServiceFuture


class JobContext(NamedTuple):
    """What functions know of their job, as data: services by their names."""

    environment: str
    services: tuple[str, ...]
    timeouts: Timeouts
    #: What becomes of functions that raise, if that is said.
    faults: Faults | None = None
    #: Where functions run whose steps do not say it.
    workers: str | None = None
    #: What becomes of a worker that ends by itself, where a step does not say it.
    on_worker_loss: str = "fail"

    @property
    def logger(self) -> logging.Logger:
        """The logger of its environment."""
        return logging.getLogger(f"sage.{self.environment}")


class ServiceCalls:
    """Calls services by their names, for all functions of one job."""

    def __init__(self, job: JobContext, typed: Mapping[str, Binding]) -> None:
        #: Where async functions and hooks run.
        self.loop = JobLoop(job.timeouts.cleanup)
        self._typed = typed
        self._handles: dict[str, Handle] = {}
        self.environment = job.environment
        self._keys: dict[tuple[str, int], CurrentKey] = {}
        #: The job, until it is over: set by ``Run``.
        self.run: Run | None = None
        #: Files that sinks of the job left unfinished, as a signal ended it.
        self.kept: list[str] = []
        #: Results of the job's functions that are no records.
        self.nones = Nones()
        #: Where the workers of steps and services run, if that is not on this machine: by their makers, and by names.
        self.places: Mapping[Any, Place] = {}
        #: What worker processes have told at their end.
        self.workers: list[WorkerTold] = []
        #: What else the report is to note.
        self.notes: list[str] = []
        #: The job's id, and the folder for what its functions write, if it has log files: both from `bind` on.
        self.job_id: str | None = None
        self.log_dir: str | None = None
        #: How often its functions were made anew, where they may be.
        self.restarts: Restarts | None = None
        if job.faults is not None:
            from ._restarts import Restarts

            self.restarts = Restarts()
        #: ``call_service`` as functions have it.
        self.call = caller(self._handles, _call, _item)

    @cached_property
    def guard(self) -> Guard:
        """What starts the job's worker processes."""
        from ._processes import Guard  # few jobs have some

        return Guard()

    def place(self, of: Any) -> Place:
        """Where the workers of a step or of a service run."""
        return self.places.get(of) or self.guard

    def bind(self, handles: dict[str, Handle], job_id: str, log_dir: str | None) -> None:
        """The services of the job, its id and its folder, before anything of it runs."""
        self.job_id, self.log_dir = job_id, log_dir
        # A name in a program's text is the same object then, and found by that.
        self._handles.update((intern(name), handle) for name, handle in handles.items())
        for name, binding in self._typed.items():
            binding.bind(handles[name])

    def close(self) -> None:
        """The job is over: ends the threads that made calls, and lets go of the services, which refer to their
        factories, as these refer to this object."""
        self.run = None
        # Several may have waited for the job.
        handles = dict(self._handles)
        self._handles.clear()
        for name, handle in handles.items():
            handle.close()
            if name in self._typed:
                self._typed[name].unbind(handle)
        self.loop.abandon()

    def lost(self, name: str) -> None:
        """The process of a service is gone."""
        handle = self._handles.get(name)
        if handle is not None:
            handle.lost()

    def replaced(self, name: str, how: str) -> None:
        """A process of a service is gone, and another takes its place."""
        handle = self._handles.get(name)
        if handle is not None:
            handle.replaced(how)

    def hold(self, name: str, holds: bool) -> None:
        """Holds the attempts of a service's policy back while another process begins; then lets them go on."""
        handle = self._handles.get(name)
        if handle is not None:
            handle.hold(holds)

    def key_of(self, name: str, replica: int) -> CurrentKey:
        """The key of the record that a replica of a step works on."""
        return self._keys.setdefault((name, replica), CurrentKey())

    def made(
        self, name: str, method: str | None, args: Any, kwargs: dict[str, Any], timeout: float | None, changes: Any
    ) -> Any:
        """Makes a call of a worker process."""
        return _handle(self._handles, name).call(method, args, kwargs, timeout, changes)

    def made_beside(
        self, name: str, method: str | None, args: Any, kwargs: dict[str, Any], timeout: float | None, changes: Any
    ) -> ServiceFuture:
        """The same on another thread."""
        return _handle(self._handles, name).call_async(method, args, kwargs, timeout, changes)

    def asynchronous(
        self, name: str, /, *args: Any, method: str | None = None, timeout: float | None = None, **kwargs: Any
    ) -> ServiceFuture:
        """As a call, on another thread: returns at once, unless as many calls wait for a thread as may."""
        return _handle(self._handles, name).call_async(method, args, kwargs, timeout)


def _handle(handles: dict[str, Handle], name: str) -> Handle:
    try:
        return handles[name]
    except KeyError:
        raise KeyError(f"there is no service `{name}`; {like(name, sorted(handles), 'none is registered')}") from None


def _call(
    handles: dict[str, Handle],
    name: str,
    /,
    *args: Any,
    method: str | None = None,
    timeout: float | None = None,
    **kwargs: Any,
) -> Any:
    return _handle(handles, name).call(method, args, kwargs, timeout)


def _item(handles: dict[str, Handle], name: str) -> Any:
    return ServiceHandle(Binding(name, _handle(handles, name)))


class CurrentKey:
    """The key of the record that a replica works on."""

    def __init__(self) -> None:
        self.value: Any = None

    def set(self, value: Any) -> None:
        """Sets it."""
        self.value = value


#: Stands for a key that is not told.
UNKNOWN = CurrentKey()

#: The states of a job that is to end.
_ENDING = ("draining", "stopping", "ended")


@spelt
class Context:
    """The context that a function or service has as ``self.ctx``."""

    def __init__(
        self,
        name: str,
        calls: ServiceCalls,
        logger: logging.Logger,
        replica: int = 0,
        parallelism: int = 1,
        *,
        is_source: bool = False,
        key: CurrentKey | None = None,
    ) -> None:
        self.name = name
        self.logger = logger
        self.call_service = calls.call
        self.call_service_async = calls.asynchronous
        self.kept = calls.kept
        self.replica = replica
        self.parallelism = parallelism
        self.env_name = calls.environment
        self._calls = calls
        self._is_source = is_source
        self._stops = False
        #: Ends the source, from when it is read on.
        self._end: Callable[[], None] | None = None
        self._key = key or CurrentKey()

    @property
    def parallel_index(self) -> int:
        """The number of the replica, from 0 on: SAGE's name of ``replica``."""
        return self.replica

    @property
    def env_uuid(self) -> str | None:
        """The id of the job."""
        return self._calls.job_id

    @property
    def env_base_dir(self) -> str | None:
        """The folder for what functions of the job write, beside its log files; ``None`` if it has none."""
        return self._calls.log_dir

    def get_service(self, name: str) -> Any:
        """A handle of a service, whose methods are the service's."""
        return self.call_service[name]

    def is_stop_requested(self) -> bool:
        """Whether the job is to end, or this function has asked for it."""
        run = self._calls.run
        return self._stops or run is None or run.begun.state in _ENDING

    def request_stop(self) -> None:
        """Ends the source that calls it, behind the record that it is making. Any other function or service ends all
        sources of the job by it, as the environment's ``stop`` does; what is under way is finished."""
        self._stops = True
        run = self._calls.run
        if self._end is not None:
            self._end()
        elif not self._is_source and run is not None:
            run.begun.drain()

    def get_key(self) -> Any:
        """The key of the record that the function works on: that of the nearest ``keyby`` before it, or ``None``.

        Keys come along to classes whose code mentions this method, or that say ``uses_key = True``; elsewhere it
        raises ``RuntimeError`` behind a ``keyby``. So it does where several records are worked on at a time. Steps that
        make new records, such as a ``comap``, a window or a count, give records that have no key.
        """
        if self._key is UNKNOWN:
            raise RuntimeError(
                f"`{self.name}` was not told the keys of its records: set `uses_key = True` in its class, if that does "
                "not mention `get_key`; or leave out `in_flight` and `async`, if it works on several records at a time"
            )
        return self._key.value

    def set_current_key(self, key: Any) -> None:
        """Sets what ``get_key`` returns."""
        self._key.set(key)


_T = TypeVar("_T")


class _OfJob(cached_property[_T]):
    """A property that is the context's. Outside a job it raises, or passes calls on to the context that a test has set,
    whichever that is at the moment."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None or isinstance(instance.ctx, Context):
            return super().__get__(instance, owner)
        if instance.ctx is None:
            kind = type(instance).__name__
            raise RuntimeError(
                f"{instance._context_kind} context not initialized: `{kind}` is in no job, and a job has services. "
                "Submit a pipeline that uses it; or, in a test, set its `ctx` to an object with `call_service` and "
                "`call_service_async`"
            )
        # As SAGE's, which fakes of programs expect.
        return partial(getattr(instance.ctx, self.attrname or ""), timeout=None, method=None)


class InJob:
    """The base of functions and services: ``ctx``, and the name, logger and services it gives.

    Outside a job, as in a test of the class by itself, ``ctx`` is ``None``, the name is that of the class, the logger
    is ``logging``'s of that name, and there are no services.
    """

    ctx: Context = None  # type: ignore[assignment]

    #: A logger to use instead of the context's, if a constructor sets it.
    _logger: Any = None

    #: The context that errors speak of.
    _context_kind = "Runtime"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    #: For `check_call`: what is given to a class without a constructor of its own, nothing would read.
    __init__._takes_anything = True  # type: ignore[attr-defined]

    @property
    def name(self) -> str:
        """The name of the operator or service.

        >>> class Tell(MapFunction):
        ...     def execute(self, record):
        ...         return f"{self.name}: {record}"
        >>> env = LocalEnvironment("names")
        >>> told = env.from_batch([1]).map(Tell, name="teller").collect()
        >>> job = env.submit(autostop=True)
        >>> told
        ['teller: 1']
        """
        return type(self).__name__ if self.ctx is None else self.ctx.name

    @property
    def logger(self) -> logging.Logger:
        """A logger for this operator or service.

        >>> class Careful(MapFunction):
        ...     def execute(self, n):
        ...         self.logger.debug("got %s", n)
        ...         return n
        >>> Careful().logger.name
        'Careful'
        """
        logger: logging.Logger | None = self._logger
        if logger is not None:
            return logger
        return logging.getLogger(type(self).__name__) if self.ctx is None else self.ctx.logger

    # Kept in the object's own `__dict__`, where they are found first: they are looked up for each record.
    @_OfJob
    def call_service(self) -> Caller:
        """Calls a service: ``self.call_service("db", x, method="search", timeout=1.0)``. Without ``method``, it is the
        first of ``process``, ``execute`` and ``call`` that the service has. Outside a job, this is a
        ``RuntimeError``.

        >>> class Price(MapFunction):
        ...     def execute(self, fruit):
        ...         return self.call_service("prices", fruit, method="get")
        >>> env = LocalEnvironment("orders")
        >>> prices = env.service("prices", lambda: {"apples": 30})
        >>> found = env.from_batch(["apples"]).map(Price).collect()
        >>> job = env.submit(autostop=True)
        >>> found
        [30]
        """
        return self.ctx.call_service

    @_OfJob
    def call_service_async(self) -> Callable[..., ServiceFuture]:
        """Calls a service on another thread: returns a ``ServiceFuture``, with ``result(timeout)``, ``done()`` and the
        other methods of a ``concurrent.futures.Future``.

        Up to 64 such calls of a job run at once, and 1,000 more wait for a thread (``"most_queued_calls"`` of the
        environment's ``config``). Beyond that, this method waits until there is room, for ``timeout`` seconds if that
        is given. A service that was itself called in this way gets a ``ServiceError`` instead of waiting, because the
        others may be waiting for it.

        >>> class Both(MapFunction):
        ...     def execute(self, fruits):
        ...         asked = [self.call_service_async("prices", fruit, method="get") for fruit in fruits]
        ...         return [future.result(timeout=10) for future in asked]
        >>> env = LocalEnvironment("orders")
        >>> prices = env.service("prices", lambda: {"apples": 30, "pears": 45})
        >>> found = env.from_batch([("apples", "pears")]).map(Both).collect()
        >>> job = env.submit(autostop=True)
        >>> found
        [[30, 45]]
        """
        return self.ctx.call_service_async
