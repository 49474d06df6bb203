"""Small names of SAGE's API: what they take and give."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from sage import FilterFunction, FlatMapFunction, LocalEnvironment, MapFunction, SinkFunction, SourceFunction
from sage import _flownet
from sage.common.core.functions import KeyByFunction, wrap_lambda
from sage.common.utils.config.loader import load_config
from sage.common.utils.logging import CustomLogger, get_logger
from sage.kernel.api.flownet_environment import FlownetEnvironment
from sage.runtime import FlowNetEnvironment, Packet, StopSignal


def test_a_stop_signal_has_a_message_a_source_and_a_time() -> None:
    before = time.time_ns()
    plain, full = StopSignal(), StopSignal("done", "reader", payload=[1])
    assert before <= plain.timestamp <= time.time_ns()
    assert (plain.message, plain.name, plain.source, plain.payload) == ("Stop", "Stop", "Stop", None)
    assert (full.message, full.name, full.source, full.payload) == ("done", "done", "reader", [1])
    assert str(full) == "StopSignal(done)" and StopSignal(name="by name").message == "by name"


def test_a_packet_passes_its_key_on_and_is_a_record_like_others() -> None:
    packet = Packet("p", 1, "key", "hash")
    assert packet.is_keyed() and not Packet("p").is_keyed() and not Packet("p", partition_key=None).is_keyed()
    assert packet.inherit_partition_info("q") == Packet("q", 1, "key", "hash")
    assert packet.update_key("other") == Packet("p", 1, "other", "hash")
    assert packet.update_key("other", "broadcast") == Packet("p", 1, "other", "broadcast")
    copy = packet.copy()
    assert copy == packet and copy is not packet and copy.timestamp == packet.timestamp
    env = LocalEnvironment()
    records = env.from_batch([1, 2]).map(lambda n: Packet(n, partition_key="k")).collect()
    env.submit(autostop=True)
    assert records == [Packet(1, 0, "k"), Packet(2, partition_key="k")] and records[0].payload == 1


def test_a_wrapped_lambda_is_a_function_class() -> None:
    double = wrap_lambda(lambda n: 2 * n)
    assert issubclass(double, MapFunction) and double().execute(2) == 4
    env = LocalEnvironment()
    odd = wrap_lambda(lambda n: n % 4 == 2, "filter")
    stream = env.from_batch([1, 2, 3]).map(double).filter(odd)
    records = stream.flatmap(wrap_lambda(lambda n: [n, n], func_type="flatmap")).collect()
    env.submit(autostop=True)
    assert records == [2, 2, 6, 6]


def test_what_a_callable_is_wrapped_as_can_be_said_or_guessed() -> None:
    def true(n: int) -> bool:
        return bool(n)

    def words(line: str) -> list[str]:
        return line.split()

    def show(n: Any) -> None:
        print(n)

    def both(one: Any, other: Any) -> bool:
        return one is other

    def noted(n: Any) -> bool:
        return bool(n)

    def elsewhere(n: Any) -> bool:
        return bool(n)

    noted.__annotations__["n"], elsewhere.__annotations__["n"] = "a note of ours", "pytest.nothing.there"
    guessed = [(true, FilterFunction), (words, FlatMapFunction), (show, SinkFunction), (both, MapFunction)]
    guessed += [(noted, MapFunction), (elsewhere, MapFunction)]
    guessed += [(len, MapFunction), (dict.get, MapFunction), (lambda: 1, SourceFunction)]
    for function, kind in guessed:
        assert issubclass(wrap_lambda(function), kind)
    said = {"map": MapFunction, "filter": FilterFunction, "flatmap": FlatMapFunction, "sink": SinkFunction}
    for name, kind in {**said, "source": SourceFunction, "keyby": KeyByFunction}.items():
        assert issubclass(wrap_lambda(len, name), kind)
    assert issubclass(wrap_lambda(len, FilterFunction), FilterFunction)
    assert issubclass(wrap_lambda(len, base=FilterFunction), FilterFunction)
    wrong: list[tuple[Any, Any, type[Exception]]] = [
        (3, None, TypeError),
        (len, int, TypeError),
        (len, "fold", ValueError),
    ]
    for function, kind, error in wrong:
        with pytest.raises(error, match="wrap_lambda"):
            wrap_lambda(function, kind)


def test_outputs_of_a_logger_are_added_changed_and_removed(tmp_path: Path) -> None:
    log = CustomLogger([("console", "ERROR"), ("logs/app.log", logging.INFO)], "many outputs", log_base_folder=tmp_path)
    assert (log.name, log.logger.name) == ("many outputs", "sage.many outputs")
    log.debug("not yet")
    log.update_output_level(1, "DEBUG")
    log.debug("now %s", "with arguments")
    log.add_output(tmp_path / "errors.log", "ERROR")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed", extra={"user": 1})
    console, app, errors = log.get_output_configs()
    assert (console["target"], app["level"], app["level_num"]) == ("console", "DEBUG", logging.DEBUG)
    assert app["resolved_path"] == str(tmp_path / "logs" / "app.log") and errors["handler_active"]
    log.remove_output("logs/app.log")
    log.remove_output(0)
    log.error("the last")
    written = (tmp_path / "logs" / "app.log").read_text()
    assert [word in written for word in ("not yet", "with arguments", "ValueError: why", "the last")] == [0, 1, 1, 0]
    assert "the last" in (tmp_path / "errors.log").read_text()
    for which in (7, "app.log"):
        with pytest.raises(ValueError, match="no output .*errors.log"):
            log.update_output_level(which, "INFO")
    with pytest.raises(ValueError, match="LOUD"):
        log.add_output("console", "LOUD")
    log.remove_output(0)


def test_an_output_that_cannot_be_opened_is_no_error_of_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    log = CustomLogger([("app.log", "INFO")], "unopened", log_base_folder=tmp_path / "file")
    log.info("unheard")
    assert "FileExistsError" in capsys.readouterr().err
    log.remove_output(0)


def test_a_logger_is_made_by_its_name_or_its_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [("console", "INFO")]
    made = [CustomLogger("made"), CustomLogger("made", pairs), CustomLogger(pairs, name="made")]
    made += [CustomLogger(pairs, "made"), CustomLogger(outputs=pairs, name="made")]
    assert {log.name for log in made} == {"made"} and CustomLogger().name == "Logger"
    assert [len(log.get_output_configs()) for log in made] == [0, 1, 1, 1, 1]
    assert get_logger("got").name == "got" and "WARNING" in CustomLogger.get_available_levels()
    logger = CustomLogger.get_logger("plain", level="ERROR")
    assert type(logger) is logging.Logger and logger.level == logging.ERROR
    capsys.readouterr()
    made[-1].print_current_configs()
    assert capsys.readouterr().out == "made 0: INFO to console\n"


def test_the_console_of_all_loggers_can_be_silenced(capsys: pytest.CaptureFixture[str]) -> None:
    log = CustomLogger("silenced", [("console", "DEBUG")])
    level = logging.getLogger("sage").level
    try:
        assert CustomLogger.is_global_console_debug_enabled()
        CustomLogger.disable_global_console_debug()
        assert not log.is_global_console_debug_enabled() and not log.get_output_configs()[0]["handler_active"]
        log.info("hidden")
        log.warning("warned")
        CustomLogger.enable_global_console_debug()
        log.debug("shown again")
    finally:
        logging.getLogger("sage").setLevel(level)
    said = capsys.readouterr().err
    assert [word in said for word in ("hidden", "warned", "shown again")] == [False, True, True]


def test_a_configuration_is_looked_for_where_sage_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, home = tmp_path / "project", tmp_path / "home"
    (project / "config").mkdir(parents=True)
    (project / "pyproject.toml").touch()
    (project / "deep" / "er").mkdir(parents=True)
    (home / "sage").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "system"))
    monkeypatch.chdir(tmp_path)

    def load(*path: str) -> Any:
        scope = {"__file__": str(project / "deep" / "er" / "program.py"), "load_config": load_config, "path": path}
        exec("config = load_config(*path)", scope)
        return scope["config"]

    with pytest.raises(FileNotFoundError, match="project/config/config.yaml, .*home/sage/config.yaml, .*system/sage"):
        load()
    for folder, said in [(home / "sage", "user"), (project / "config", "project")]:
        (folder / "config.yaml").write_text(f"said: {said}")
        assert load() == {"said": said}
    (project / "config" / "other.yaml").write_text("said: other")
    assert load("other.yaml") == load("config/other.yaml") == {"said": "other"}
    (tmp_path / "other.yaml").write_text("said: here")
    assert load("other.yaml") == {"said": "here"}, "the current folder comes first"
    monkeypatch.setenv("SAGE_CONFIG", "config/other.yaml")
    assert load() == {"said": "other"}
    with pytest.raises(FileNotFoundError, match="config/missing.yaml"):
        load("missing.yaml")


def test_a_flownet_environment_says_once_what_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_flownet, "_warned", [])
    with pytest.warns(UserWarning, match="`FlownetEnvironment` is `LocalEnvironment` here") as warned:
        for host in ("one", "other"):
            env = FlowNetEnvironment("cluster", {"key": 1}, placement_policy="spread", host=host, port=1)
            records = env.from_batch([1]).collect()
            env.submit(autostop=True)
            assert records == [1] and env.name == "cluster" and env.config == {"key": 1}
    assert len(warned) == 1 and warned[0].filename == __file__
    assert FlownetEnvironment is FlowNetEnvironment and FlownetEnvironment().name == "flownet_environment"
