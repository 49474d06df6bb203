"""Environments, and what `submit` returns."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from daemons import RunningDaemon

from sage import JobFailed, JobId, LocalEnvironment, MapFunction, RemoteEnvironment, SourceFunction, StopSignal
from sage import _flownet
from sage.libs.foundation.io.source import KafkaSource
from sage.testing import KafkaCluster

from . import later, of, run, there

_LOCAL = "sage.core.api.local_environment sage.kernel.api.local_environment"


@there(
    "LocalEnvironment",
    'name="localenvironment", config=None, scheduler=None, enable_monitoring=False',
    f"{_LOCAL} sage.core.api sage.kernel.api sage.kernel sage.runtime sage.runtime.environments sage",
)
def local_environment(_: Any) -> None:
    env = LocalEnvironment(config={"mine": 1})
    assert env.name == "localenvironment" and env.config == {"mine": 1} and env.logger.name.endswith(env.name)


@of("LocalEnvironment", "from_batch", "source, *args, **kwargs")
def from_batch(_: Any) -> None:
    class Up(SourceFunction):
        def __init__(self, most: int, records: int = 0) -> None:
            self.left = most + records

        def execute(self) -> Any:
            self.left -= 1
            return self.left if self.left >= 0 else None

    assert run(lambda env: env.from_batch((1, None))) == [1, None]
    assert run(lambda env: env.from_batch(Up, 1, records=1, delay=0, total_count=2)) == [1, 0]


@of("LocalEnvironment", "from_source", "function, *args, **kwargs")
def from_source(_: Any) -> None:
    numbers = iter([1, StopSignal()])
    assert run(lambda env: env.from_source(lambda: next(numbers))) == [1]


@of("LocalEnvironment", "from_collection", "function, *args, **kwargs")
def from_collection(_: Any) -> None:
    assert run(lambda env: env.from_collection([1])) == [1]


@of("LocalEnvironment", "from_future", "name")
def from_future(_: Any) -> None:
    env = LocalEnvironment()
    again = env.from_future("again")
    steps = env.from_batch([1]).connect(again).map(lambda n: n + 1)
    steps.filter(lambda n: n < 4).fill_future(again)
    seen = steps.collect()
    env.submit(autostop=True)
    assert seen == [2, 3, 4]


@of(
    "LocalEnvironment",
    "from_kafka_source",
    'bootstrap_servers, topic, group_id, auto_offset_reset="latest", value_deserializer=None, buffer_size=10000, '
    "max_poll_records=500, **kafka_config",
)
def from_kafka_source(_: Any) -> None:
    with KafkaCluster() as cluster:
        cluster.create_topic("parity")
        servers = cluster.bootstrap_servers
        env = LocalEnvironment()
        env.from_batch([1]).to_kafka(servers, "parity")
        env.submit(autostop=True)
        options = {"until_end": True, "metadata": False}
        assert run(lambda env: env.from_kafka_source(servers, "parity", "group", "earliest", **options)) == [1]
        options = {**options, "bootstrap_servers": servers, "topic": "parity", "group_id": "later"}
        options["auto_offset_reset"] = "earliest"
        assert run(lambda env: env.from_kafka_source(KafkaSource, **options)) == [1]
        assert run(lambda env: env.from_kafka_source(source_class=KafkaSource, **options)) == []
        with pytest.raises(TypeError, match="use `from_source` for that"):
            env.from_kafka_source(dict, **options)


class _Adds:
    def __init__(self, n: int) -> None:
        self.n = n

    def process(self, record: int) -> int:
        return record + self.n


@of("LocalEnvironment", "register_service", "service_name, service_class, *args, **kwargs")
def register_service(_: Any) -> None:
    _registered(lambda env: env.register_service("adds", _Adds, n=2))


@of("LocalEnvironment", "register_service_factory", "service_name, service_factory")
def register_service_factory(_: Any) -> None:
    _registered(lambda env: env.register_service_factory("adds", lambda: _Adds(2)))


def _registered(register: Any) -> None:
    class Ask(MapFunction):
        def execute(self, n: int) -> Any:
            return self.call_service("adds", n)

    env = LocalEnvironment()
    register(env)
    records = env.from_batch([1]).map(Ask).collect()
    env.submit(autostop=True)
    assert records == [3]
    with pytest.raises(ValueError, match="there is a service `adds` already"):
        register(env)


@of("LocalEnvironment", "set_console_log_level", "level")
def set_console_log_level(_: Any) -> None:
    env = LocalEnvironment("parity level")
    env.set_console_log_level("ERROR")
    assert env.logger.level == logging.ERROR


@of("LocalEnvironment", "submit", "autostop=False")
def submit(_: Any) -> None:
    env = LocalEnvironment()
    records = env.from_batch([1]).collect()
    job = env.submit(autostop=True)
    assert isinstance(job, str) and records == [1] and not env.is_running


def _endless() -> tuple[LocalEnvironment, list[Any]]:
    """An environment whose job runs until it is told to end."""
    env, begun = LocalEnvironment(), threading.Event()
    records = env.from_source(lambda: begun.set() or 1).collect()
    env.submit()
    assert begun.wait(60)
    return env, records


@of("LocalEnvironment", "stop", "")
@of("LocalEnvironment", "close", "")
@of("LocalEnvironment", "is_running")
@of("LocalEnvironment", "wait", "timeout=None")
@of("LocalEnvironment", "job")
def stop(_: Any) -> None:
    env, records = _endless()
    assert env.is_running and env.wait(0) is None and env.job.state == "running"
    env.stop()
    assert not env.is_running and records[0] == 1 and env.job.report.outcome == "succeeded"
    env.close()


@of("LocalEnvironment", "submit_async", "")
def submit_async(_: Any) -> None:
    env = LocalEnvironment()
    records = env.from_batch([1]).collect()
    asyncio.run(env.submit_async())
    assert records == [1]


@there("JobId", None, "sage")
def job_id(_: Any) -> None:
    assert issubclass(JobId, str)


@of("JobId", "report")
@of("JobId", "state")
@of("JobId", "wait", "timeout=None")
@of("JobId", "drain", "")
@of("JobId", "cancel", "")
@of("JobId", "pause", "")
@of("JobId", "resume", "")
def steered(_: Any) -> None:
    env, _records = _endless()
    job = env.job
    job.pause()
    while job.state != "paused":
        pass
    job.resume()
    while job.state != "running":
        pass
    job.drain()
    assert job.wait().outcome == job.report.outcome == "succeeded" and job.state == "ended"
    env, _records = _endless()
    env.job.cancel()
    with pytest.raises(JobFailed, match="cancelled"):
        env.wait()


_FLOWNET = 'name="flownet_environment", config=None, scheduler=None, placement_policy=None, enable_monitoring=False'


@there("FlownetEnvironment", _FLOWNET, "sage.kernel.api.flownet_environment sage.kernel.api")
@there("FlowNetEnvironment", _FLOWNET, "sage.runtime sage.runtime.environments")
def flownet_environment(FlownetEnvironment: Any) -> None:
    _flownet._warned.append("parity")
    assert issubclass(FlownetEnvironment, LocalEnvironment) and FlownetEnvironment().name == "flownet_environment"


_REMOTE = "sage.core.api.remote_environment sage.kernel.api.remote_environment sage.kernel.api sage"


@contextmanager
def _job_manager() -> Iterator[int]:
    """The port of a job manager that is this user's."""
    with TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patched:
        patched.setenv("SAGE_HOME", home)
        running = RunningDaemon(Path(home))
        try:
            yield running.port
        finally:
            running.end()


@there("RemoteEnvironment", 'name="remote_environment", config=None, host="127.0.0.1", port=19001', _REMOTE)
def remote_environment(_: Any) -> None:
    env = RemoteEnvironment("far", host="localhost", port=4)
    assert env.config == {"engine_host": "localhost", "engine_port": 4} and env.client.port == env.daemon_port == 4


@of("RemoteEnvironment", "submit", "autostop=False")
@of("RemoteEnvironment", "wait", "timeout=None")
@of("RemoteEnvironment", "is_running")
@of("RemoteEnvironment", "stop", "")
@of("RemoteEnvironment", "close", "")
@of("RemoteEnvironment", "client")
@of("RemoteEnvironment", "health_check", "")
@of("RemoteEnvironment", "get_job_status", "")
@of("RemoteEnvironment", "get_scheduler_metrics", "")
def remote_job(_: Any) -> None:
    pytest.importorskip("cloudpickle")
    with _job_manager() as port:
        env = RemoteEnvironment(port=port)
        assert env.health_check()["daemon_status"]["jobs_count"] == 0
        env.from_batch([1]).sink(print)
        uuid = env.submit(autostop=True)
        assert env.get_job_status()["job_status"]["uuid"] == uuid and not env.is_running
        assert env.wait().outcome == "succeeded" and env.get_scheduler_metrics()["platform"] == "remote"
        assert env.stop()["status"] == env.close()["status"] == "stopped" and env.env_uuid is None


@there(
    "JobManagerClient",
    'host="127.0.0.1", port=19001, timeout=30.0',
    "sage.kernel.jobmanager.jobmanager_client sage.kernel.runtime.jobmanager_client sage.runtime.jobmanager_client",
)
@of("JobManagerClient", "submit_job", "serialized_data, autostop=False")
@of("JobManagerClient", "get_job_status", "job_uuid")
@of("JobManagerClient", "pause_job", "job_uuid")
@of("JobManagerClient", "continue_job", "job_uuid")
@of("JobManagerClient", "delete_job", "job_uuid, force=False")
@of("JobManagerClient", "list_jobs", "")
@of("JobManagerClient", "health_check", "")
@of("JobManagerClient", "get_server_info", "")
@of("JobManagerClient", "cleanup_all_jobs", "")
@of("JobManagerClient", "receive_node_stop_signal", "job_uuid, node_name")
def job_manager_client(JobManagerClient: Any) -> None:
    pytest.importorskip("cloudpickle")
    with _job_manager() as port:
        client, env = JobManagerClient(port=port), RemoteEnvironment(port=port)
        assert client.health_check()["status"] == client.list_jobs()["status"] == "success"
        env.from_batch([1]).sink(print)
        job = client.submit_job(env.serialized())["job_uuid"]
        assert client.pause_job(job)["uuid"] == job and client.continue_job(job)["status"] == "running"
        assert client.receive_node_stop_signal(job, "node")["status"] == "success"
        assert client.delete_job(job, force=True)["status"] == "deleted"
        assert client.get_job_status(job)["job_status"]["status"] == "not_found"
        assert client.get_server_info()["server_info"]["jobs"] == []
        assert client.cleanup_all_jobs()["message"] == "Cleaned up 0 jobs"


later("NodeSelector", "sage.kernel.scheduler.node_selector", "nodes that are chosen by name")
