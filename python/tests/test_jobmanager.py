"""The job manager of this process: what it tells of jobs, and how it ends them and submits them anew."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, MapFunction, SourceFunction
from sage._jobmanager import MOST_ENDED, JobManager
from sage.kernel.jobmanager.job_manager import JobManager as OfTheSeed
from sage.runtime import JobManager as OfTheLast


@pytest.fixture
def manager() -> Iterator[JobManager]:
    """A job manager without jobs."""
    JobManager().shutdown()
    yield JobManager()
    # Whatever a test came to, nothing waits any more.
    for step in _steps:
        step.set()
    _steps.clear()
    JobManager().shutdown()


#: The steps that jobs of the test may wait for.
_steps: list[threading.Event] = []


class Gate(BaseService):
    """Lets a job and a test go step by step."""

    def __init__(self, steps: dict[str, threading.Event]) -> None:
        self.steps = steps

    def process(self, name: str) -> None:
        self.steps[name].wait()

    def cleanup(self) -> None:
        self.steps["cleaning"].set()
        self.steps["clean"].wait()


class Held(MapFunction):
    def execute(self, record: int) -> int:
        self.call_service("gate", "work")
        return record


def held(name: str = "held") -> tuple[LocalEnvironment, dict[str, threading.Event]]:
    steps = {step: threading.Event() for step in ("work", "cleaning", "clean")}
    _steps.extend(steps.values())
    env = LocalEnvironment(name)
    env.register_service("gate", Gate, steps)
    env.from_batch([1, 2, 3]).map(Held).collect()
    return env, steps


class Endless(SourceFunction):
    def execute(self) -> int:
        return 1


def test_there_is_one_at_every_path_until_it_is_shut_down(manager: JobManager) -> None:
    assert OfTheSeed is OfTheLast is JobManager
    assert JobManager(enable_daemon=False, daemon_host="127.0.0.1", daemon_port=1) is JobManager.instance is manager
    env = LocalEnvironment("e")
    assert env.jobmanager is manager and env.client is manager
    manager.shutdown()
    assert JobManager.instance is None and env.jobmanager is not manager


def test_contract_a_thread_that_watches_sees_the_task_end_then_the_service_then_nothing(manager: JobManager) -> None:
    env, steps = held()
    job = env.submit()
    dispatcher = manager.jobs[job].dispatcher

    def seen() -> tuple[int, int, bool]:
        return len(dispatcher.tasks), len(dispatcher.services), dispatcher.is_running

    assert seen() == (1, 1, True) and manager.get_job_status(job)["dispatcher"] == {
        "task_count": 1,
        "service_count": 1,
        "is_running": True,
    }
    steps["work"].set()
    steps["cleaning"].wait()
    assert seen() == (0, 1, False) and dispatcher.services["gate"].state in ("stopping", "cleaning")
    assert manager.get_job_status(job)["status"] == "running", "until all is cleaned"
    steps["clean"].set()
    env.wait()
    assert seen() == (0, 0, False) and manager.get_job_status(job)["status"] == "stopped"


def test_a_task_is_what_runs_on_one_thread(manager: JobManager) -> None:
    env, steps = held()
    env.from_source(Endless).map(lambda _: steps["work"].wait(), parallelism=2, name="each").sink(lambda _: None)
    job = env.submit()
    dispatcher = manager.jobs[job].dispatcher
    assert set(dispatcher.tasks) == {"batch", "Endless", "each/0", "each/1", "lambda"}
    for step in steps.values():
        step.set()
    env.stop()
    assert dispatcher.tasks == {}


def test_status_has_the_fields_of_every_generation(manager: JobManager) -> None:
    env = LocalEnvironment("told")
    env.from_batch([1]).map(str).collect()
    job = env.submit(autostop=True)
    told = manager.get_job_status(job)
    assert told["success"] is True and told["uuid"] == job and told["name"] == told["env_name"] == "told"
    assert told["status"] == "stopped" and told["running"] is False and told["autostop"] is True
    assert told["environment"] == {"name": "told", "platform": "local", "description": ""}
    assert told["pipeline_size"] == 3 and told["restart_count"] == 0 and "error" not in told
    assert told["created_at"] <= told["started_at"] <= told["completed_at"]
    assert told["scheduler_metrics"]["total_scheduled"] == 1
    summary = {key: told[key] for key in ("uuid", "name", "status", "start_time", "runtime", "restart_count")}
    (listed,) = manager.list_jobs()
    assert summary.items() <= listed.items() and listed["last_update"] == told["stop_time"]
    info = manager.jobs[job]
    assert info.environment is env and info.stop_time is not None and info.start_time <= info.stop_time
    assert (info.get_runtime(), info.status, info.error_message) == ("0s", "stopped", None)
    assert manager.health_check()["jobs_count"] == 1 and manager.health_check()["status"] == "healthy"
    server = manager.get_server_info()
    assert (server["jobs"], server["environments_count"], server["daemon_enabled"]) == ([listed], 1, False)
    assert server["daemon_address"] is None and len(server["session_id"]) == 15


@pytest.mark.parametrize(("seconds", "told"), [(59, "59s"), (61, "1m 1s"), (3600, "1h 0m 0s"), (0, "0s")])
def test_a_runtime_in_words(manager: JobManager, seconds: int, told: str) -> None:
    env = LocalEnvironment("timed")
    env.from_batch([1]).collect()
    job = env.submit(autostop=True)
    info = manager.jobs[job]
    info._began = (info._ended or 0) - seconds
    assert info.get_runtime() == told


def test_a_job_that_failed_is_failed_with_its_error(manager: JobManager) -> None:
    env = LocalEnvironment("fails")
    env.from_batch(["x"]).map(int).collect()
    with pytest.raises(JobFailed):
        env.submit(autostop=True)
    assert env.env_uuid is not None
    told = manager.get_job_status(env.env_uuid)
    assert told["success"] is True and told["status"] == "failed" and "invalid literal" in told["error"]


def test_a_job_that_nobody_waited_for_is_told_as_it_ended(manager: JobManager) -> None:
    env = LocalEnvironment("alone")
    env.from_batch(["x"]).map(int).collect()
    job, over = env.submit(), threading.Event()
    job._run.job.on_end(over.set)  # type: ignore[union-attr]
    over.wait()
    assert manager.get_job_status(job)["status"] == "failed"
    with pytest.raises(JobFailed):
        env.wait()


ASKS: list[Callable[[JobManager], dict[str, Any]]] = [
    lambda manager: manager.get_job_status("nothing"),
    lambda manager: manager.pause_job("nothing"),
    lambda manager: manager.continue_job("nothing"),
    lambda manager: manager.resume_job("nothing"),
    lambda manager: manager.delete_job("nothing"),
]


@pytest.mark.parametrize("ask", ASKS)
def test_a_job_that_there_is_not_is_said_to_be_not_found(
    manager: JobManager, ask: Callable[[JobManager], dict[str, Any]]
) -> None:
    answer = ask(manager)
    assert answer["status"] == "not_found" and answer["uuid"] == "nothing" and "`nothing`" in answer["message"]
    assert not answer.get("success")


@pytest.mark.parametrize("how", ["pause_job", "stop"])
def test_pause_and_stop_drain_a_job_and_clean_it(manager: JobManager, how: str) -> None:
    env, steps = held()
    given: list[int] = []
    env.from_source(Endless).sink(given.append)
    job = env.submit()
    for step in steps.values():
        step.set()
    if how == "stop":
        env.stop()
    else:
        assert manager.pause_job(job)["status"] == "stopped"
    assert job.state == "ended" and job.report.outcome == "succeeded"
    assert job.report.services["gate"]["state"] == "cleaned"
    assert manager.pause_job(job)["status"] == "stopped", "once more changes nothing"


def test_a_pause_of_a_job_that_fails_says_so(manager: JobManager, caplog: pytest.LogCaptureFixture) -> None:
    came, goes = threading.Event(), threading.Event()
    env = LocalEnvironment("broken")
    env.from_source(Endless).map(lambda n: (came.set(), goes.wait(), n / 0)).collect()
    job = env.submit()
    came.wait()
    job.drain()
    goes.set()
    answer = manager.pause_job(job)
    assert answer["status"] == "failed" and "division by zero" in answer["message"]
    assert "division by zero" in caplog.text, "programs seldom look at the answer"
    env.stop()  # was told


def test_continue_submits_a_job_anew_under_its_first_id(manager: JobManager) -> None:
    env = LocalEnvironment("again")
    seen = env.from_batch([1, 2]).collect()
    job = env.submit(autostop=True)
    assert manager.continue_job(job)["status"] == "running"
    env.wait()
    assert seen == [1, 2, 1, 2] and list(manager.jobs) == [job]
    assert manager.get_job_status(job)["restart_count"] == 1 and manager.get_job_status(job)["status"] == "stopped"
    assert env.env_uuid not in (None, job), "the second has an id of its own, which is known too"
    assert manager.get_job_status(str(env.env_uuid))["uuid"] == job


def test_continue_ends_a_job_that_runs_first(manager: JobManager) -> None:
    env = LocalEnvironment("anew")
    env.from_source(Endless).sink(lambda _: None)
    job = env.submit()
    assert manager.resume_job(job)["status"] == "running"
    assert job.state == "ended" and env.is_running
    assert manager.get_job_status(job)["restart_count"] == 1
    env.stop()


def test_what_cannot_run_again_says_why(manager: JobManager) -> None:
    env = LocalEnvironment("once")
    env.from_batch(iter([1]), name="numbers").collect()
    job = env.submit(autostop=True)
    answer = manager.continue_job(job)
    assert answer["status"] == "failed" and "can be read once" in answer["message"]
    assert manager.get_job_status(job)["status"] == "stopped" and manager.get_job_status(job)["restart_count"] == 0
    del env
    gc.collect()
    answer = manager.continue_job(job)
    assert answer["status"] == "failed" and "environment" in answer["message"]


def test_a_job_whose_pipeline_was_closed_does_not_run_that_which_came_after(manager: JobManager) -> None:
    env = LocalEnvironment("closed")
    env.from_batch([1]).collect()
    job = env.submit(autostop=True)
    env.close()
    seen = env.from_batch([2]).collect()
    answer = manager.continue_job(job)
    assert answer["status"] == "failed" and "let go of its pipeline" in answer["message"]
    assert seen == [] and env.env_uuid is None and manager.get_job_status(job)["restart_count"] == 0
    next_job = env.submit(autostop=True)
    assert manager.continue_job(next_job)["status"] == "running"
    env.wait()
    assert seen == [2, 2] and manager.get_job_status(next_job)["restart_count"] == 1


@pytest.mark.parametrize("metrics", [None, LookupError("none kept")])
def test_metrics_of_a_scheduler_that_are_none_do_not_keep_the_status(manager: JobManager, metrics: Any) -> None:
    class Mute:
        def make_decision(self, node: Any) -> None:
            pass

        def get_metrics(self) -> Any:
            if metrics is not None:
                raise metrics

    env = LocalEnvironment("mute", scheduler=Mute())
    env.from_batch([1]).collect()
    told = manager.get_job_status(env.submit(autostop=True))
    assert told["status"] == "stopped"
    with pytest.raises((TypeError, LookupError), match="returns a mapping, not None|none kept") as failed:
        env.get_scheduler_metrics()
    assert told["scheduler_metrics"] == {"error": f"{failed.type.__name__}: {failed.value}"}


@pytest.mark.parametrize("force", [False, True])
def test_a_deleted_job_is_ended_and_forgotten(manager: JobManager, force: bool) -> None:
    env = LocalEnvironment("gone")
    env.from_source(Endless).sink(lambda _: None)
    job = env.submit()
    assert manager.delete_job(job, force=force)["status"] == "deleted"
    assert job.state == "ended" and manager.jobs == {}
    assert job.report.outcome == ("cancelled" if force else "succeeded")
    assert manager.deleted_jobs[job]["final_status"] == ("failed" if force else "stopped")
    assert manager.get_job_status(job)["status"] == "not_found"


def test_all_jobs_are_cleaned_up(manager: JobManager) -> None:
    envs = [LocalEnvironment(name) for name in "abc"]
    for env in envs:
        env.from_source(Endless).sink(lambda _: None)
    jobs = [manager.submit_job(env) for env in envs]
    answer = manager.cleanup_all_jobs()
    assert (answer["status"], answer["message"]) == ("success", "Cleaned up 3 jobs")
    assert set(answer["results"]) == set(jobs) and all(job.state == "ended" for job in jobs)


def test_submit_job_waits_with_autostop(manager: JobManager) -> None:
    env = LocalEnvironment("manager")
    seen = env.from_batch([1, 2]).collect()
    job = manager.submit_job(env, autostop=True)
    assert seen == [1, 2] and env.env_uuid == job and manager.get_job_status(job)["status"] == "stopped"


def test_a_function_cannot_have_its_own_job_ended_and_wait_for_it(manager: JobManager) -> None:
    env = LocalEnvironment("itself")
    answers: list[dict[str, Any]] = []
    is_known = threading.Event()

    def end(_: int) -> None:
        is_known.wait()
        answers.append(manager.pause_job(str(env.env_uuid)))

    env.from_batch([1]).sink(end)
    env.submit()
    is_known.set()
    env.wait()
    (answer,) = answers
    assert answer["status"] == "failed" and "would wait for itself" in answer["message"]


def test_it_holds_no_job_that_is_over_nor_what_that_held(manager: JobManager) -> None:
    class Big:
        pass

    def run() -> tuple[str, weakref.ref[Big], weakref.ref[LocalEnvironment]]:
        env, big = LocalEnvironment("big"), Big()
        env.from_batch([big]).map(lambda it: it.missing).collect()
        with pytest.raises(JobFailed):
            env.submit(autostop=True)
        return str(env.env_uuid), weakref.ref(big), weakref.ref(env)

    job, big, env = run()
    gc.collect()
    assert big() is None and env() is None
    told = manager.get_job_status(job)
    assert told["status"] == "failed" and "no attribute" in told["error"] and manager.jobs[job].environment is None


def test_of_many_jobs_the_last_ones_are_remembered(manager: JobManager) -> None:
    env = LocalEnvironment("many")
    env.from_batch([1]).sink(lambda _: None)
    first = str(env.submit(autostop=True))
    steady = LocalEnvironment("steady")
    steady.from_source(Endless).sink(lambda _: None)
    running = steady.submit()
    for _ in range(MOST_ENDED):
        env.submit(autostop=True)
    assert len(manager.jobs) <= MOST_ENDED and first not in manager.jobs and running in manager.jobs
    steady.stop()
