"""What a function or a service knows of the job it runs in."""

from __future__ import annotations

import concurrent.futures
import difflib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._sage import Handle


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
    """Calls services by their names."""

    def __init__(self) -> None:
        self.handles: dict[str, Handle] = {}

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
        if timeout is not None and timeout <= 0:
            raise ValueError("a timeout is more than 0 seconds; leave it out for none")
        handle = self.handle(name)
        if timeout is None:
            return handle.call(method, args, kwargs)
        return call_within(handle, timeout, method, args, kwargs)

    def __getitem__(self, name: str) -> ServiceMethods:
        return ServiceMethods(self.handle(name))


def call_within(handle: Handle, timeout: float, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a service on another thread, and waits for `timeout` seconds."""
    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=f"call {handle.name}")
    try:
        future = pool.submit(handle.call, method, args, kwargs)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError as error:
            if future.done():
                raise
            raise TimeoutError(f"service `{handle.name}` did not answer `{method}` within {timeout} s") from error
    finally:
        pool.shutdown(wait=False)


class Context:
    """What a function or service is given as ``self.ctx``."""

    def __init__(self, name: str, calls: ServiceCalls, logger: logging.Logger, replica: int = 0, parallelism: int = 1):
        self.name = name
        self.logger = logger
        self.call_service = calls
        self.replica = replica
        self.parallelism = parallelism
