"""Calls that take too long, never end or end a program, and work left behind: on threads and async."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sage import BaseService, DeadLetter, JobFailed, LocalEnvironment, MapFunction, Retry, SinkFunction


def first_even(numbers: list[int]) -> int:
    return next(number for number in numbers if number % 2 == 0)


async def first_even_async(numbers: list[int]) -> int:
    await asyncio.sleep(0)
    return first_even(numbers)


async def first_even_on_thread(numbers: list[int]) -> int:
    return await asyncio.to_thread(first_even, numbers)


class FirstEven(MapFunction):
    def execute(self, numbers: list[int]) -> int:
        return first_even(numbers)


class Evens(BaseService):
    def process(self, numbers: list[int]) -> int:
        return first_even(numbers)


#: How a function can be called: what it is, and its options.
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (first_even, {}),
    "class": (FirstEven, {}),
    "threads": (first_even, {"in_flight": 4}),
    "class on threads": (FirstEven, {"in_flight": 4}),
    "threads in time": (first_even, {"in_flight": 4, "timeout": 30.0}),
    "async": (first_even_async, {}),
    "async on a thread": (first_even_on_thread, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stop_iteration_is_an_exception_like_others(way: str) -> None:
    function, options = WAYS[way]
    env = LocalEnvironment("stops")
    got = env.from_batch([[2], [1, 3], [4]]).map(function, **options).collect()
    with pytest.raises(JobFailed, match="StopIteration") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, StopIteration) and len(got) <= 2
    env = LocalEnvironment("goes-on")
    got = env.from_batch([[2], [1, 3], [4]]).map(function, on_error="skip", **options).collect()
    env.submit(autostop=True)
    assert got == [2, 4]
    letters: list[Any] = []
    env = LocalEnvironment("letters")
    stream = env.from_batch([[2], [1, 3], [4]])
    stream.map(function, retry=Retry(2, 0, 0), on_error=DeadLetter(letters.append), **options).collect()
    env.submit(autostop=True)
    assert [(letter.record, letter.attempts) for letter in letters] == [([1, 3], 2)]


@pytest.mark.parametrize("how", ["call", "future", "timeout"])
def test_a_stop_iteration_of_a_service_reaches_its_caller(how: str) -> None:
    env = LocalEnvironment("service")
    evens = env.service("evens", Evens, timeout=30 if how == "timeout" else None)

    class Ask(MapFunction):
        def execute(self, numbers: list[int]) -> Any:
            if how == "future":
                return self.call_service_async("evens", numbers).result()
            return evens.process(numbers)

    env.from_batch([[1]]).map(Ask).collect()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, StopIteration)


@pytest.mark.parametrize("hook", ["__init__", "setup", "stop", "cleanup"])
def test_a_stop_iteration_of_a_hook_fails_the_job(hook: str) -> None:
    def raises(self: Any) -> None:
        raise StopIteration

    async def raises_async(self: Any) -> None:
        raise StopIteration

    for raising in (raises, raises_async) if hook != "__init__" else (raises,):
        env = LocalEnvironment("hook")
        env.register_service("db", type("Db", (BaseService,), {hook: raising}))
        env.from_batch([1]).collect()
        with pytest.raises(JobFailed, match="StopIteration"):
            env.submit(autostop=True)


class Own(BaseException):
    """Ends programs that know of it."""


@pytest.mark.parametrize("way", ["plain", "threads", "async", "async on a thread"])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, Own, GeneratorExit])
def test_what_ends_a_program_fails_the_job_whatever_its_policies_say(kind: type[BaseException], way: str) -> None:
    calls: list[int] = []

    def ends(number: int) -> int:
        calls.append(number)
        raise kind(3)

    async def ends_async(number: int) -> int:
        await asyncio.sleep(0)
        return ends(number)

    async def ends_on_thread(number: int) -> int:
        return await asyncio.to_thread(ends, number)

    function = {"async": ends_async, "async on a thread": ends_on_thread}.get(way, ends)
    options = {"in_flight": 1} if way != "plain" else {}
    for policy in ({"on_error": "skip"}, {"retry": Retry(5, 0, 0)}, {"on_error": DeadLetter(print)}):
        calls.clear()
        env = LocalEnvironment("ends")
        env.from_batch([1]).map(function, **options, **policy).collect()
        with pytest.raises(JobFailed) as failed:
            env.submit(autostop=True)
        assert type(failed.value.__cause__) is kind and calls == [1]


def test_a_task_that_ends_its_loop_fails_the_job() -> None:
    async def ends() -> None:
        sys.exit(3)

    async def leaves(number: int) -> int:
        asyncio.create_task(ends())
        await asyncio.sleep(0.01)
        return number

    env = LocalEnvironment("leaves")
    got = env.from_batch([1, 2]).map(leaves).collect()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    # Both were answered; a job that fails may drop what is on its way to a sink.
    assert got == [1, 2][: len(got)] and isinstance(failed.value.__cause__, SystemExit)


@pytest.mark.parametrize("is_async", [False, True])
def test_the_time_of_a_call_runs_from_its_beginning(is_async: bool) -> None:
    """Two slow calls hold the others up; no other is late."""
    released, called = threading.Event(), set()

    def ask(number: int) -> int:
        called.add(number)
        if number < 2:
            released.wait(30)
        return number

    async def ask_async(number: int) -> int:
        # One that blocks the loop.
        called.add(number)
        if number < 2:
            time.sleep(0.3)
            await asyncio.sleep(3600)
        return number

    env = LocalEnvironment("late")
    function = ask_async if is_async else ask
    got = env.from_batch(range(50)).map(function, in_flight=2, timeout=0.2, on_error="skip").sink(print).collect()
    timer = threading.Timer(1.5, released.set)
    timer.start()
    env.submit(autostop=True)
    timer.join()
    assert got == list(range(2, 50)) and called == set(range(50))


QUICK = {"timeouts": {"cancel": 0.5, "drain": 0.5}}


@pytest.mark.parametrize("config", [QUICK, {"timeouts": {"cancel": 0.5}}])
def test_a_call_on_a_thread_that_never_returns_is_named_and_the_rest_is_right(config: dict[str, Any]) -> None:
    released = threading.Event()

    def stuck(number: int) -> int:
        if number == 1:
            released.wait()
        return number

    env = LocalEnvironment("stuck", config=config)
    got = env.from_batch(range(100)).map(stuck, in_flight=2, timeout=0.05, on_error="skip").collect()
    with pytest.raises(JobFailed, match="released.wait") as failed:
        env.submit(autostop=True)
    released.set()
    report = failed.value.report
    assert got == [0, *range(2, 100)] and report.data["cleanliness"] == "unclean"
    assert report.outcome == "succeeded" and "stuck" in report.data["left"][0]["why"]
    assert report.data["left"][0]["what"] == "task `stuck`" and "functions of" not in f"{failed.value}{report}"


def test_calls_that_never_return_starve_nobody_and_are_limited() -> None:
    released = threading.Event()

    def stuck(number: int) -> int:
        if number % 2:
            released.wait()
        return number

    env = LocalEnvironment("starved", config=QUICK)
    got = env.from_batch(range(40)).map(stuck, in_flight=2, timeout=0.02, on_error="skip").collect()
    with pytest.raises(JobFailed, match="and 17 more"):
        env.submit(autostop=True)
    assert got == list(range(0, 40, 2))
    env = LocalEnvironment("limited", config=QUICK)
    env.from_batch(iter(int, 1)).map(lambda _: released.wait(), in_flight=64, timeout=0.02, on_error="skip").collect()
    with pytest.raises(JobFailed, match="256 calls .* have not returned"):
        env.submit(autostop=True)
    released.set()


def test_a_call_that_returns_late_goes_on_with_other_records() -> None:
    others = threading.Semaphore(0)

    def late(number: int) -> int:
        others.release()
        if number < 2:
            # Until the others were called, which only happens once this was given up.
            for _ in range(50):
                others.acquire()
        return number

    env = LocalEnvironment("late")
    got = env.from_batch(range(200)).map(late, in_flight=2, timeout=0.05, on_error="skip").collect()
    env.submit(autostop=True)
    assert got == list(range(2, 200))


async def ignores_cancellation(number: int) -> int:
    while number == 1:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    return number


def test_an_async_call_that_takes_no_cancellation_is_named_and_the_rest_is_right() -> None:
    env = LocalEnvironment("deaf", config=QUICK)
    got = env.from_batch(range(9)).map(ignores_cancellation, in_flight=2, timeout=0.05, on_error="skip").collect()
    with pytest.raises(JobFailed, match="await asyncio.sleep"):
        env.submit(autostop=True)
    assert got == [0, *range(2, 9)]
    gc.collect()


def test_an_async_call_that_blocks_the_loop_for_good_is_named() -> None:
    released = threading.Event()

    async def blocks(number: int) -> int:
        if number == 1:
            released.wait()
        return number

    env = LocalEnvironment("blocks", config=QUICK)
    env.from_batch(range(9)).map(blocks, in_flight=2, timeout=0.05, on_error="skip").collect()
    with pytest.raises(JobFailed, match="blocks its event loop") as failed:
        env.submit(autostop=True)
    released.set()
    assert "released.wait()" in str(failed.value.report)


ABANDONS = """
import sys, time
from sage import LocalEnvironment
def stuck(x):
    if x == 1: time.sleep(1e6)
    return x
env = LocalEnvironment("b", config={"timeouts": {"cancel": 0.3, "drain": 0.3}})
out = env.from_batch([0, 1, 2]).map(stuck, in_flight=2, timeout=0.2, on_error="skip").collect()
try: env.submit(autostop=True)
except RuntimeError as error: print(out, "in stuck" in str(error))
"""


def test_a_call_that_never_returns_keeps_no_program_from_ending() -> None:
    ran = subprocess.run([sys.executable, "-c", ABANDONS], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[0, 2] True\n", "")


READS = """
from sage import LocalEnvironment
env = LocalEnvironment("reads", config={"timeouts": {"cancel": 0.3, "drain": 0.3}})
env.from_source(input).sink(print)
env.submit()
print("ends", flush=True)
"""


def test_a_source_that_waits_for_a_line_lets_the_program_end() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", READS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None and program.stderr is not None
        assert (program.wait(60), program.stdout.read()) == (0, "ends\n"), program.stderr.read()


def test_sigterm_ends_a_program_whose_call_never_returns() -> None:
    source = ABANDONS.replace('timeout=0.2, on_error="skip"', "timeout=1e6").replace(
        "if x == 1: time", "if x == 1: print('stuck', flush=True); time"
    )
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"stuck\n"
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=60)
    assert child.returncode == 143


class Db(BaseService):
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def write(self, what: str) -> None:
        self.log.append(what)

    def cleanup(self) -> None:
        self.log.append("cleaned")


async def to_thread(work: Callable[[], None]) -> None:
    asyncio.get_running_loop().run_in_executor(None, work)


async def in_task(work: Callable[[], None]) -> None:
    async def later() -> None:
        await asyncio.sleep(0.05)
        asyncio.create_task(asyncio.to_thread(work))

    asyncio.create_task(later())


async def in_callback(work: Callable[[], None]) -> None:
    asyncio.create_task(asyncio.sleep(0.05)).add_done_callback(lambda _: work())


async def in_generator(work: Callable[[], None]) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0.01)
            work()

    kept.append(numbers())
    async for _ in kept[-1]:
        break


async def cancelled(work: Callable[[], None]) -> None:
    def slow() -> None:
        time.sleep(0.3)
        work()

    await asyncio.to_thread(slow)


kept: list[Any] = []


@pytest.mark.parametrize("leave", [to_thread, in_task, in_callback, in_generator, cancelled])
def test_contract_07_work_left_behind_ends_before_the_services(leave: Any) -> None:
    log: list[str] = []
    env = LocalEnvironment("left")
    db = env.service("db", Db, args=(log,))

    async def function(number: int) -> int:
        await leave(lambda: db.write(f"{number}"))
        return number

    env.from_batch([1, 2]).map(function, timeout=0.2, on_error="skip").collect()
    job = env.submit(autostop=True)
    kept.clear()
    assert sorted(log[:2]) == ["1", "2"] and log[2:] == ["cleaned"]
    assert "is clean" in str(job.report)


def test_a_subprocess_left_behind_is_waited_for(tmp_path: Any) -> None:
    env = LocalEnvironment("process")

    async def begins(path: str) -> None:
        await asyncio.create_subprocess_exec(sys.executable, "-c", f"import time; time.sleep(.2); open({path!r}, 'w')")

    env.from_batch([str(tmp_path / "done")]).sink(begins)
    env.submit(autostop=True)
    assert os.path.exists(tmp_path / "done")


def test_work_left_behind_that_does_not_end_is_named() -> None:
    released = threading.Event()

    async def leaves(number: int) -> int:
        asyncio.get_running_loop().run_in_executor(None, lambda: released.wait())
        asyncio.create_task(asyncio.sleep(3600))
        await asyncio.create_subprocess_exec("sleep", "3600")
        return number

    env = LocalEnvironment("left", config=QUICK)
    got = env.from_batch([1]).map(leaves).collect()
    with pytest.raises(JobFailed, match="released.wait") as failed:
        env.submit(autostop=True)
    released.set()
    assert got == [1]
    assert "asyncio.sleep(3600)" in str(failed.value.report) or "sleep" in str(failed.value.report)
    assert "which was killed" in str(failed.value.report)


def test_cancelling_a_job_cancels_what_was_left_behind() -> None:
    left, ended = threading.Event(), threading.Event()

    async def waits() -> None:
        left.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def leaves(_: int) -> None:
        asyncio.create_task(waits())
        await asyncio.sleep(3600)

    env = LocalEnvironment("cancelled")
    env.from_batch([1]).sink(leaves)
    job = env.submit()
    assert left.wait(30)
    job.cancel()
    with pytest.raises(JobFailed, match="cancelled") as failed:
        job.wait()
    assert ended.is_set() and "is clean" in str(failed.value.report)


class Slow(SinkFunction):
    async def execute(self, number: int) -> None:
        await asyncio.sleep(0.001)


def test_no_thread_is_left_at_the_very_return() -> None:
    def job() -> None:
        env = LocalEnvironment("return")
        stream = env.from_batch(range(20))
        stream.map(lambda number: number, in_flight=4, timeout=30.0).sink(Slow)
        stream.map(first_even_on_thread, on_error="skip").collect()
        env.submit(autostop=True)

    job()
    job()
    own = {"sage-loop", "sage-loop-call", "sage-<lambda>"[:15]}
    for _ in range(30):
        job()
        names = {thread.name for thread in threading.enumerate()}
        assert not names & own and len(names) == len({thread.name for thread in threading.enumerate()})
