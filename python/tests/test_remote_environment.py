"""Jobs that the job manager runs, from Python: a real one, started as programs for SAGE start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Gate, RunningDaemon

from sage import BaseService, BatchFunction, JobFailed, MapFunction, RemoteEnvironment, SinkFunction, SourceFunction
from sage import SubmitError
from sage._pickling import RemoteCause
from sage.core.api.remote_environment import RemoteEnvironment as OfTheSeed
from sage.kernel.api import RemoteEnvironment as OfTheLater

pytest.importorskip("cloudpickle")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A job manager for all tests of this module."""
    made = RunningDaemon(tmp_path_factory.mktemp("home"))
    yield made
    assert made.end() == 0


@pytest.fixture
def manager(running: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDaemon]:
    """That job manager, as this program's; nothing of its jobs is left when a test is over."""
    monkeypatch.setenv("SAGE_HOME", str(running.home))
    yield running
    RemoteEnvironment(port=running.port).client.cleanup_all_jobs()
    assert running.left() == []


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path / "gate")
    yield made
    made.close()


class Noted:
    """Lines that the parts of a job write."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def add(self, line: str) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            print(line, file=file)

    @property
    def lines(self) -> list[str]:
        return Path(self.path).read_text(encoding="utf-8").splitlines() if os.path.exists(self.path) else []


class Letters(BaseService):
    def __init__(self, notes: Noted) -> None:
        self.notes, self.is_running = notes, False

    def setup(self) -> None:
        self.notes.add("initialised")

    def start(self) -> None:
        self.is_running = True

    def process(self, text: str) -> str:
        self.notes.add("used")
        return text.upper()

    def stop(self) -> None:
        self.is_running = False

    def cleanup(self) -> None:
        self.notes.add("cleaned, running" if self.is_running else "cleaned, not running")


class Five(BatchFunction):
    def __init__(self) -> None:
        self.left = 5

    def execute(self) -> str | None:
        if self.left == 0:
            return None
        self.left -= 1
        return "abcde"[4 - self.left]


class Ask(SinkFunction):
    def __init__(self, notes: Noted) -> None:
        self.notes = notes

    def execute(self, letter: str) -> None:
        print("asking for", letter)
        self.notes.add(self.call_service("letters", letter))


class Endless(SourceFunction):
    """Meets the test at its first record, and goes on for ever."""

    def __init__(self, gate: Gate) -> None:
        self.gate, self.number = gate, 0

    def execute(self) -> int:
        self.number += 1
        if self.number == 2:
            self.gate.wait()
        return self.number


def endless(
    manager: RunningDaemon, gate: Gate, tmp_path: Path, name: str = "endless"
) -> tuple[RemoteEnvironment, Noted]:
    env, notes = RemoteEnvironment(name, port=manager.port), Noted(tmp_path / "notes")
    env.register_service("letters", Letters, notes)
    env.from_source(Endless, gate, delay=0.001).map(str).sink(len)
    return env, notes


def until_running(env: RemoteEnvironment) -> None:
    """Waits until the job manager knows that the job runs."""
    assert env.env_uuid is not None
    for happened in env.client.daemon.stream(env.env_uuid):
        if happened.data.get("state") == "running":
            return
    raise AssertionError("it is over")


def test_contract_a_service_is_cleaned_once_and_in_order_when_submit_returns(
    manager: RunningDaemon, gate: Gate, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    env, notes = RemoteEnvironment("autostop", port=manager.port), Noted(tmp_path / "notes")
    env.register_service("letters", Letters, notes)
    env.from_batch(Five).sink(Ask, notes)
    job = env.submit(autostop=True)
    assert notes.lines == ["initialised", *sum((["used", letter] for letter in "ABCDE"), []), "cleaned, not running"]
    assert manager.left() == [] and not env.is_running
    assert job == env.env_uuid == env.uuid and capfd.readouterr().out == "".join(f"asking for {n}\n" for n in "abcde")
    told = env.get_job_status()
    assert told["status"] == "success" and told["job_status"]["status"] == "stopped"
    assert told["job_status"]["uuid"] == job and told["job_status"]["autostop"] is True
    report = env.wait()
    assert report is not None and report.outcome == "succeeded" and report.services["letters"]["state"] == "cleaned"
    assert env.get_scheduler_metrics()["total_scheduled"] >= 1


def test_a_job_that_fails_raises_its_report_and_its_cause(manager: RunningDaemon) -> None:
    env = RemoteEnvironment("fails", port=manager.port)
    env.from_batch(["1", "two"]).map(int, name="numbers").sink(print)
    with pytest.raises(JobFailed, match="job `fails` failed") as failed:
        env.submit(autostop=True)
    assert "operator `numbers" in str(failed.value) and "record 2" in str(failed.value)
    cause = failed.value.__cause__
    assert isinstance(cause, RemoteCause) and cause.kind == "ValueError" and "invalid literal" in cause.text
    told = failed.value.report.data
    assert told["outcome"] == "failed" and told["first_cause"]["kind"] == "error"
    assert told["environment"] == "fails" and "invalid literal" in str(failed.value.report)
    status = env.get_job_status()["job_status"]
    assert status["status"] == "failed" and "invalid literal" in status["error"]


def test_a_job_goes_on_beside_the_program_until_stop_drains_it(
    manager: RunningDaemon, gate: Gate, tmp_path: Path
) -> None:
    env, notes = endless(manager, gate, tmp_path)
    job = env.submit()
    gate.meet()
    until_running(env)
    status = env.get_job_status()["job_status"]
    assert status["status"] == "running" and status["running"] and env.is_running
    assert status["dispatcher"] == {"task_count": 2, "service_count": 1, "is_running": True}
    assert env.wait(0.05) is None
    answer = env.stop()
    assert (answer["uuid"], answer["status"]) == (job, "stopped") and manager.left() == []
    assert notes.lines == ["initialised", "cleaned, not running"]
    assert env.stop()["status"] == "stopped", "once more changes nothing"
    report = env.wait()
    assert report is not None and report.data["reason"] == "drain"
    assert env.close()["status"] == "stopped" and env.env_uuid is None and env.pipeline == []


def test_leaving_a_with_block_drains_the_job(manager: RunningDaemon, gate: Gate, tmp_path: Path) -> None:
    env, notes = endless(manager, gate, tmp_path)
    with env:
        env.submit()
        gate.meet()
    assert notes.lines[-1] == "cleaned, not running" and manager.left() == []


def test_a_job_that_was_paused_as_in_sage_is_submitted_anew(manager: RunningDaemon, gate: Gate, tmp_path: Path) -> None:
    env, notes = endless(manager, gate, tmp_path)
    job, client = env.submit(), env.client
    gate.meet()
    assert client.pause_job(job)["status"] == "stopped"
    continued = client.continue_job(job)
    assert (continued["uuid"], continued["status"]) == (job, "running")
    gate.meet()
    until_running(env)
    status = client.get_job_status(job)["job_status"]
    assert (status["restart_count"], status["status"]) == (1, "running")
    assert [told["uuid"] for told in client.list_jobs()["jobs"]] == [job]
    assert client.delete_job(job)["status"] == "deleted" and manager.left() == []
    assert notes.lines == ["initialised", "cleaned, not running"] * 2
    assert client.get_job_status(job)["job_status"]["status"] == "not_found"
    for ask in (client.pause_job, client.continue_job, client.resume_job, client.delete_job):
        assert ask(job)["status"] == "not_found"


def test_jobs_are_listed_in_their_order_and_cleaned_up_together(
    manager: RunningDaemon, gate: Gate, tmp_path: Path
) -> None:
    env, notes = endless(manager, gate, tmp_path, "first")
    first = env.submit()
    gate.meet()
    other = RemoteEnvironment("second", port=manager.port)
    other.from_batch([1]).sink(print)
    second = other.submit(autostop=True)
    client = env.client
    assert [(job["uuid"], job["name"]) for job in client.list_jobs()["jobs"]] == [(first, "first"), (second, "second")]
    server, health = client.get_server_info()["server_info"], env.health_check()["daemon_status"]
    assert [job["uuid"] for job in server["jobs"]] == [first, second] and server["daemon_enabled"]
    assert health["jobs_count"] == 2 and health["session_id"] == server["session_id"]
    assert health["socket_service"] == server["daemon_address"] == f"127.0.0.1:{manager.port}"
    assert client.receive_node_stop_signal(first, "node")["status"] == "success"
    cleaned = client.cleanup_all_jobs()
    assert cleaned["message"] == "Cleaned up 2 jobs" and set(cleaned["results"]) == {first, second}
    assert client.list_jobs()["jobs"] == [] and manager.left() == [] and notes.lines[-1] == "cleaned, not running"


def test_a_job_is_deleted_by_force(manager: RunningDaemon, gate: Gate, tmp_path: Path) -> None:
    env, notes = endless(manager, gate, tmp_path)
    job = env.submit()
    gate.meet()
    assert env.client.delete_job(job, force=True)["status"] == "deleted" and manager.left() == []
    assert notes.lines == ["initialised", "cleaned, not running"]
    with pytest.raises(RuntimeError, match="was deleted before it was over"):
        env.wait()


PROGRAM = """
import sys
from daemons import wait
from sage import MapFunction, RemoteEnvironment, SourceFunction, BaseService

class Endless(SourceFunction):
    def __init__(self): self.number = 0
    def execute(self):
        self.number += 1
        if self.number == 2:
            wait(GATE)
        return Point(self.number)

class Point:
    def __init__(self, x): self.x = x

class Db(BaseService):
    def cleanup(self):
        print("cleaned", flush=True)
        if sys.argv[3:] == ["slow"]:
            wait(GATE + "2")

GATE = sys.argv[2]
env = RemoteEnvironment("interrupted", port=int(sys.argv[1]))
env.register_service("db", Db)
env.from_source(Endless, delay=0.001).map(lambda point: point.x).sink(lambda n: n == 1 and print("first"))
try:
    env.submit(autostop=True)
except KeyboardInterrupt as interrupt:
    print("interrupted:", interrupt)
    print(interrupt.report.outcome if hasattr(interrupt, "report") else "not waited for")
"""


def program(manager: RunningDaemon, tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(manager.port), str(tmp_path / "gate"), *arguments]
    variables = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=variables
    )


def test_ctrl_c_drains_the_job_and_the_program_ends_when_it_is_over(
    manager: RunningDaemon, gate: Gate, tmp_path: Path
) -> None:
    with program(manager, tmp_path) as ran:
        gate.meet()
        ran.send_signal(signal.SIGINT)
        out, err = ran.communicate(timeout=60)
    assert out.splitlines()[:2] == ["first", "cleaned"] and out.splitlines()[3] == "succeeded", (out, err)
    assert out.splitlines()[2].startswith("interrupted: job ") and ran.returncode == 0
    assert err == "stopping: finishing what is in flight; Ctrl-C again to drop it\n"
    assert manager.left() == []


def test_a_second_ctrl_c_cancels_and_a_third_waits_no_more(manager: RunningDaemon, gate: Gate, tmp_path: Path) -> None:
    last = Gate(tmp_path / "gate2")
    with program(manager, tmp_path, "slow") as ran:
        gate.meet()
        assert ran.stderr is not None
        for said in ("finishing", "dropping"):
            ran.send_signal(signal.SIGINT)
            assert said in ran.stderr.readline()
        ran.send_signal(signal.SIGINT)
        out, err = ran.communicate(timeout=60)
    assert "is being cancelled, and was not waited for" in out, (out, err)
    last.meet()
    last.close()
    (job,) = RemoteEnvironment(port=manager.port).client.list_jobs()["jobs"]
    RemoteEnvironment(port=manager.port).client.pause_job(job["uuid"])
    assert manager.left() == []


def test_a_program_that_is_killed_leaves_its_job_running(manager: RunningDaemon, gate: Gate, tmp_path: Path) -> None:
    with program(manager, tmp_path) as ran:
        gate.meet()
        ran.kill()
        ran.communicate(timeout=60)
    client = RemoteEnvironment(port=manager.port).client
    (job,) = client.list_jobs()["jobs"]
    assert job["status"] in ("initializing", "running") and client.pause_job(job["uuid"])["status"] == "stopped"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_submit_goes_on_waiting_when_the_job_manager_is_started_anew(
    how: signal.Signals, gate: Gate, tmp_path: Path
) -> None:
    manager = RunningDaemon(tmp_path / "home")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SAGE_HOME", str(manager.home))
        # Its value would be gone with the first job manager, and the job could not run again.
        patched.delenv("PYTHONPATH", raising=False)
        notes = Noted(tmp_path / "notes")
        env = RemoteEnvironment("survives", port=manager.port)
        env.register_service("letters", Letters, notes)
        env.from_batch([1]).map(Waits, gate).map(Waits, gate).sink(Ask, notes)
        ended: list[str] = []
        waits = threading.Thread(target=lambda: ended.append(env.submit(autostop=True)))
        waits.start()
        gate.meet()
        manager.end(how)
        manager.start()
        gate.meet()
        waits.join(60)
        assert ended == [env.env_uuid] and notes.lines == ["initialised", "used", "X", "cleaned, not running"]
        # What is kept of a job is enough to run it again.
        assert env.client.continue_job(ended[0])["status"] == "running"
        gate.meet()
        gate.meet()
        assert env.client.until_over(ended[0])["state"] == "succeeded"
    assert manager.end() == 0 and manager.left() == []


class Waits(MapFunction):
    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def execute(self, _: int) -> str:
        self.gate.wait()
        return "x"


def test_a_job_has_the_variables_that_were_named_and_no_others(
    manager: RunningDaemon, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    monkeypatch.setenv("MY_OTHER", "kept")
    monkeypatch.setenv("PYTHONPATH", "/a/folder")
    env = RemoteEnvironment("variables", port=manager.port, variables=["MY_KEY"])
    names = ["MY_KEY", "MY_OTHER", "SAGE_TOKEN", "PYTHONSAFEPATH", "PYTHONPATH"]
    env.from_batch(names).map(lambda name: f"{name}={os.environ.get(name)}").sink(print)
    job = env.submit(autostop=True)
    assert capfd.readouterr().out.splitlines() == [
        "MY_KEY=secret", "MY_OTHER=None", "SAGE_TOKEN=None", "PYTHONSAFEPATH=None", "PYTHONPATH=/a/folder",
    ]
    kept = [file for file in manager.folder.rglob("*") if file.is_file() and job in str(file)]
    assert kept and not any(b"secret" in file.read_bytes() for file in kept if not file.name.startswith("output"))
    env.variables.append("NOT_THERE")
    with pytest.raises(ValueError, match="`variables` names `NOT_THERE`"):
        env.submit()


def test_all_that_a_job_prints_is_shown_in_order(manager: RunningDaemon, capfd: pytest.CaptureFixture[str]) -> None:
    env = RemoteEnvironment("prints", port=manager.port)
    env.from_batch(range(3000)).map(lambda n: f"{n} " + "é" * 600).sink(print)
    env.submit(autostop=True)
    assert capfd.readouterr().out == "".join(f"{n} {'é' * 600}\n" for n in range(3000))


def test_functions_run_in_workers_there_as_here(manager: RunningDaemon, capfd: pytest.CaptureFixture[str]) -> None:
    env = RemoteEnvironment("workers", port=manager.port, workers="processes")
    env.from_batch([1, 2]).map(lambda n: (n * n, os.getpid() != os.getppid())).sink(print)
    env.submit(autostop=True)
    assert capfd.readouterr().out == "(1, True)\n(4, True)\n"
    report = env.wait()
    assert report is not None and len(report.data["workers"]) == 1


def test_a_job_whose_time_is_over_is_cancelled_and_cleaned(manager: RunningDaemon, gate: Gate, tmp_path: Path) -> None:
    env, notes = endless(manager, gate, tmp_path)
    env.limits["time_ms"] = 1500
    meets = threading.Thread(target=gate.meet)
    meets.start()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    meets.join()
    assert str(failed.value).startswith("job `endless` timed out: ")
    assert notes.lines == ["initialised", "cleaned, not running"]


def test_a_job_that_is_killed_has_no_report_and_says_why(manager: RunningDaemon, gate: Gate, tmp_path: Path) -> None:
    env, _ = endless(manager, gate, tmp_path)
    job = env.submit()
    gate.meet()
    env.client.daemon.of(job, "kill", "POST")
    with pytest.raises(JobFailed, match="job `endless` cancelled: .*kill") as failed:
        env.wait()
    assert failed.value.report.data == {} and "no report" in str(failed.value.report)


def test_the_bytes_of_an_environment_can_be_submitted_and_sages_cannot(manager: RunningDaemon) -> None:
    env = RemoteEnvironment("bytes", port=manager.port)
    env.from_batch([1]).sink(print)
    answer = env.client.submit_job(env.serialized(), autostop=True)
    assert answer["status"] == "success" and env.client.until_over(answer["job_uuid"])["state"] == "succeeded"
    with pytest.raises(ValueError, match="no environment of this package"):
        env.client.submit_job(b"\x80\x05K\x01.")


def test_without_a_job_manager_submit_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    env = RemoteEnvironment("nobody", port=4)
    env.from_batch([1]).sink(print)
    with pytest.raises(RuntimeError, match="Failed to submit environment: no job manager runs at port 4: start one "
                       "with `sage jobmanager start --port 4`"):
        env.submit(autostop=True)
    assert env.env_uuid is None and env.get_job_status()["status"] == "not_submitted"
    assert env.stop() == {"status": "warning", "message": "Environment not submitted"} == env.close()
    assert env.health_check()["error_code"] == "ERR_JOBMANAGER_CONNECTION_FAILED"
    assert env.get_scheduler_metrics()["total_scheduled"] == 0
    with pytest.raises(RuntimeError, match="no job was submitted"):
        env.wait()


def test_what_cannot_run_is_refused_before_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    with pytest.raises(SubmitError, match="has no pipeline"):
        RemoteEnvironment("empty").submit()
    env = RemoteEnvironment("open")
    env.from_batch([1]).filter(bool)
    with pytest.raises(SubmitError, match="has no sink"):
        env.submit()


def test_it_is_made_as_in_sage() -> None:
    assert OfTheSeed is OfTheLater is RemoteEnvironment
    env = RemoteEnvironment("far", {"mine": 1}, "localhost", 4)
    assert repr(env) == "RemoteEnvironment(name='far', host='localhost', port=4)"
    assert (env.daemon_host, env.daemon_port, env.platform) == ("localhost", 4, "remote")
    assert env.config == {"mine": 1, "engine_host": "localhost", "engine_port": 4}
    assert env.client is env.client and env.client.host == "localhost" and not env.is_running
    usual = RemoteEnvironment()
    assert (usual.name, usual.daemon_host, usual.daemon_port) == ("remote_environment", "127.0.0.1", 19001)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"port": 0}, "`port` is a whole number"),
        ({"host": 4}, "`host` is a text"),
        ({"variables": "HOME"}, "`variables` is a list of names"),
        ({"limits": {"memory": 4}}, "and no `memory`"),
        ({"limits": {"time_ms": 0}}, "`time_ms` of `limits` is a whole number"),
    ],
)
def test_what_it_cannot_be_made_with(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises((TypeError, ValueError), match=why):
        RemoteEnvironment("wrong", **wrong)
