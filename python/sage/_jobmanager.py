"""The jobs of this process, by their ids: SAGE's job manager, with nothing that listens on a port.

It holds no job: one that is over goes with its environment and its id, and what is left here is how it ended, of the
last thousand.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ._arguments import truth
from ._job import Heeding
from ._keywords import spelt

if TYPE_CHECKING:
    from datetime import datetime

    from ._environment import LocalEnvironment
    from ._job import JobId
    from ._logging import CustomLogger
    from ._running import Run

#: How many jobs that are over are remembered, and how many that were deleted.
MOST_ENDED = 1000

_known: dict[str, JobInfo] = {}


class Unit(NamedTuple):
    """A task or a service of a job, and how far it is."""

    name: str
    state: str

    @property
    def is_running(self) -> bool:
        """Whether it takes records, or calls."""
        return self.state in ("running", "ready")


#: The states of tasks and services that are gone. What is abandoned is not: it is left.
GONE = {"finished", "cancelled", "failed", "cleaned", "cleanup failed", "lost"}


class Dispatcher:
    """What there is of a job, at the moment it is looked at."""

    def __init__(self, info: JobInfo) -> None:
        self._info = info

    def _units(self, what: str) -> dict[str, Unit]:
        return {name: Unit(name, state) for kind, name, state in self._info._there() if kind == what}

    @property
    def tasks(self) -> dict[str, Unit]:
        """The tasks that have not ended, by name. A task is what runs on one thread: one replica of the steps that are
        run together. So ``from_batch([…]).map(…).sink(…)`` of a list is one task."""
        return self._units("task")

    @property
    def services(self) -> dict[str, Unit]:
        """The services that are not cleaned, by name."""
        return self._units("service")

    @property
    def is_running(self) -> bool:
        """Whether a task has not ended, nor is abandoned."""
        return any(task.state != "abandoned" for task in self.tasks.values())


class JobInfo:
    """A job: its state, and what runs of it."""

    def __init__(self, environment: LocalEnvironment, autostop: bool) -> None:
        self.name = environment.name
        self.autostop = autostop
        self.restart_count = 0
        self.error_message: str | None = None
        self._environment = weakref.ref(environment)
        self._size = sum(step.owner is None for step in environment._steps)
        # Of its pipeline, which the environment may close.
        self._steps = [weakref.ref(step) for step in environment._steps[:1]]
        self._created = time.time()
        self._ids: list[str] = []

    def begins(self, run: Run) -> None:
        """It runs, perhaps again."""
        self._run: Callable[[], Run | None] = weakref.ref(run)
        self._began = run.submitted
        self._ended: float | None = None
        self._left: list[tuple[str, str, str]] = []
        self.restart_count += bool(self._ids)
        self._ids.append(run.job.id)
        run.info = self

    def ends(self, run: Run) -> None:
        """It is over, and was waited for."""
        job = run.job
        if self._ended is not None or self._run() is not run:
            return
        self._ended = job.ended_at or time.time()
        self.error_message = job.error or (None if job.signal is None else f"ended by signal {job.signal}")
        if self.error_message is not None:
            self._left = [(what, name, state) for _, what, name, state in job.history() if state == "abandoned"]

    @property
    def dispatcher(self) -> Dispatcher:
        """What runs of it."""
        return Dispatcher(self)

    @property
    def uuid(self) -> str:
        """The id of the job when it was first submitted."""
        return self._ids[0]

    @property
    def environment(self) -> LocalEnvironment | None:
        """Its environment; ``None`` if the program has let go of that."""
        return self._environment()

    @property
    def _is_closed(self) -> bool:
        """Whether the program has let go of its pipeline."""
        return any((step := there()) is None or step.is_closed for there in self._steps)

    @property
    def status(self) -> str:
        """``initializing``, ``running``, ``paused`` (by ``JobId.pause``), ``stopped`` or ``failed``."""
        run = self._settled()
        if self._ended is not None or run is None:
            return "stopped" if self.error_message is None else "failed"
        state = run.job.state
        return {"created": "initializing", "starting": "initializing", "paused": "paused"}.get(state, "running")

    def _settled(self) -> Run | None:
        """Its run, asked how it ended if it is over."""
        run = self._run()
        if run is not None and self._ended is None and run.job.state == "ended":
            run.wait(0)
        return run

    def _there(self) -> list[tuple[str, str, str]]:
        run = self._settled()
        if self._ended is not None or run is None:
            return self._left
        states: dict[tuple[str, str], str] = {}
        for _, what, name, state in run.job.history():
            states[what, name] = state
        return [(what, name, state) for (what, name), state in states.items() if state not in GONE]

    @property
    def start_time(self) -> datetime:
        """When it was submitted, last."""
        return _moment(self._began)

    @property
    def stop_time(self) -> datetime | None:
        """When it was over."""
        self._settled()
        return None if self._ended is None else _moment(self._ended)

    def get_runtime(self) -> str:
        """How long it has run, as ``1h 2m 3s``."""
        self._settled()
        return runtime((self._ended or time.time()) - self._began)

    def get_summary(self) -> dict[str, Any]:
        """Its ids, name, status and times, as ``list_jobs`` gives them."""
        return {
            "uuid": self.uuid,
            "name": self.name,
            "status": self.status,
            "start_time": moment_text(self._began),
            "runtime": self.get_runtime(),
            "restart_count": self.restart_count,
            "last_update": moment_text(self._ended or time.time()),
            "autostop": self.autostop,
        }

    def get_status(self) -> dict[str, Any]:
        """All that is known, as ``get_job_status`` gives it."""
        told = self.get_summary()
        environment, dispatcher = self.environment, self.dispatcher
        tasks, services = dispatcher.tasks, dispatcher.services
        told["environment"] = {"name": self.name, "platform": "local", "description": ""}
        told["dispatcher"] = {
            "task_count": len(tasks),
            "service_count": len(services),
            "is_running": dispatcher.is_running,
        }
        if environment is not None:
            try:
                told["scheduler_metrics"] = environment.get_scheduler_metrics()
            except Exception as error:  # of a scheduler of the program's own
                told["scheduler_metrics"] = {"error": f"{type(error).__name__}: {error}"}
        if self._ended is not None:
            told["stop_time"] = moment_text(self._ended)
        if self.error_message is not None:
            told["error"] = self.error_message
        times = {"created_at": self._created, "started_at": self._began, "completed_at": self._ended}
        return {**told, **times, "env_name": self.name, "pipeline_size": self._size, "running": bool(tasks or services)}


def runtime(seconds: float) -> str:
    """A length of time, as ``1h 2m 3s``."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (left, "s"))
    first = next((place for place, (number, _) in enumerate(parts) if number), 2)
    return " ".join(f"{number}{unit}" for number, unit in parts[first:])


def moment_text(moment: float) -> str:
    """A moment, in seconds since 1970, as SAGE writes it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _moment(moment: float) -> datetime:
    from datetime import datetime

    return datetime.fromtimestamp(moment)


def known(info: JobInfo) -> None:
    """Remembers a job."""
    _known[info.uuid] = info
    if len(_known) <= MOST_ENDED:
        return
    for uuid, other in list(_known.items()):
        if other._ended is not None or other._run() is None:
            _known.pop(uuid, None)
            if len(_known) <= MOST_ENDED:
                return


@spelt
class JobManager:
    """The jobs of this process. There is one: ``JobManager()`` gives the same each time, until ``shutdown``.

    Nothing listens on a port, so the arguments have no effect.
    """

    instance: ClassVar[JobManager | None] = None
    _lock: ClassVar[Any] = threading.Lock()

    session_id: str
    #: How the jobs that were deleted had ended, by id: the last thousand.
    deleted_jobs: dict[str, dict[str, Any]]

    def __new__(cls, *_args: Any, **_kwargs: Any) -> JobManager:
        with cls._lock:
            if JobManager.instance is None:
                made = super().__new__(cls)
                made.session_id, made.deleted_jobs = time.strftime("%Y%m%d_%H%M%S"), {}
                JobManager.instance = made
            return JobManager.instance

    def __init__(self, enable_daemon: bool = True, daemon_host: str = "127.0.0.1", daemon_port: int = 19001) -> None:
        pass

    @property
    def logger(self) -> CustomLogger:
        """The logger ``sage.JobManager``."""
        from ._logging import CustomLogger

        return CustomLogger("JobManager")

    @property
    def jobs(self) -> dict[str, JobInfo]:
        """The jobs by their ids: all that are not over, and those of the last thousand that are over."""
        return dict(_known)

    def _find(self, uuid: str) -> JobInfo | None:
        return _known.get(uuid) or next((info for info in self.jobs.values() if uuid in info._ids), None)

    def submit_job(self, env: LocalEnvironment, autostop: bool = False) -> JobId:
        """As ``env.submit``."""
        return env.submit(truth("`autostop`", autostop))

    def get_job_status(self, env_uuid: str) -> dict[str, Any]:
        """What is known of a job: its name, its status, its times, how many tasks and services it has."""
        info = self._find(env_uuid)
        return {"success": False, **not_found(env_uuid)} if info is None else {"success": True, **info.get_status()}

    def list_jobs(self) -> list[dict[str, Any]]:
        """The id, name, status and times of each job."""
        return [info.get_summary() for info in self.jobs.values()]

    def pause_job(self, env_uuid: str) -> dict[str, Any]:
        """Ends a job: its sources end, the records in flight are finished, and everything is cleaned. In SAGE it has
        this name, and ends the job as well. ``JobId.pause`` pauses one.

        ``status`` is ``stopped``; or ``failed``, with the error as the ``message``."""
        info = self._find(env_uuid)
        return not_found(env_uuid) if info is None else self._end(info, "drain")

    def _end(self, info: JobInfo, how: str) -> dict[str, Any]:
        run = info._settled()
        if run is not None and info._ended is None:
            try:
                with Heeding(run):
                    getattr(run.job, how)()
                    run.wait()
            except RuntimeError as error:  # a function of the job's has asked for it
                return answer(info.uuid, "failed", f"{error}")
            run.is_told = True
        if info.status == "failed" and how == "drain":
            self.logger.error("job %s of `%s` failed: %s", info.uuid, info.name, info.error_message)
            return answer(info.uuid, "failed", f"{info.error_message}")
        return answer(info.uuid, "stopped", "it has ended, and everything is cleaned")

    def continue_job(self, env_uuid: str) -> dict[str, Any]:
        """Submits a job anew, from its beginning, when it is over; one that runs is ended before. It keeps its id here,
        and its ``restart_count`` grows by one."""
        info = self._find(env_uuid)
        if info is None:
            return not_found(env_uuid)
        environment = info.environment
        if environment is None or info._is_closed:
            gone = "environment" if environment is None else "pipeline"
            return answer(info.uuid, "failed", f"the program has let go of its {gone}, so it cannot run again")
        try:
            if info._ended is None:
                self._end(info, "drain")
            environment._submit(info, waits=False)
        except Exception as error:
            return answer(info.uuid, "failed", f"{error}")
        return answer(info.uuid, "running", f"it was submitted again: restart {info.restart_count}")

    #: The other name of it.
    resume_job = continue_job

    def delete_job(self, env_uuid: str, force: bool = False) -> dict[str, Any]:
        """Ends a job and forgets it. With ``force``, the records in flight are dropped."""
        info = self._find(env_uuid)
        if info is None:
            return not_found(env_uuid)
        ended = self._end(info, "cancel" if truth("`force`", force) else "drain")
        if info._ended is None:
            return ended
        self.deleted_jobs[info.uuid] = {"deleted_at": moment_text(time.time()), "final_status": info.status,
                                        **info.get_summary()}
        while len(self.deleted_jobs) > MOST_ENDED:
            self.deleted_jobs.pop(next(iter(self.deleted_jobs)))
        _known.pop(info.uuid, None)
        return answer(info.uuid, "deleted", "it has ended, and is forgotten")

    def cleanup_all_jobs(self) -> dict[str, Any]:
        """Ends and forgets every job; records in flight are dropped."""
        results = {uuid: self.delete_job(uuid, force=True) for uuid in self.jobs}
        return {"status": "success", "message": f"Cleaned up {len(results)} jobs", "results": results}

    def health_check(self) -> dict[str, Any]:
        """``status``, ``timestamp`` and ``jobs_count``."""
        return {"status": "healthy", "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S"), "jobs_count": len(_known)}

    def get_server_info(self) -> dict[str, Any]:
        """The session and its jobs. ``log_base_dir`` is where ``SAGE_LOG_DIR`` has log files written, or ``None``."""
        folder = os.environ.get("SAGE_LOG_DIR")
        return {
            "session_id": self.session_id,
            "log_base_dir": os.path.join(folder, "jobmanager") if folder else None,
            "environments_count": len(_known),
            "jobs": self.list_jobs(),
            "daemon_enabled": False,
            "daemon_address": None,
        }

    def shutdown(self) -> None:
        """Ends and forgets every job; the next ``JobManager()`` is a new one."""
        self.cleanup_all_jobs()
        with self._lock:
            if JobManager.instance is self:
                JobManager.instance = None


def answer(uuid: str, status: str, message: str) -> dict[str, Any]:
    """What is answered to a command."""
    return {"uuid": uuid, "status": status, "message": message}


def not_found(uuid: str) -> dict[str, Any]:
    """What is answered where there is no such job."""
    return answer(uuid, "not_found", f"there is no job `{uuid}`; `list_jobs` names those there are")


# A forked process has none of the jobs.
os.register_at_fork(after_in_child=_known.clear)
