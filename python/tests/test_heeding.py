"""What a handler of a signal raises in a call that waits for a job, at each line of the call before the engine waits.

A tracer sends the signal at one line after the other, so that the interpreter calls the handler there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import pytest

import sage
from sage import BaseService, LocalEnvironment
from sage import _running

FOLDER = os.path.dirname(sage.__file__)

#: At most so many lines of a call run before it begins to hear handlers: there one raises as if before the call.
MOST_UNHEARD = 24


class Stopped(Exception):
    pass


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Stopped

    before = signal.signal(signal.SIGUSR1, stop)
    yield
    signal.signal(signal.SIGUSR1, before)


class Db(BaseService):
    cleaned = 0

    def cleanup(self) -> None:
        type(self).cleaned += 1


def endless() -> LocalEnvironment:
    env = LocalEnvironment("endless")
    env.register_service("db", Db)
    env.from_source(lambda: None, delay=0.01).sink(str)
    return env


def left_by(call: Callable[[], object], at: int, begins: CodeType | None = None) -> tuple[bool, bool]:
    """Sends the signal at a line of a call, counted from the first one of ``begins``. Says whether the call came so far
    and whether it left a job behind that nobody waited for."""
    seen = 0
    has_begun = begins is None
    is_sent = False

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal seen, has_begun, is_sent
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        has_begun |= frame.f_code is begins
        if has_begun and event == "line" and not is_sent:
            if seen == at:
                is_sent = True
                sys.settrace(None)
                signal.raise_signal(signal.SIGUSR1)
            seen += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Stopped:
        pass
    finally:
        sys.settrace(before)
    return is_sent, any(not run.job.is_over for run in _running._running)


def drained(env: LocalEnvironment) -> sage.JobId:
    """A job that ends by itself; it is not over as long as nobody waits for it."""
    job = env.submit()
    job.drain()
    return job


def waits(call: Callable[[sage.JobId], object]) -> Callable[[LocalEnvironment], Callable[[], object]]:
    def prepare(env: LocalEnvironment) -> Callable[[], object]:
        job = drained(env)
        return lambda: call(job)

    return prepare


def ends(call: Callable[[LocalEnvironment], object]) -> Callable[[LocalEnvironment], Callable[[], object]]:
    def prepare(env: LocalEnvironment) -> Callable[[], object]:
        env.submit()
        return lambda: call(env)

    return prepare


manager = LocalEnvironment("manager").jobmanager

#: Each prepares an environment, and gives the call that is to be interrupted.
CALLS: dict[str, Callable[[LocalEnvironment], Callable[[], object]]] = {
    "wait": waits(lambda job: job.wait()),
    "wait with a timeout": waits(lambda job: job.wait(48 * 3600)),
    "report": waits(lambda job: job.report),
    "wait of the environment": lambda env: (drained(env), env.wait)[1],
    "stop": ends(lambda env: env.stop()),
    "close": ends(lambda env: env.close()),
    "with": ends(lambda env: env.__exit__(None, None, None)),
    "job manager": waits(lambda job: manager.pause_job(job)),
}


@pytest.mark.parametrize("prepare", CALLS.values(), ids=CALLS.keys())
def test_contract_18_what_a_handler_raises_at_any_line_of_a_call_that_waits_is_raised_when_the_job_is_over(
    prepare: Callable[[LocalEnvironment], Callable[[], object]],
) -> None:
    lefts: list[bool] = []
    while True:
        env, cleaned = endless(), Db.cleaned
        is_sent, is_left = left_by(prepare(env), len(lefts))
        if is_left:
            env.stop()
        assert Db.cleaned == cleaned + 1 and not env.is_running
        if not is_sent:
            break
        lefts.append(is_left)
    unheard = sum(lefts)
    assert len(lefts) > 40 and unheard <= MOST_UNHEARD
    assert not any(lefts[unheard:]), "once it hears handlers, it hears them to its end"


@pytest.mark.parametrize("autostop", [True, False])
def test_contract_18_what_a_handler_raises_at_any_line_of_a_submit_leaves_no_job(autostop: bool) -> None:
    lefts: list[bool] = []
    while True:
        env = endless()
        if autostop:
            env = LocalEnvironment("ends")
            env.from_batch([1, 2]).sink(str)
        is_sent, is_left = left_by(lambda: env.submit(autostop), len(lefts), _running.start.__code__)
        if is_left:
            env.stop()
        assert not env.is_running
        assert not _running._starting, "or the end of the interpreter would wait for it"
        if not is_sent:
            break
        lefts.append(is_left)
    assert len(lefts) > 100
    # Without a wait, the last lines of the call are as those after it: the job goes on, and the environment has it.
    last = 0 if autostop else MOST_UNHEARD
    assert not any(lefts[: len(lefts) - last])


def test_a_timeout_that_is_none_is_refused_and_the_job_goes_on() -> None:
    env = endless()
    job = env.submit()
    for wrong in (-1, float("nan"), "1", True):
        with pytest.raises(ValueError, match="`timeout` is a time that is not negative, in seconds"):
            job.wait(wrong)  # type: ignore[arg-type]
    assert job.wait(0) is None
    env.stop()
    assert job.report.outcome == "succeeded"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_contract_29_a_forked_process_is_refused_a_stop_at_once() -> None:
    env = endless()
    env.submit()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            env.stop()
        except RuntimeError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        assert "this job belongs to the process that this one was forked from" in told.read()
    assert os.waitpid(child, 0)[1] == 0
    env.stop()
