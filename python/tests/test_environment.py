"""What an environment shows of itself, and the folder of its log files."""

from __future__ import annotations

import logging
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, MapFunction, SinkFunction, SubmitError
from sage._services import ServiceFactory
from sage.kernel.runtime.factory.service_factory import ServiceFactory as OfTheSecond


class Doubled(MapFunction):
    def execute(self, n: int) -> int:
        return 2 * n


class Kept(SinkFunction):
    def execute(self, n: int) -> None:
        pass


def test_the_pipeline_has_the_programs_steps_with_their_classes_names_and_upstreams() -> None:
    env = LocalEnvironment("shown", enable_monitoring=True)
    numbers = env.from_batch([1, 2])
    numbers.map(Doubled).map(Doubled, parallelism=2).sink(Kept)
    numbers.keyby(lambda n: n).filter(bool).map(Doubled).sink(Kept)
    env.from_future("later")
    told = [(step.basename, step.parallelism, [before.basename for before in step.upstreams]) for step in env.pipeline]
    assert told == [
        ("SimpleBatchFunction", 1, []),
        ("Doubled", 1, ["SimpleBatchFunction"]),
        ("Doubled_1", 2, ["Doubled"]),
        ("Kept", 1, ["Doubled_1"]),
        ("lambda", 1, ["SimpleBatchFunction"]),
        ("bool", 1, ["lambda"]),
        ("Doubled_2", 1, ["bool"]),
        ("Kept_1", 1, ["Doubled_2"]),
        ("FutureFunction", 1, []),
    ]
    assert [step.function_class for step in env.pipeline][1:4] == [Doubled, Doubled, Kept]
    assert f"{env.pipeline[:2]}" == "[Transformation('batch'), Transformation('Doubled')]"
    assert env.pipeline[1] is env.pipeline[1] and env.pipeline[1].function_class is Doubled
    assert env.enable_monitoring is True and env.platform == "local"


def test_steps_of_the_package_are_not_in_it() -> None:
    from sage import DeadLetterQueue

    env = LocalEnvironment("ours")
    left, right = env.from_batch([1]), env.from_batch([2])
    dropped: list[Any] = []
    left.connect(right).map(str, on_error=DeadLetterQueue(dropped.append)).collect()
    future = env.from_future("loop")
    left.map(int).fill_future(future)
    future.sink(print)
    assert [step.name for step in env.pipeline] == ["batch", "batch-2", "str", "collect", "loop", "int", "print"]


def test_env_uuid_is_what_submit_returned() -> None:
    env = LocalEnvironment("id")
    env.from_batch([1]).collect()
    assert env.env_uuid is None and env.uuid is None
    job = env.submit(autostop=True)
    assert env.env_uuid == env.uuid == job
    env.close()
    assert env.env_uuid is None and env.job == job


class Counter(BaseService):
    def __init__(self, start: int = 0) -> None:
        self.count = start

    def process(self) -> int:
        self.count += 1
        return self.count


def test_register_service_returns_the_factory_which_register_service_factory_takes() -> None:
    env = LocalEnvironment("factories")
    factory = env.register_service("a", Counter, 5)
    assert isinstance(factory, ServiceFactory) and ServiceFactory is OfTheSecond
    assert (factory.service_name, factory.service_class) == ("a", Counter)
    assert env.register_service_factory("b", factory) is factory
    own = Own()
    assert env.register_service_factory("c", own) is own
    env.register_service_factory("d", lambda: Counter(40))
    assert list(env.service_factories) == ["a", "b", "c", "d"] and env.service_factories["a"] is factory
    seen = env.from_batch(list("abcd")).map(Calls).collect()
    env.submit(autostop=True)
    assert seen == [6, 6, 31, 41] and own.context == "c"
    made = factory.create_service()
    assert made.process() == 6 and made.ctx is None, "outside a job too"
    with pytest.raises(ValueError, match="there is a service `a` already"):
        env.register_service("a", Counter)


class Own:
    """Makes a service, and is no factory of ours."""

    def create_service(self, ctx: Any = None) -> Counter:
        self.context = ctx.name
        return Counter(30)


class Calls(MapFunction):
    def execute(self, name: str) -> Any:
        return self.call_service(name)


@pytest.mark.parametrize(("factory", "error"), [(3, "needs a function"), (Counter(), "needs a function")])
def test_what_makes_no_service_is_refused(factory: Any, error: str) -> None:
    with pytest.raises(TypeError, match=error):
        LocalEnvironment("e").register_service_factory("x", factory)


def test_the_level_of_an_environment_is_a_level() -> None:
    env = LocalEnvironment("level")
    env.set_console_log_level("debug")
    assert env.logger.level == logging.DEBUG
    with pytest.raises(ValueError, match="a level is one of .*DEBUG.*, not 'LOUD'"):
        env.set_console_log_level("LOUD")
    env.set_console_log_level("NOTSET")


def test_monitoring_is_a_truth() -> None:
    with pytest.raises(TypeError, match="`enable_monitoring`"):
        LocalEnvironment("e", enable_monitoring="yes")  # type: ignore[arg-type]
    with pytest.raises(SubmitError, match="no pipeline"):
        LocalEnvironment("e", None, "fifo", True).submit()


class Cleaned(BaseService):
    def cleanup(self) -> None:
        pass


class Told(MapFunction):
    def execute(self, n: int) -> Any:
        self.logger.warning("has %s", n)
        return 1 // n


def session(folder: Path) -> tuple[str, str, Path]:
    """What the two files of the only session say, and the folder of its environment."""
    (found,) = (folder / "jobmanager").iterdir()
    assert found.name.startswith("session_")
    (environment,) = (path for path in found.iterdir() if path.is_dir())
    return (found / "Dispatcher.log").read_text(), (found / "Error.log").read_text(), environment


def test_the_log_of_a_session_tells_of_tasks_and_services_to_the_end(tmp_path: Path) -> None:
    env = LocalEnvironment("logged", {"log_dir": tmp_path})
    env.register_service("a", Cleaned)
    env.register_service("b", Cleaned)
    env.from_batch([1, 2]).map(Told, parallelism=2).collect()
    assert env.env_base_dir is None
    env.submit(autostop=True)
    dispatcher, errors, folder = session(tmp_path)
    lines = [line.partition(" ")[2] for line in dispatcher.splitlines()]
    told = ["task Told/1 ended", "tasks ended: 4 finished", "services to clean: 2", "service a cleaned"]
    told += ["service b cleaned", "services cleaned: 2 of 2", "job ended"]
    assert all(line in lines for line in told), dispatcher
    order = [lines.index(line) for line in (told[1], told[2], told[5])]
    assert order == sorted(order) and errors == ""
    assert env.env_base_dir == str(folder) and folder.name == "env_logged"
    own = folder / "Environment.log"
    assert sorted(line.rpartition(" ")[2] for line in own.read_text().splitlines()) == ["1", "2"]
    assert "WARNING sage.logged.Told: has 1" in own.read_text()
    assert stat.S_IMODE(own.stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    env.logger.warning("after the job")
    assert "after the job" not in own.read_text()


def test_two_environments_of_one_name_write_into_their_own_logs_only(tmp_path: Path) -> None:
    both, met = threading.Barrier(2, timeout=60), threading.Barrier(3, timeout=60)

    class Tells(MapFunction):
        def execute(self, who: str) -> str:
            both.wait()
            self.logger.warning("map %s", who)
            both.wait()
            return who

    class TellsLater(MapFunction):
        async def execute(self, who: str) -> str:
            self.logger.warning("async %s", who)
            return who

    class TellsBeside(MapFunction):
        def execute(self, who: str) -> str:
            self.logger.warning("thread %s %s", who, self.call_service_async("teller", who).result())
            met.wait()
            met.wait()
            return who

    class Teller(BaseService):
        def process(self, who: str) -> str:
            self.logger.warning("service %s", who)
            return who

    def declared(who: str) -> LocalEnvironment:
        env = LocalEnvironment("one", {"log_dir": tmp_path / who})
        env.register_service("teller", Teller)
        env.from_batch([who]).map(Tells).map(TellsLater).map(TellsBeside, in_flight=2).collect()
        return env

    environments = {who: declared(who) for who in ("first", "second")}
    for env in environments.values():
        env.submit()
    met.wait()
    environments["first"].logger.warning("of none")
    met.wait()
    for who, env in environments.items():
        env.wait()
        *_, folder = session(tmp_path / who)
        said = [line.rpartition(": ")[2] for line in (folder / "Environment.log").read_text().splitlines()]
        assert sorted(said) == [f"async {who}", f"map {who}", "of none", f"service {who}", f"thread {who} {who}"]


def test_a_log_that_cannot_be_closed_changes_nothing_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: logging.Handler) -> None:
        raise OSError("no space left")

    env = LocalEnvironment("full", {"log_dir": tmp_path})
    seen = env.from_batch([1]).collect()
    with monkeypatch.context() as patched, pytest.warns(UserWarning, match="at the end of `full`: OSError: no space"):
        patched.setattr(logging.FileHandler, "close", full)
        env.submit(autostop=True)
    assert seen == [1] and env.jobmanager.jobs[str(env.env_uuid)].status == "stopped"


def test_a_log_that_cannot_be_written_changes_nothing_of_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Removes(MapFunction):
        def execute(self, n: int) -> int:
            Path(self.ctx.env_base_dir or "").rmdir()
            self.logger.warning("record %s", n)
            return n

    env = LocalEnvironment("removed", {"log_dir": tmp_path})
    seen = env.from_batch([1]).map(Removes).collect()
    env.submit(autostop=True)
    assert seen == [1] and "FileNotFoundError" in capsys.readouterr().err


def test_the_folder_of_an_environment_is_found_from_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = LocalEnvironment("relative", {"log_dir": "logs"})
    env.from_batch([1]).collect()
    env.submit(autostop=True)
    *_, folder = session(tmp_path / "logs")
    assert env.env_base_dir == str(folder)


def test_log_files_that_cannot_be_are_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    env = LocalEnvironment("nowhere", {"log_dir": tmp_path / "file"})
    env.from_batch([1]).collect()
    with pytest.raises(SubmitError, match="cannot write log files in .*; choose another directory: Not a directory"):
        env.submit(autostop=True)


def test_the_log_of_a_session_names_what_failed(tmp_path: Path) -> None:
    class Stuck(BaseService):
        def cleanup(self) -> None:
            raise OSError("disk is gone")

    env = LocalEnvironment("fails", {"log_dir": tmp_path})
    env.register_service("good", Cleaned)
    env.register_service("bad", Stuck)
    env.from_batch([0]).map(Told).collect()
    with pytest.raises(JobFailed):
        env.submit(autostop=True)
    dispatcher, errors, _ = session(tmp_path)
    assert "services cleaned: 1 of 2" in dispatcher and "service bad cleanup failed" in dispatcher
    assert "ZeroDivisionError: " in errors and "disk is gone" in errors


def test_a_variable_asks_for_log_files_too_and_functions_know_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_LOG_DIR", str(tmp_path / "logs"))
    env = LocalEnvironment("a/b " + "ü" * 300)
    env.from_batch([1]).collect()
    env.submit(autostop=True)
    _, _, folder = session(tmp_path / "logs")
    assert folder.name.startswith("env_a_b_üü") and len(os.fsencode(folder.name)) <= 204
    assert not (folder / "Environment.log").exists(), "nobody logged anything"
    assert env.jobmanager.get_server_info()["log_base_dir"] == str(tmp_path / "logs" / "jobmanager")
    monkeypatch.setenv("SAGE_LOG_DIR", "")
    env.submit(autostop=True)
    assert env.env_base_dir is None and env.jobmanager.get_server_info()["log_base_dir"] is None
