"""Serves a service in a process of its own, for a job in another one: see ``_isolated.py`` for the other side.

The main thread reads what the job sends. Each hook and call runs on a thread, of which there are as many as callers
wait in the job; async methods run on the event loop of the service's hooks.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
from collections.abc import Callable
from contextvars import ContextVar
from operator import attrgetter
from typing import Any

from ._batched import Together
from ._context import Context
from ._pickling import packed_exception
from ._services import USUAL, Hooks, methods_of, takes_key
from ._threads import Threads
from ._wire import AWAITED, CLOSE, DROP, HOOK, INVOKE, INVOKED, NAMED, RETURN, SERVE, packed, unpacked
from ._worker import Calls, Link, Printed

#: How many hooks and calls are under way at most. Callers of a job have threads of their own, which are fewer.
_MOST = 4096

#: The number of the call that the code at hand serves.
_CALL: ContextVar[int] = ContextVar("call", default=0)


class ServiceLink(Link):
    """The socket to the job, which the main thread reads."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.is_read = True

    def _number(self) -> int:
        """It has that of the call that the question comes from, whose caller then answers it."""
        return (_CALL.get() << 32) | next(self._numbers) % (1 << 32)

    def _reads_here(self) -> bool:
        return False

    def receive(self) -> tuple[int, int, bytes, list[bytes | bytearray]]:
        """The next frame that is no answer."""
        while True:
            came = self._channel.receive()
            if came[0] == AWAITED:
                self._waiters[came[1]].put(None)
            elif came[0] in (RETURN, NAMED):
                self._waiters.pop(came[1]).put(came[2:])
            else:
                return came


class Served:
    """The service, and the job that it works for."""

    def __init__(self, link: ServiceLink) -> None:
        self._link = link
        self._threads = Threads(_MOST, "sage-call", lambda _: None)
        self._hooks: Hooks | None = None
        self._calls: Calls | None = None
        #: Async calls under way, by their numbers.
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def run(self) -> None:
        """Runs until the job says that it is over."""
        self._link.greet()
        while True:
            kind, number, first, others = self._link.receive()
            if kind == CLOSE:
                break
            if kind == DROP:
                self._drop(number)
            else:
                self._threads.submit(self._serve, kind, number, first, others)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, Printed):
                stream.finish()

    def _serve(self, kind: int, number: int, first: bytes, others: list[bytes | bytearray]) -> None:
        before = _CALL.set(number)
        try:
            value = unpacked(first, others)
            del first, others
            result = _DOES[kind](self, value)
            if kind == INVOKE and hasattr(type(result), "__await__"):
                self._await(number, result)
                return
        except BaseException as exception:
            self._answer(number, False, exception)
        else:
            self._answer(number, True, result)
        finally:
            _CALL.reset(before)

    def _answer(self, number: int, is_result: bool, value: Any) -> None:
        try:
            parts = packed((is_result, value if is_result else packed_exception(value)))
        except Exception as error:
            kind = type(value).__qualname__
            told = TypeError(
                f"a result of type `{kind}` cannot be pickled, and so not leave the process of its service: "
                f"{type(error).__name__}: {error}"
            )
            parts = packed((False, packed_exception(told)))
        self._link.send_parts(INVOKED, number, parts)

    def _make(self, told: dict[str, Any]) -> Any:
        sys.path[:] = told["path"]
        for name, level in told["levels"].items():
            logging.getLogger(name or None).setLevel(level)
        factory, name, job = pickle.loads(told["pickled"])
        calls = self._calls = Calls(job, self._link)
        calls.job_id, calls.log_dir = told["job_id"], told["log_dir"]
        context = Context(name, calls, job.logger.getChild(name))
        hooks = self._hooks = Hooks(lambda: factory.create_service(context), calls.loop)
        service = hooks.instance
        usual = [name for name in USUAL if callable(getattr(service, name, None))]
        methods = methods_of(service)
        found = {name: getattr(service, name) for name in {*methods, *usual}}
        # Called with several requests by another name: see `_invoke`.
        batched = {name: method for name, method in found.items() if isinstance(method, Together)}
        found |= {f"{name}.together": method.together for name, method in batched.items()}
        awaited = [name for name, method in found.items() if _is_async(method)]
        settings = {name: method.batching._replace(cost=None) for name, method in batched.items()}
        keyed = [name for name, method in found.items() if takes_key(method)]
        return type(service).__name__, methods, usual, awaited, settings, keyed

    def _hook(self, name: str) -> None:
        getattr(self._hooks, name)()

    def _invoke(self, call: tuple[str, tuple[Any, ...], dict[str, Any]]) -> Any:
        method, args, kwargs = call
        assert self._hooks is not None, "it was made"
        try:
            called = attrgetter(method)(self._hooks.instance)
        except AttributeError as error:
            raise self._hooks.explain(method, error) from None
        return called(*args, **kwargs)

    # Async methods.

    def _await(self, number: int, result: Any) -> None:
        assert self._calls is not None, "it was made"
        loop = self._calls.loop.begun().loop

        async def settle() -> None:
            try:
                value = True, await result
            except BaseException as exception:  # the loop has to go on, whatever it is
                value = False, exception
            del self._tasks[number]
            self._answer(number, *value)

        def begin() -> None:
            self._tasks[number] = asyncio.Task(settle(), loop=loop)

        loop.call_soon_threadsafe(begin)

    def _drop(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None:
            task.get_loop().call_soon_threadsafe(task.cancel)


def _is_async(method: Any) -> bool:
    return asyncio.iscoroutinefunction(method)


_DOES: dict[int, Callable[[Served, Any], Any]] = {SERVE: Served._make, HOOK: Served._hook, INVOKE: Served._invoke}
