"""What a signal's handler raises in a call that waits for a job, before the engine waits and hears handlers itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage import BaseService, JobId, LocalEnvironment
from sage import _running


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


def strike(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Has the handler raise at the beginning of a method, when that is called first."""
    then, numbers = getattr(owner, name), iter([signal.SIGUSR1])

    def struck(*args: Any, **kwargs: Any) -> Any:
        for number in numbers:
            signal.raise_signal(number)
        return then(*args, **kwargs)

    monkeypatch.setattr(owner, name, struck)


#: Calls that drain the job before they wait for it: it may have ended by that when the handler raises.
DRAINING = {"stop", "close", "with", "job manager"}


def check_heard(call: Callable[[], object], cleaned: int, outcomes: tuple[str, ...] = ("cancelled",)) -> None:
    """The call raises what the handler raised, when the job was cancelled and is clean."""
    with pytest.raises(Stopped) as stopped:
        call()
    assert stopped.value.report.outcome in outcomes  # type: ignore[attr-defined]
    assert Db.cleaned == cleaned + 1 and not _running._running and not _running._starting


CALLS: dict[str, Callable[[LocalEnvironment, JobId], object]] = {
    "wait": lambda env, job: job.wait(),
    "wait with a timeout": lambda env, job: job.wait(48 * 3600),
    "report": lambda env, job: job.report,
    "wait of the environment": lambda env, job: env.wait(),
    "stop": lambda env, job: env.stop(),
    "close": lambda env, job: env.close(),
    "with": lambda env, job: env.__exit__(None, None, None),
    "job manager": lambda env, job: env.jobmanager.pause_job(job),
}


@pytest.mark.parametrize("call", CALLS)
def test_contract_18_what_a_handler_raises_between_a_call_and_its_wait_is_raised_when_the_job_is_clean(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, cleaned = endless(), Db.cleaned
    job = env.submit()
    strike(monkeypatch, _running.Run, "wait")
    outcomes = ("cancelled", "succeeded") if call in DRAINING else ("cancelled",)
    check_heard(lambda: CALLS[call](env, job), cleaned, outcomes)


@pytest.mark.parametrize("call", ["close", "with"])
def test_contract_18_what_a_handler_raises_while_a_pipeline_is_let_go_is_raised_when_the_job_is_clean(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, cleaned = endless(), Db.cleaned
    job = env.submit()
    strike(monkeypatch, LocalEnvironment, "_let_go")
    check_heard(lambda: CALLS[call](env, job), cleaned)


@pytest.mark.parametrize("autostop", [True, False])
def test_contract_18_what_a_handler_raises_when_a_job_has_just_begun_leaves_no_job(
    autostop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, cleaned = endless(), Db.cleaned
    strike(monkeypatch, LocalEnvironment, "_begun")
    check_heard(lambda: env.submit(autostop), cleaned)
    assert env.job is not None and not env.is_running


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
