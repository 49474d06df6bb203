"""Configurations: the keys of an environment's configuration that the engine reads, and files of configurations, as
SAGE programs have them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ._arguments import meant, seconds, truth

if TYPE_CHECKING:
    from ._faults import Faults

#: What the engine reads of the ``config`` of an environment; the sections, with their keys.
KEYS = ("timeouts", "most_queued_calls", "queue_bytes", "on_signal", "log_dir", "keep_none", "fault_tolerance")


class Timeouts(NamedTuple):
    """The deadlines of a job, in seconds: those that the engine has by default."""

    setup: float = 60.0
    drain: float = 30.0
    cancel: float = 10.0
    stop: float = 10.0
    cleanup: float = 10.0


#: How like two keys are, from 0 to 1, for one to be the other misspelt.
_LIKENESS = 0.85


def check_config(config: dict[Any, Any]) -> None:
    """Raises for a key that looks like one of ours misspelt, and for what one of ours cannot be.

    Every other key is the program's own.
    """
    for key in config:
        if isinstance(key, str) and key not in KEYS:
            from difflib import get_close_matches  # only for keys that are not ours

            like = key.lower().replace("-", "_").replace(" ", "_")
            if get_close_matches(like, KEYS, cutoff=_LIKENESS):
                raise ValueError(f"`config` has a key `{key}`, which nothing reads{meant(like, KEYS)}")
    timeouts_of(config)
    on_signal_of(config)
    keep_none_of(config)
    faults_of(config)


def timeouts_of(config: Mapping[Any, Any]) -> Timeouts:
    """The deadlines of a configuration."""
    timeouts = config.get("timeouts", {})
    if not isinstance(timeouts, Mapping):
        raise TypeError(f"`timeouts` of `config` is a mapping of names to seconds, not {timeouts!r}")
    for name in timeouts:
        if name not in Timeouts._fields:
            raise ValueError(f"`timeouts` of `config` has no `{name}`{meant(str(name), Timeouts._fields)}")
    return Timeouts(**{name: seconds(f"the timeout `{name}` of `config`", value) for name, value in timeouts.items()})


def on_signal_of(config: Mapping[Any, Any]) -> str:
    """The effect of the first SIGINT or SIGTERM on a job: ``"drain"`` or ``"finish"``."""
    word = config.get("on_signal", "drain")
    if word not in ("drain", "finish"):
        raise ValueError(f'`on_signal` of `config` is "drain" or "finish", not {word!r}')
    return str(word)


def keep_none_of(config: Mapping[Any, Any]) -> bool:
    """Whether results of maps that are ``None`` are records, where the step does not say."""
    return truth("`keep_none` of `config`", config.get("keep_none", False))


def faults_of(config: Mapping[Any, Any]) -> Faults | None:
    """What becomes of functions that raise; ``None`` where the first exception is the job's."""
    given = config.get("fault_tolerance")
    if given is None:
        return None
    from ._faults import read  # few programs say it

    return read(given)


def load_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a YAML file whose top level is a mapping; an empty one is ``{}``. Needs PyYAML.

    Raises ``OSError`` if the file cannot be read, and ``ValueError`` if it is not such a YAML file. Both name the file.
    """
    try:
        yaml: Any = importlib.import_module("yaml")
    except ModuleNotFoundError as error:
        raise ImportError("`load_config` needs PyYAML: pip install 'sage-dataflow[yaml]'", name="yaml") from error
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            config = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ValueError(f"the top level of {path} is a {type(config).__name__}, not a mapping")
    return config
