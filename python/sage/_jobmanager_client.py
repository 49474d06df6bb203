"""The job manager's client, as SAGE programs have it: its methods and answers, over HTTP."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import wraps
from typing import Any, TypeVar, cast

from ._arguments import seconds, truth
from ._daemon import Broken, Daemon, Late, NoJobManager, Refused
from ._jobmanager import answer, moment_text, not_found
from ._keywords import spelt
from ._remote_jobs import OVER, detailed, is_success, summary

#: How long the end of a job may take that is forced to end, in seconds: the job manager kills it after half of that.
_FORCED = 60.0

#: How many jobs are asked for at a time.
_PAGE = 1000

_Method = TypeVar("_Method", bound=Callable[..., dict[str, Any]])


def _answers(method: _Method) -> _Method:
    """Makes an answer of what goes wrong, and numbers all answers."""

    @wraps(method)
    def call(self: JobManagerClient, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            told = method(self, *args, **kwargs)
        except NoJobManager as error:
            told = self._none("ERR_JOBMANAGER_CONNECTION_FAILED", error)
        except Late as error:
            told = self._none("ERR_NO_RESPONSE", error)
        except Broken as error:
            told = self._none("ERR_COMMUNICATION_FAILED", error)
        except Refused as error:
            told = {"status": "error", "message": f"{error}", "error_code": error.code}
        return {**told, "request_id": str(uuid.uuid4())}

    return cast(_Method, call)


def _id(job: Any) -> str:
    if not isinstance(job, str) or not job:
        raise ValueError(f"a job is given by its uuid, not by {job!r}")
    return str(job)


@spelt
class JobManagerClient:
    """Asks the job manager at a host and a port. Every answer is a mapping with a ``status``, also where there is no
    job manager: ``error``, with an ``error_code`` and a ``message``. ``timeout`` is how many seconds an answer may
    take; that of ``pause_job`` and ``delete_job`` takes as long as the job takes to end."""

    def __init__(self, host: str = "127.0.0.1", port: int = 19001, timeout: float = 30.0) -> None:
        self.timeout = seconds("`timeout`", timeout, more=True)
        self.daemon = Daemon(host, port, self.timeout)

    @property
    def host(self) -> str:
        """The host that it asks."""
        return self.daemon.host

    @property
    def port(self) -> int:
        """The port."""
        return self.daemon.port

    def _none(self, code: str, error: Exception) -> dict[str, Any]:
        port = "" if self.port == 19001 else f" --port {self.port}"
        suggestions = [f"sage jobmanager start{port}", f"sage jobmanager status{port}"]
        details = {"host": self.host, "port": self.port, "suggestions": suggestions}
        return {"status": "error", "error_code": code, "message": f"{error}", "details": details}

    def send(
        self,
        payload: bytes,
        autostop: bool = False,
        variables: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        """Submits an environment; returns the job's record. Raises what goes wrong."""
        from ._payload import header_of

        header = header_of(payload)
        program = {"python": header.executable, "payload": base64.b64encode(payload).decode()}
        request = {"name": header.name, "folder": header.folder, "autostop": autostop}
        request |= {"program": {"environment": program}, "variables": dict(variables or {}), "limits": limits or {}}
        record: dict[str, Any] = self.daemon.ask("POST", "/jobs", request)
        return record

    def _find(self, job: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.daemon.of(job)
            return found
        except Refused as error:
            if error.status != 404:
                raise
            return None

    def until_over(self, job: str) -> dict[str, Any]:
        """Waits until a job is over; returns its record."""
        with closing(self.daemon.stream(job)) as stream:
            for happened in stream:
                if happened.name == "over":
                    record: dict[str, Any] = happened.data
                    return record
        raise Broken(f"{self.daemon} has ended the connection before job {job} was over")

    @_answers
    def submit_job(self, serialized_data: bytes, autostop: bool = False) -> dict[str, Any]:
        """Submits an environment as bytes, which ``RemoteEnvironment.serialized`` gives: ``job_uuid``. SAGE's bytes,
        which are dill's, are not taken."""
        if not isinstance(serialized_data, (bytes, bytearray)) or not serialized_data:
            raise ValueError("`serialized_data` is an environment as bytes, and it is empty, or no bytes")
        record = self.send(bytes(serialized_data), truth("`autostop`", autostop))
        return {"status": "success", "job_uuid": record["id"], "message": f"job {record['id']} is {record['state']}"}

    @_answers
    def get_job_status(self, job_uuid: str) -> dict[str, Any]:
        """What is known of a job, as its ``job_status``."""
        found = self._find(_id(job_uuid))
        told = {"success": False, **not_found(job_uuid)} if found is None else detailed(self.daemon, found)
        return {"status": "success", "job_status": told}

    @_answers
    def list_jobs(self) -> dict[str, Any]:
        """All jobs, in the order in which they were submitted: ``jobs``."""
        return {"status": "success", "jobs": self._listed()}

    def _listed(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = []
        before = ""
        while True:
            page = self.daemon.ask("GET", f"/jobs?limit={_PAGE}{before}")
            listed += map(summary, page["jobs"])
            if page["next"] is None:
                return listed[::-1]
            before = f"&before={page['next']}"

    @_answers
    def pause_job(self, job_uuid: str) -> dict[str, Any]:
        """Ends a job: its sources end, the records in flight are finished, and everything is cleaned. Waits for that.
        In SAGE it has this name, and ends the job as well.

        ``status`` is ``stopped``; or ``failed``, with the error as the ``message``."""
        return self._end(_id(job_uuid), "drain")

    def _end(self, job: str, how: str) -> dict[str, Any]:
        found = self._find(job)
        if found is None:
            return not_found(job)
        record = found["record"]
        if record["state"] not in OVER:
            with suppress(Refused):  # it is over meanwhile
                self.daemon.of(record["id"], how, "POST")
            record = self.until_over(record["id"])
        if is_success(record) or how == "cancel":
            return answer(record["id"], "stopped", "it has ended, and everything is cleaned")
        return answer(record["id"], "failed", record["why"] or record["state"])

    @_answers
    def continue_job(self, job_uuid: str) -> dict[str, Any]:
        """Submits a job anew, from its beginning, when it is over; a paused one goes on."""
        found = self._find(_id(job_uuid))
        if found is None:
            return not_found(job_uuid)
        record = self.daemon.of(found["record"]["id"], "resume", "POST")
        return answer(record["id"], "running", f"it runs; it was submitted anew {record['restart_count']} times")

    #: The other name of it.
    resume_job = continue_job

    @_answers
    def delete_job(self, job_uuid: str, force: bool = False) -> dict[str, Any]:
        """Ends a job and deletes it, with all that is kept of it. With ``force``, the records in flight are dropped,
        and a job that does not end is killed."""
        is_forced = truth("`force`", force)
        found = self._find(_id(job_uuid))
        if found is None:
            return not_found(job_uuid)
        job = found["record"]["id"]
        if not is_forced:
            self._end(job, "drain")
        self.daemon.of(job, f"?force={str(is_forced).lower()}", "DELETE", max(self.timeout, _FORCED))
        return answer(job, "deleted", "it has ended, and is deleted")

    @_answers
    def cleanup_all_jobs(self) -> dict[str, Any]:
        """Cancels and deletes every job."""
        there = self._listed()
        deleted = self.daemon.ask("POST", "/cleanup", timeout=max(self.timeout, _FORCED))["deleted"]
        results = {job["uuid"]: answer(job["uuid"], "deleted", "it has ended, and is deleted") for job in there}
        return {"status": "success", "message": f"Cleaned up {deleted} jobs", "results": results}

    @_answers
    def health_check(self) -> dict[str, Any]:
        """Whether the job manager works: ``daemon_status``."""
        health, info = self.daemon.ask("GET", "/health"), self.daemon.ask("GET", "/info")
        told = {"daemon_running": True, "socket_service": f"{self.host}:{self.port}", "jobmanager_ready": True}
        told |= {"session_id": info["session"], "jobs_count": health["jobs_count"]}
        return {"status": "success", "message": f"the job manager is {health['status']}", "daemon_status": told}

    @_answers
    def get_server_info(self) -> dict[str, Any]:
        """The session, its folder of log files and its jobs: ``server_info``."""
        info, jobs = self.daemon.ask("GET", "/info"), self._listed()
        told = {"session_id": info["session"], "log_base_dir": info["log_folder"], "environments_count": len(jobs)}
        told |= {"jobs": jobs, "daemon_enabled": True, "daemon_address": info["http"]}
        told["started_at"] = moment_text(info["started_ms"] / 1000)
        return {"status": "success", "server_info": told}

    @_answers
    def receive_node_stop_signal(self, job_uuid: str, node_name: str) -> dict[str, Any]:
        """Is there for programs that call it: a job knows by itself when one of its steps has ended, and is told
        nothing."""
        if self._find(_id(job_uuid)) is None:
            return not_found(job_uuid)
        return {"status": "success", "message": f"job {job_uuid} knows by itself when `{node_name}` has ended"}

    def __repr__(self) -> str:
        return f"JobManagerClient(host={self.host!r}, port={self.port})"
