"""What a function or a service knows of the job it runs in."""

from __future__ import annotations

import concurrent.futures
import difflib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ._threads import Workers

if TYPE_CHECKING:
    from ._sage import Handle


#: How many calls with a timeout, or asynchronous ones, a job has under way at once.
MOST_THREADS = 64


class ServiceMethods:
    """A service as ``call_service["name"]`` gives it: its methods are called as they are."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__"):
            raise AttributeError(method)
        handle = self._handle
        return lambda *args, **kwargs: handle.call(method, args, kwargs)


class ServiceCalls:
    """Calls services by their names, for all functions of one job."""

    def __init__(self) -> None:
        self.handles: dict[str, Handle] = {}
        self._lock = threading.Lock()
        self._pool: Workers | None = None

    def begin(self, handle: Handle, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """Has another thread call a service. The threads are made when they are first needed, and end with the job."""
        with self._lock:
            if self._pool is None:
                self._pool = Workers(MOST_THREADS, "sage-call")
            return self._pool.submit(handle.call, method, args, kwargs)

    def close(self) -> None:
        """Lets go of the services and the threads. Calls that had not begun are cancelled; those inside have ended when the
        services were stopped, or are named in the report."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        # The handles refer to the services' factories, and these to the handles.
        self.handles.clear()

    def handle(self, name: str) -> Handle:
        """The handle of a service; the error for a name that does not exist lists those that are close."""
        try:
            return self.handles[name]
        except KeyError:
            close = difflib.get_close_matches(name, self.handles, n=3)
            there = ", ".join(close or sorted(self.handles)) or "none is registered"
            raise KeyError(f"there is no service `{name}`; did you mean one of these: {there}?") from None

    def __call__(
        self, name: str, *args: Any, method: str = "process", timeout: float | None = None, **kwargs: Any
    ) -> Any:
        check_timeout(timeout)
        handle = self.handle(name)
        if timeout is None:
            return handle.call(method, args, kwargs)
        call = self.begin(handle, method, args, kwargs)
        if not concurrent.futures.wait([call], timeout).done:
            call.cancel()
            raise TimeoutError(f"service `{name}` did not answer `{method}` within {timeout} s")
        return call.result()

    def asynchronous(
        self, name: str, *args: Any, method: str = "process", timeout: float | None = None, **kwargs: Any
    ) -> ServiceFuture:
        """As a call, on another thread: returns at once."""
        check_timeout(timeout)
        return ServiceFuture(self.begin(self.handle(name), method, args, kwargs), f"`{name}`, method `{method}`", timeout)

    def __getitem__(self, name: str) -> ServiceMethods:
        return ServiceMethods(self.handle(name))


def check_timeout(timeout: float | None) -> None:
    """Raises for a timeout that no call could keep."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"a timeout is more than 0 seconds, not {timeout!r}; leave it out for none")


class ServiceFuture:
    """What becomes of a call on another thread."""

    def __init__(self, future: Future[Any], what: str, timeout: float | None) -> None:
        self._future = future
        self._what = what
        self._timeout = timeout

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Any:
        """What the service returned; waits for it for ``timeout`` seconds, or those given to the call. Raises what it raised,
        or ``TimeoutError``."""
        check_timeout(timeout)
        limit = self._timeout if timeout is None else timeout
        if not concurrent.futures.wait([self._future], limit).done:
            raise TimeoutError(f"service {self._what} did not answer within {limit} s")
        return self._future.result()


class Context:
    """What a function or service is given as ``self.ctx``."""

    def __init__(self, name: str, calls: ServiceCalls, logger: logging.Logger, replica: int = 0, parallelism: int = 1):
        self.name = name
        self.logger = logger
        self.call_service = calls
        self.replica = replica
        self.parallelism = parallelism


class InJob:
    """What functions and services have in common: ``ctx``, and what is had through it."""

    ctx: Context

    @property
    def name(self) -> str:
        """The name of the operator, or the one that the service is registered under."""
        return self.ctx.name

    @property
    def logger(self) -> logging.Logger:
        """A logger for this operator or service."""
        return self.ctx.logger

    @property
    def call_service(self) -> ServiceCalls:
        """Calls a service: ``self.call_service("db", x, method="search", timeout=1.0)``."""
        return self.ctx.call_service

    @property
    def call_service_async(self) -> Callable[..., ServiceFuture]:
        """Calls a service on another thread: returns a future with ``result(timeout)`` and ``done()``."""
        return self.ctx.call_service.asynchronous
