"""The event loop of a job, on a thread of its own: see ``JobLoop`` for when it begins and ends.

Whatever a function leaves behind belongs to its ``Owner``, which waits for it: tasks it created, calls it gave to the
loop's threads, subprocesses and async generators.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

from ._sage import WorksFor
from ._stacks import programs_part, stuck_in, where_stuck
from ._threads import Threads, joined

#: Whose call it is that runs here.
OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)

#: How many threads the loop has for what is not async, at most.
_THREADS = 32


class Owner:
    """The work that functions of an operator have begun on the loop and not awaited."""

    def __init__(self) -> None:
        self.tasks: set[Any] = set()
        #: What runs on the loop's own threads.
        self.calls: set[Any] = set()
        self.processes: set[Any] = set()
        self.generators: WeakSet[Any] = WeakSet()
        self._killed: list[Any] = []

    async def ended(self) -> None:
        """Waits until nothing of it is left."""
        while True:
            processes = [process._wait() for process in self.processes if process.get_returncode() is None]
            calls = [asyncio.wrap_future(call) for call in self.calls if not call.done()]
            waiting = [*self.tasks, *processes, *calls]
            if not waiting:
                break
            await asyncio.gather(*waiting, return_exceptions=True)
            # What is called when they are done, which may begin something else.
            await asyncio.sleep(0)
        while self.generators:
            try:
                await self.generators.pop().aclose()
            except RuntimeError:
                pass  # somebody goes through it at the moment, and closes it

    async def buried(self) -> None:
        """Waits for the processes that ``left`` killed."""
        for process in self._killed:
            await process._wait()
            process.close()

    def left(self) -> list[str]:
        """The work that has not ended, and where it is."""
        tasks = [f"a task, here:\n{stack_of_task(task)}" for task in list(self.tasks)]
        running = [process for process in list(self.processes) if process.get_returncode() is None]
        for process in running:
            process.kill()
        self._killed = running
        return [*tasks, *(f"process {process.get_pid()}, which was killed" for process in running)]


class Loop:
    """The loop with its thread. The thread that makes it works for the job."""

    def __init__(self, on_failure: Callable[[], object] | None = None) -> None:
        self._on_failure = on_failure
        self.loop = asyncio.new_event_loop()
        #: What a program's task has ended the loop with.
        self.broken: list[BaseException] = []
        #: Whether it was told that a call blocks it for good.
        self.is_told = False
        self._job = WorksFor.here()
        self._is_ending = False
        self._watchers: list[threading.Thread] = []
        self.threads = Threads(_THREADS, "sage-loop-call", self._owned)
        self.loop.set_default_executor(self.threads)
        self.loop.set_task_factory(self._task)
        self._know_processes()
        self.thread = threading.Thread(target=self._run, name="sage-loop", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        if self._job is not None:
            self._job.enter()
        asyncio.set_event_loop(self.loop)
        while not self._is_ending:
            self.loop.call_soon(self._know_generators)
            try:
                self.loop.run_forever()
            except BaseException as exception:  # such as the `SystemExit` of a task, which ends a loop
                self.broken.append(exception)
                if self._on_failure is not None and isinstance(exception, Exception):
                    self._on_failure()  # the loop itself is broken: what a task raises comes not here
        self.loop.close()

    def run(self, awaitable: Awaitable[Any], where: Callable[[], str] | None = None) -> Any:
        """Awaits a coroutine on the loop while the calling thread waits. Returns its result, or raises its
        exception. ``where`` tells where it is, if that is not in the coroutine itself."""
        future: Future[Any] = Future()
        tasks: list[asyncio.Task[None]] = []

        async def settle() -> None:
            try:
                future.set_result(await awaitable)
            except BaseException as exception:  # the loop has to go on, whatever it is
                future.set_exception(exception)

        def begin() -> None:
            tasks.append(asyncio.Task(settle(), loop=self.loop))

        if threading.current_thread() is self.thread:
            raise RuntimeError("what is awaited on the job's loop cannot be waited for by a function that runs on it")
        self.loop.call_soon_threadsafe(begin)
        where = where or (lambda: stack_of_task(tasks[0]) if tasks else "")
        with stuck_in(lambda: self.stuck() or where()):
            return future.result()

    def stuck(self) -> str | None:
        """Where the loop's thread is, if it is in a program's code."""
        besides = os.path.dirname(asyncio.__file__), selectors.__file__, threading.__file__
        return where_stuck(self.thread.ident or 0, besides)

    def end(self, patience: float) -> None:
        """Cancels the rest, and ends the thread. Raises ``RuntimeError`` for work that does not end, unless it was
        reported before."""
        if self.is_told:
            self.abandon()
            return
        over = threading.Event()

        async def clear() -> None:
            try:
                me = asyncio.current_task()
                while tasks := [task for task in asyncio.all_tasks() if task is not me]:
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                await self.loop.shutdown_asyncgens()
            finally:
                over.set()

        def begin() -> None:
            clearing.append(asyncio.Task(clear(), loop=self.loop))

        clearing: list[Any] = []
        self.loop.call_soon_threadsafe(begin)
        is_clear = over.wait(patience)
        left = [] if is_clear else self._left(clearing)
        left += self.threads.close(patience if is_clear else 0)
        self.abandon()
        if left:
            raise RuntimeError("\n".join([f"did not end within {patience:g} s:", *left]))

    def _left(self, clearing: list[Any]) -> list[str]:
        stuck = self.stuck()
        if stuck is not None:
            return [f"the event loop, here:\n{stuck}"]
        tasks = [task for task in asyncio.all_tasks(self.loop) if task not in clearing]
        return [f"a task, here:\n{stack_of_task(task)}" for task in tasks]

    def abandon(self) -> None:
        """Ends the thread, unless it is in a program's code."""
        self._is_ending = True
        self.loop.call_soon_threadsafe(self._stop)
        # One that is blocked does not end by itself.
        self.thread.join(None if self.stuck() is None else 1)
        self.threads.close(0)
        if not self.thread.is_alive():
            joined(self.thread)
        for watcher in self._watchers:
            # Its process has ended, unless it is that of another loop which began at the same time.
            watcher.join(1)
            if not watcher.is_alive():
                joined(watcher)

    def _stop(self) -> None:
        for task in asyncio.all_tasks():
            # It was told of, or its holder; asyncio would complain of it again.
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            task.cancel()
        self.loop.call_soon(self.loop.stop)

    def _owned(self, future: Any) -> None:
        owner = OWNER.get()
        if owner is not None:
            owner.calls.add(future)
            future.add_done_callback(owner.calls.discard)

    def _task(self, loop: Any, coroutine: Any, **options: Any) -> Any:
        """Makes a task of a program's."""
        context = options.get("context")
        owner = OWNER.get() if context is None else context.get(OWNER)
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        if owner is not None and not task.done():
            owner.tasks.add(task)
            task.add_done_callback(owner.tasks.discard)
        return task

    def _know_generators(self) -> None:
        hooks = sys.get_asyncgen_hooks()

        def begins(generator: Any) -> None:
            owner = OWNER.get()
            if owner is not None:
                owner.generators.add(generator)
            if hooks.firstiter is not None:
                hooks.firstiter(generator)

        sys.set_asyncgen_hooks(begins, hooks.finalizer)

    def _know_processes(self) -> None:
        loop: Any = self.loop

        def known(begin: Callable[..., Any]) -> Callable[..., Any]:
            async def process(*args: Any, **kwargs: Any) -> Any:
                before = set(threading.enumerate())
                transport, protocol = await begin(*args, **kwargs)
                # Where asyncio waits for the end of a process on a thread, which nobody else joins.
                others = set(threading.enumerate()) - before
                self._watchers += [thread for thread in others if thread.name.startswith("asyncio-waitpid")]
                owner = OWNER.get()
                if owner is not None:
                    owner.processes = {known for known in owner.processes if known.get_returncode() is None}
                    owner.processes.add(transport)
                return transport, protocol

            return process

        loop.subprocess_exec = known(loop.subprocess_exec)
        loop.subprocess_shell = known(loop.subprocess_shell)


def stack_of_task(task: Any) -> str:
    """Where a task is."""
    return stack_of(task.get_coro())


def stack_of(awaited: Any) -> str:
    """Where a coroutine or an async generator is."""
    calls: list[traceback.FrameSummary] = []
    # What it awaits, which awaits something else in its turn.
    while (frame := getattr(awaited, "cr_frame", getattr(awaited, "ag_frame", None))) is not None:
        calls += traceback.extract_stack(frame, 1)
        awaited = awaited.cr_await if hasattr(awaited, "cr_await") else awaited.ag_await
    return programs_part(calls)
