"""Signals, packets, loggers, configurations, metronomes."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from . import of, there

_PACKETS = "sage.kernel.runtime.communication.router.packet sage.kernel.runtime.communication.packet sage.runtime"
_LOGGERS = "sage.common.utils.logging.custom_logger sage.common.utils.logging sage.foundation sage.foundation.logging"


@there(
    "StopSignal",
    'message="Stop", source=None, payload=None',
    f"{_PACKETS} sage.common.core.signals sage.common.core",
)
def stop_signal(StopSignal: Any) -> None:
    signal = StopSignal("done", payload=1)
    assert (signal.message, signal.name, signal.source, signal.payload) == ("done", "done", "done", 1)
    assert str(signal) == "StopSignal(done)" and signal.timestamp > 1e18


@there(
    "Packet",
    "payload, input_index=0, partition_key=None, partition_strategy=None",
    f"{_PACKETS} sage.core.communication.packet",
)
def packet(Packet: Any) -> None:
    made = Packet("p", 1, "k", "hash")
    assert made.is_keyed() and made.payload == "p" and made.input_index == 1 and made.timestamp > 1e18
    assert made.copy() == made and made.partition_strategy == "hash"


@of("Packet", "is_keyed", "")
def is_keyed(Packet: Any) -> None:
    assert not Packet("p").is_keyed() and Packet("p", partition_key=0).is_keyed()


@of("Packet", "inherit_partition_info", "new_payload")
def inherit(Packet: Any) -> None:
    assert Packet("p", 1, "k", "hash").inherit_partition_info("q") == Packet("q", 1, "k", "hash")


@of("Packet", "update_key", "new_key, new_strategy=None")
def update_key(Packet: Any) -> None:
    assert Packet("p", 1, "k", "hash").update_key("l") == Packet("p", 1, "l", "hash")


@of("Packet", "copy", "")
def copy(Packet: Any) -> None:
    packet = Packet("p")
    assert packet.copy().timestamp == packet.timestamp


@there("CustomLogger", "name_or_outputs=None, outputs=None, name=None, log_base_folder=None", _LOGGERS)
def custom_logger(CustomLogger: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = CustomLogger([("a.log", "INFO")], name="parity", log_base_folder=folder)
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(log, level)("said %s", level)
        text = Path(folder, "a.log").read_text()
        log.remove_output(0)
    assert text.count("said") == 4 and "INFO" in text and "said debug" not in text


@of("CustomLogger", "exception", "msg, *args")
def exception(CustomLogger: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = CustomLogger("parity", [(os.path.join(folder, "a.log"), "INFO")])
        try:
            raise KeyError("gone")
        except KeyError:
            log.exception("failed")
        assert "KeyError: 'gone'" in Path(folder, "a.log").read_text()
        log.remove_output(0)


@of("CustomLogger", "add_output", "output_target, level")
def add_output(CustomLogger: Any) -> None:
    log = CustomLogger("parity")
    log.add_output("console", "ERROR")
    assert [output["level"] for output in log.get_output_configs()] == ["ERROR"]
    log.remove_output("console")


@of("CustomLogger", "remove_output", "target_index_or_name")
def remove_output(CustomLogger: Any) -> None:
    log = CustomLogger([("console", "INFO")], "parity")
    log.remove_output(0)
    assert log.get_output_configs() == []
    with pytest.raises(ValueError, match="no output"):
        log.remove_output("console")


@of("CustomLogger", "update_output_level", "target_index_or_name, new_level")
def update_output_level(CustomLogger: Any) -> None:
    log = CustomLogger([("console", "INFO")], "parity")
    log.update_output_level("console", logging.ERROR)
    assert log.get_output_configs()[0]["level_num"] == logging.ERROR
    log.remove_output(0)


@of("CustomLogger", "get_output_configs", "")
def get_output_configs(CustomLogger: Any) -> None:
    log = CustomLogger([("console", "INFO")], "parity")
    (told,) = log.get_output_configs()
    assert set(told) == {"target", "resolved_path", "level", "level_str", "level_num", "handler_active"}
    log.remove_output(0)


@of("CustomLogger", "print_current_configs", "")
def print_current_configs(CustomLogger: Any) -> None:
    CustomLogger("parity").print_current_configs()


@of("CustomLogger", "get_available_levels", "")
def get_available_levels(CustomLogger: Any) -> None:
    assert {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"} <= set(CustomLogger.get_available_levels())


@of("CustomLogger", "get_logger", 'name=None, *, level="INFO", outputs=None, log_base_folder=None')
def get_plain_logger(CustomLogger: Any) -> None:
    logger = CustomLogger.get_logger("parity plain")
    assert isinstance(logger, logging.Logger) and logger.level == logging.INFO


@of("CustomLogger", "disable_global_console_debug", "")
@of("CustomLogger", "enable_global_console_debug", "")
@of("CustomLogger", "is_global_console_debug_enabled", "")
def console_debug(CustomLogger: Any) -> None:
    level = logging.getLogger("sage").level
    try:
        CustomLogger.disable_global_console_debug()
        assert not CustomLogger.is_global_console_debug_enabled()
    finally:
        CustomLogger.enable_global_console_debug()
        logging.getLogger("sage").setLevel(level)
    assert CustomLogger.is_global_console_debug_enabled()


@there("get_logger", "name=None", "sage.common.utils.logging")
def get_logger(get_logger: Any) -> None:
    assert get_logger("parity").get_output_configs()[0]["target"] == "console"


@there("load_config", "path=None", "sage.common.utils.config.loader")
def load_config(load_config: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text("a: [1]")
        assert load_config(path) == {"a": [1]}
        with pytest.raises(FileNotFoundError, match="missing.yaml"):
            load_config("missing.yaml")


@there("create_metronome", 'name="metronome"', "sage.core.communication.metronome")
def create_metronome(create_metronome: Any) -> None:
    lock = create_metronome("parity")
    assert not lock.wait_for_release(0)
    lock.release_once()
    assert lock.wait_for_release(0) and lock.name == "parity"
