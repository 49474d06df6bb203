"""The job manager of the process, schedulers, and what environments tell of their jobs."""

from __future__ import annotations

from typing import Any

import pytest

from sage import JobId, LocalEnvironment, MapFunction

from . import of, there

_SCHEDULERS = "sage.kernel.scheduler.impl sage.runtime sage.runtime.scheduler"


def _submitted(**options: Any) -> LocalEnvironment:
    """An environment whose job is over."""
    env = LocalEnvironment("parity jobs", **options)
    env.from_batch([1]).map(Plus).sink(lambda record: None)
    env.submit(autostop=True)
    return env


class Plus(MapFunction):
    def execute(self, n: int) -> int:
        return n + 1


@there(
    "JobManager",
    'enable_daemon=True, daemon_host="127.0.0.1", daemon_port=19001',
    "sage.kernel.jobmanager.job_manager sage.kernel.runtime.job_manager sage.runtime sage.runtime.job_manager",
)
@of("JobManager", "jobs")
def job_manager(JobManager: Any) -> None:
    env = _submitted()
    manager = JobManager()
    assert manager is JobManager() is env.jobmanager and "_" in manager.session_id
    job = manager.jobs[env.env_uuid]
    assert (job.status, job.restart_count, job.environment) == ("stopped", 0, env) and not job.dispatcher.is_running
    assert job.dispatcher.tasks == job.dispatcher.services == {}
    manager.delete_job(job.uuid)
    assert job.uuid in manager.deleted_jobs and job.uuid not in manager.jobs


@of("JobManager", "submit_job", "env, autostop=False")
def submit_job(JobManager: Any) -> None:
    env = LocalEnvironment()
    records = env.from_batch([1]).collect()
    assert isinstance(JobManager().submit_job(env, autostop=True), JobId) and records == [1]


@of("JobManager", "get_job_status", "env_uuid")
def get_job_status(JobManager: Any) -> None:
    env = _submitted()
    told = JobManager().get_job_status(env.env_uuid)
    assert told["success"] and told["status"] == "stopped" and told["name"] == env.name
    assert JobManager().get_job_status("none")["status"] == "not_found"


@of("JobManager", "list_jobs", "")
@of("JobManager", "health_check", "")
@of("JobManager", "get_server_info", "")
def listed(JobManager: Any) -> None:
    env = _submitted()
    manager = JobManager()
    assert env.env_uuid in {job["uuid"] for job in manager.list_jobs()}
    assert manager.health_check()["status"] == "healthy"
    assert manager.get_server_info()["session_id"] == manager.session_id


@of("JobManager", "pause_job", "env_uuid")
@of("JobManager", "continue_job", "env_uuid")
@of("JobManager", "resume_job", "env_uuid")
@of("JobManager", "delete_job", "env_uuid, force=False")
def steered(JobManager: Any) -> None:
    manager, env = JobManager(), LocalEnvironment("parity jobs")
    env.from_source(lambda: 1).sink(lambda record: None)
    uuid = str(env.submit())
    assert manager.pause_job(uuid)["status"] == "stopped" and not env.is_running
    assert manager.continue_job(uuid)["status"] == "running" and manager.jobs[uuid].restart_count == 1
    assert manager.delete_job(uuid, force=True)["status"] == "deleted" and not env.is_running
    assert manager.resume_job(uuid)["status"] == "not_found"


@of("JobManager", "cleanup_all_jobs", "")
@of("JobManager", "shutdown", "")
def cleaned(JobManager: Any) -> None:
    _submitted()
    manager = JobManager()
    assert manager.cleanup_all_jobs()["status"] == "success" and manager.jobs == {}
    manager.shutdown()
    assert JobManager() is not manager


@there("BaseScheduler", None, "sage.kernel.scheduler.api sage.kernel.scheduler sage.runtime sage.runtime.scheduler")
@of("BaseScheduler", "make_decision", "task_node")
@of("BaseScheduler", "get_metrics", "")
@of("BaseScheduler", "task_completed", "task_name")
@of("BaseScheduler", "shutdown", "")
def base_scheduler(BaseScheduler: Any) -> None:
    from sage.runtime import PlacementDecision

    seen: list[Any] = []

    class Mine(BaseScheduler):
        def make_decision(self, task_node: Any) -> Any:
            seen.append(task_node.name)
            return PlacementDecision.immediate_default("mine")

        def task_completed(self, task_name: str) -> None:
            seen.append(task_name)

    env = _submitted(scheduler=Mine())
    told = env.scheduler.get_metrics()
    assert told["scheduler_type"] == "Mine" and told["total_scheduled"] == told["decisions"] == len(seen) / 2
    assert env.scheduler.shutdown() is None


@there("FIFOScheduler", 'platform="local"', _SCHEDULERS)
@there("LoadAwareScheduler", 'platform="local", max_concurrent=10, strategy="balanced"', _SCHEDULERS)
def named_scheduler(scheduler: Any) -> None:
    told = _submitted(scheduler=scheduler()).get_scheduler_metrics()
    assert told["scheduler_type"] == scheduler.__name__.removesuffix("Scheduler") and told["platform"] == "local"


@there(
    "PlacementDecision",
    'target_node=None, resource_requirements=None, delay=0.0, immediate=True, placement_strategy="default", '
    'affinity_tasks=None, anti_affinity_tasks=None, reason="", priority=0',
    "sage.kernel.scheduler.decision sage.kernel.scheduler sage.runtime sage.runtime.scheduler",
)
def placement_decision(PlacementDecision: Any) -> None:
    assert PlacementDecision.with_delay(2).delay == 2 and PlacementDecision.immediate_default().immediate
    assert PlacementDecision.with_resources(cpu=1).resource_requirements == {"cpu": 1}


@there(
    "ServiceFactory",
    "service_name, service_class, service_args=(), service_kwargs=None",
    "sage.kernel.runtime.factory.service_factory sage.runtime.service_factory",
)
@of("ServiceFactory", "create_service", "ctx=None")
def service_factory(ServiceFactory: Any) -> None:
    from sage import BaseService

    class Db(BaseService):
        def __init__(self, size: int) -> None:
            self.size = size

    made = ServiceFactory("db", Db, (3,)).create_service("context")
    assert made.size == 3 and made.ctx == "context"


@of("LocalEnvironment", "pipeline")
@of("LocalEnvironment", "service_factories")
@of("LocalEnvironment", "platform")
@of("LocalEnvironment", "uuid")
@of("LocalEnvironment", "env_base_dir")
@of("LocalEnvironment", "jobmanager")
@of("LocalEnvironment", "client")
@of("LocalEnvironment", "get_scheduler_metrics", "")
def told(_: Any) -> None:
    env = LocalEnvironment("parity jobs", scheduler="load_aware", enable_monitoring=True)
    factory = env.register_service("db", dict)
    env.from_batch([1]).map(Plus, parallelism=2).sink(print, name="show")
    source, plus, _show = env.pipeline
    assert (plus.function_class, plus.basename, plus.parallelism, plus.upstreams) == (Plus, "Plus", 2, [source])
    assert env.service_factories == {"db": factory} and env.platform == "local" and env.enable_monitoring
    assert env.uuid is env.env_uuid is env.env_base_dir is None and env.client is env.jobmanager
    env = _submitted()
    assert env.uuid == env.env_uuid and env.get_scheduler_metrics()["total_scheduled"] >= 1
    with pytest.raises(ValueError, match="`scheduler` is `fifo`"):
        LocalEnvironment(scheduler="other")
