"""The environment whose jobs the job manager runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from ._arguments import seconds, text, truth, whole
from ._base_environment import BaseEnvironment
from ._daemon import Broken, NoJobManager, Refused
from ._job import Report
from ._jobmanager_client import JobManagerClient
from ._keywords import spelt
from ._pipeline import declared
from ._plan import plan
from ._remote_jobs import OVER
from ._scheduler import Started

#: The environment variables that a job has as its program, besides those that the program names. They are few, as a job
#: that has one cannot be started by a job manager that was started anew.
_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONUTF8", "PYTHONHASHSEED", "LD_LIBRARY_PATH", "RAY_ADDRESS")

#: What a job may take: see `Limits` of the job manager.
_LIMITS = ("memory_bytes", "processes", "cpu_ms", "time_ms")


@spelt
class RemoteEnvironment(BaseEnvironment):
    """As ``LocalEnvironment``, but the job manager runs its jobs, each in a process of its own: they go on when this
    program ends.

    The job manager is the one of this user that was started with this ``port`` (``sage jobmanager start``); its token
    is found in ``SAGE_HOME``, or ``~/.sage``. One of another user or on another machine is asked if the environment
    variable ``SAGE_TOKEN`` has its token.

    Functions, classes and services are taken along with cloudpickle (``pip install 'sage-dataflow[processes]'``), those
    of the main module by value; other modules are imported there, from the same places. The job has this program's
    interpreter, folder and arguments, and copies of what its functions refer to: end a stream with a ``sink`` that
    writes to a file, say, as ``collect`` would gather records in another process. Of the environment variables it has
    ``PYTHONPATH`` and others that Python and Ray read, and those that ``variables`` names. Their values are not
    stored: the job manager refuses to start a job anew whose values it no longer has.

    ``limits`` says what a job may take: ``memory_bytes``, ``processes``, ``cpu_ms`` and ``time_ms``. ``config``,
    ``scheduler`` and ``workers`` are as for ``LocalEnvironment``; ``config`` has ``engine_host`` and ``engine_port`` as
    well.

    >>> env = RemoteEnvironment("orders", limits={"memory_bytes": 1 << 30})
    >>> stream = env.from_batch([1, 2]).map(lambda n: n * n, name="square").print()
    >>> print(env.explain())  # doctest: +ELLIPSIS
    environment `orders`
    ...
    >>> job = env.submit()  # doctest: +SKIP
    """

    #: Where its jobs run.
    platform = "remote"

    def __init__(
        self,
        name: str = "remote_environment",
        config: Mapping[str, Any] | None = None,
        host: str = "127.0.0.1",
        port: int = 19001,
        scheduler: Any = None,
        enable_monitoring: bool = False,
        *,
        workers: str | None = None,
        variables: Iterable[str] = (),
        limits: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(name, config, scheduler, enable_monitoring, workers=workers)
        self.daemon_host = text("`host`", host)
        self.daemon_port = whole("`port`", port, 1, 65535)
        self.config |= {"engine_host": self.daemon_host, "engine_port": self.daemon_port}
        if isinstance(variables, str):
            raise TypeError(f"`variables` is a list of names, not {variables!r}")
        #: The names of the environment variables that a job has as well.
        self.variables = [text("a name in `variables`", variable) for variable in variables]
        #: What a job may take.
        self.limits = {name: whole(f"`{name}` of `limits`", value) for name, value in (limits or {}).items()}
        for name in self.limits:
            if name not in _LIMITS:
                raise ValueError(f"`limits` has {', '.join(f'`{known}`' for known in _LIMITS)}, and no `{name}`")

    @cached_property
    def client(self) -> JobManagerClient:
        """Asks the job manager."""
        return JobManagerClient(self.daemon_host, self.daemon_port)

    def serialized(self) -> bytes:
        """The environment as bytes, as ``JobManagerClient.submit_job`` takes it."""
        from ._payload import packed

        declared.discard(self)
        return packed(self)

    def submit(self, autostop: bool = False) -> str:
        """Submits the job; returns its id. With ``autostop``, waits until it is over and everything is stopped and
        cleaned, and shows meanwhile what the job prints.

        Raises ``RuntimeError`` if it cannot be submitted, as where no job manager runs; and with ``autostop``,
        ``JobFailed`` with the job's ``report`` if the job did not succeed or left something behind.

        On the main thread, Ctrl-C drains the job, and a second one cancels it; ``KeyboardInterrupt`` is raised when it
        is over. The third raises it at once. If this program ends otherwise, by a SIGTERM say, the job goes on.
        """
        truth("`autostop`", autostop)
        # What cannot run is refused here.
        plan(self._steps, self._context(), self._warn_of_open_ends())
        missing = [name for name in self.variables if name not in os.environ]
        if missing:
            raise ValueError(f"`variables` names `{missing[0]}`, and there is no environment variable of that name")
        variables = {name: os.environ[name] for name in (*_VARIABLES, *self.variables) if name in os.environ}
        try:
            record = self.client.send(self.serialized(), autostop, variables, self.limits)
        except (NoJobManager, Broken, Refused) as error:
            raise RuntimeError(f"Failed to submit environment: {error}") from error
        self.env_uuid = record["id"]
        if autostop:
            self.wait()
        return record["id"]  # type: ignore[no-any-return]

    def wait(self, timeout: float | None = None) -> Report | None:
        """Waits until the job is over, and returns its report; returns ``None`` if it is not over after ``timeout``
        seconds. Shows what the job prints, from the beginning.

        Raises what ``submit`` raises.
        """
        from ._watched import Watch

        if self.env_uuid is None:
            raise RuntimeError("no job was submitted")
        limit = None if timeout is None else seconds("`timeout`", timeout)
        return Watch(self.client.daemon, self.env_uuid, self.name).until_over(limit)

    def _wait_for_completion(self) -> None:
        """As ``wait``: programs for SAGE call it."""
        self.wait()

    @property
    def is_running(self) -> bool:
        """Whether the job that was submitted last is not over yet."""
        return self.env_uuid is not None and self.client.daemon.of(self.env_uuid)["record"]["state"] not in OVER

    def stop(self) -> dict[str, Any]:
        """Ends the job: its sources end, the records in flight are finished, and everything is cleaned. Waits for that.
        Returns the answer of ``JobManagerClient.pause_job``."""
        if self.env_uuid is None:
            return {"status": "warning", "message": "Environment not submitted"}
        return self.client.pause_job(self.env_uuid)

    def close(self) -> dict[str, Any]:
        """As ``stop``, and lets go of the pipeline and of the job's id. Services stay registered."""
        answer = self.stop()
        self._let_go()
        return answer

    def health_check(self) -> dict[str, Any]:
        """Whether the job manager works: the answer of ``JobManagerClient.health_check``."""
        return self.client.health_check()

    def get_job_status(self) -> dict[str, Any]:
        """What is known of the job: the answer of ``JobManagerClient.get_job_status``."""
        if self.env_uuid is None:
            return {"status": "not_submitted", "message": "Environment not submitted"}
        return self.client.get_job_status(self.env_uuid)

    def get_scheduler_metrics(self) -> dict[str, Any]:
        """How many tasks the job has started, and how soon: see ``BaseScheduler``."""
        told = self.get_job_status().get("job_status", {}).get("scheduler_metrics")
        return told or Started().metrics(type(self.scheduler).__name__.removesuffix("Scheduler"), self.platform)

    def __repr__(self) -> str:
        return f"RemoteEnvironment(name={self.name!r}, host={self.daemon_host!r}, port={self.daemon_port})"
