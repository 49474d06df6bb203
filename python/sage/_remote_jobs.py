"""Jobs of the job manager as SAGE's answers tell them: its words for states, and its fields."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ._daemon import Daemon
from ._jobmanager import GONE, moment_text, runtime

#: What SAGE calls each state.
_STATUS = {
    "queued": "initializing",
    "starting": "initializing",
    "running": "running",
    "paused": "paused",
    "draining": "running",
    "stopping": "running",
    "succeeded": "stopped",
}

#: Those of a job that is over.
OVER = ("succeeded", "failed", "cancelled", "timed_out", "lost")


def is_success(record: Mapping[str, Any]) -> bool:
    """Whether a job is over, did what it should, and left nothing."""
    return record["state"] == "succeeded" and record["clean"] is not False


def status(record: Mapping[str, Any]) -> str:
    """The state of a job in SAGE's word: ``initializing``, ``running``, ``paused``, ``stopped`` or ``failed``."""
    if record["state"] in OVER and not is_success(record):
        return "failed"
    return _STATUS[record["state"]]


def _began(record: Mapping[str, Any]) -> float:
    return float(record["started_ms"] or record["submitted_ms"]) / 1000


def summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """A job, as ``list_jobs`` tells it."""
    ended = record["ended_ms"]
    return {
        "uuid": record["id"],
        "name": record["name"],
        "status": status(record),
        "start_time": moment_text(_began(record)),
        "runtime": runtime((time.time() if ended is None else ended / 1000) - _began(record)),
        "restart_count": record["restart_count"],
        "last_update": moment_text(record["updated_ms"] / 1000),
        "autostop": record["autostop"],
    }


def detailed(daemon: Daemon, detail: Mapping[str, Any]) -> dict[str, Any]:
    """A job, as ``get_job_status`` tells it."""
    record = detail["record"]
    units = Units(daemon, record["id"])
    told = {"success": True, **summary(record)}
    told["environment"] = {"name": record["name"], "platform": "remote", "description": ""}
    tasks, services = units.left("task"), units.left("service")
    is_over = record["state"] in OVER
    told["dispatcher"] = {
        "task_count": 0 if is_over else tasks,
        "service_count": 0 if is_over else services,
        "is_running": not is_over and tasks > 0,
    }
    told["scheduler_metrics"] = units.metrics(record["submitted_ms"] / 1000)
    if record["ended_ms"] is not None:
        told["stop_time"] = moment_text(record["ended_ms"] / 1000)
    if told["status"] == "failed":
        told["error"] = record["why"] or record["state"]
    moments = {"created_at": record["submitted_ms"], "started_at": record["started_ms"]}
    moments["completed_at"] = record["ended_ms"]
    told |= {name: None if at is None else at / 1000 for name, at in moments.items()}
    return {**told, "env_name": record["name"], "pipeline_size": units.operators, "running": not is_over}


class Units:
    """The tasks and services of a program's jobs, and how far they are, by its events."""

    def __init__(self, daemon: Daemon, job: str) -> None:
        self._states: dict[tuple[str, str, str], str] = {}
        #: When each task began to run, in seconds since 1970.
        self._begins: list[float] = []
        #: How many operators the jobs have.
        self.operators = 0
        after = 0
        while True:
            page = daemon.of(job, f"events?after={after}")
            for event in page["events"]:
                self._note(event)
            if page["next"] == after or not page["events"]:
                return
            after = page["next"]

    def _note(self, event: Mapping[str, Any]) -> None:
        if begins := event.get("begins"):
            graph = begins["graph"]
            for kind in ("task", "service"):
                self._states |= {(begins["job"], kind, unit["name"]): "created" for unit in graph[f"{kind}s"]}
            self.operators += sum(len(chain["operators"]) for chain in graph["chains"])
        elif changed := event.get("changed"):
            for kind in ("task", "service"):
                if change := changed["change"].get(kind):
                    self._states[changed["job"], kind, change["name"]] = change["to"].replace("_", " ")
                    if change["to"] == "running":
                        self._begins.append(event["at_ms"] / 1000)

    def left(self, kind: str) -> int:
        """How many tasks or services are not gone."""
        return sum(of == kind and state not in GONE for (_, of, _), state in self._states.items())

    def metrics(self, submitted: float) -> dict[str, Any]:
        """How many tasks were started, and how soon: as ``get_metrics`` of a scheduler tells it."""
        tasks = len(self._begins)
        latency = 1000 * (sum(self._begins) - tasks * submitted) / tasks if tasks else 0.0
        told = {"scheduler_type": "FIFO", "total_scheduled": tasks, "avg_latency_ms": latency}
        return {**told, "decisions": tasks, "platform": "remote"}
