"""Configurations: the keys of an environment's configuration that the engine reads, and files of configurations, as
SAGE programs have them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ._arguments import check_spelling, folder, meant, seconds, truth
from ._keywords import spelt

if TYPE_CHECKING:
    from ._faults import Faults
    from .ray._cluster import Settings

#: What the engine reads of the ``config`` of an environment; the sections, with their keys.
KEYS = (
    *("timeouts", "most_queued_calls", "queue_bytes", "on_signal", "log_dir", "keep_none"),
    *("fault_tolerance", "on_worker_loss", "ray"),
)


class Timeouts(NamedTuple):
    """The deadlines of a job, in seconds: those that the engine has by default."""

    setup: float = 60.0
    drain: float = 30.0
    cancel: float = 10.0
    stop: float = 10.0
    cleanup: float = 10.0


def check_workers(workers: Any) -> str | None:
    """Where functions are to run: ``None``, ``"processes"`` or ``"ray"``."""
    if workers is None or workers in ("processes", "ray"):
        return workers and str(workers)
    raise ValueError(f'`workers` is "processes", "ray", or None for threads of this process, not {workers!r}')


def check_worker_loss(what: str, word: Any) -> str:
    """What is to become of a worker that ends by itself."""
    if word not in ("fail", "restart"):
        raise ValueError(f'{what} is "fail" or "restart", not {word!r}')
    return str(word)


def worker_loss_of(config: Mapping[Any, Any]) -> str:
    """The same, where a step does not say it."""
    return check_worker_loss("`on_worker_loss` of `config`", config.get("on_worker_loss", "fail"))


def ray_of(config: Mapping[Any, Any]) -> Settings | None:
    """What a configuration says of the Ray cluster of its workers, if that is anything."""
    given = config.get("ray")
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(f"`ray` of `config` is a mapping, not {given!r}")
    from .ray._cluster import settings  # few programs have one

    return settings(given)


def check_config(config: dict[Any, Any]) -> None:
    """Raises for a key that looks like one of ours misspelt, and for what one of ours cannot be.

    Every other key is the program's own.
    """
    if not config:
        return
    check_spelling("`config`", config, KEYS)
    timeouts_of(config)
    on_signal_of(config)
    keep_none_of(config)
    log_dir_of(config)
    faults_of(config)
    worker_loss_of(config)
    ray_of(config)


def timeouts_of(config: Mapping[Any, Any]) -> Timeouts:
    """The deadlines of a configuration."""
    if "timeouts" not in config:
        return Timeouts()
    timeouts = config["timeouts"]
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


def log_dir_of(config: Mapping[Any, Any]) -> str | None:
    """The folder for log files; ``None`` where the configuration does not say."""
    given = config.get("log_dir")
    return None if given is None else folder("`log_dir` of `config`", given)


def faults_of(config: Mapping[Any, Any]) -> Faults | None:
    """What becomes of functions that raise; ``None`` where the first exception is the job's."""
    given = config.get("fault_tolerance")
    if given is None:
        return None
    from ._faults import read  # few programs say it

    return read(given)


#: What marks the folder of a project.
_MARKS = ("setup.py", "pyproject.toml", ".git", "config")


@spelt
def load_config(path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Reads a YAML file whose top level is a mapping; an empty one is ``{}``. Needs PyYAML.

    A relative path is looked for in the current folder, and then in that of the project; a bare name in the project's
    folder ``config``. The project is the nearest folder above the calling program's file that has a ``pyproject.toml``,
    ``setup.py``, ``.git`` or ``config``. Without a path, this reads the first of these files that there is: the one
    that the environment variable ``SAGE_CONFIG`` names, ``config/config.yaml`` of the project, ``sage/config.yaml`` in
    the user's folder for configurations (``~/.config``), and there in the system's (``/etc/xdg``).

    Raises ``OSError`` if the file cannot be read, and ``ValueError`` if it is not such a YAML file. Both name the file.
    """
    try:
        yaml: Any = importlib.import_module("yaml")
    except ModuleNotFoundError as error:
        raise ImportError("`load_config` needs PyYAML: pip install 'sage-dataflow[yaml]'", name="yaml") from error
    # Before this frame is that of `spelt`, then the program's.
    places = _places(path, sys._getframe(2).f_globals.get("__file__"))
    found = next((place for place in places if os.path.exists(place)), None)
    if found is None:
        raise FileNotFoundError(f"no configuration is there: {', '.join(places)}")
    try:
        with open(found, encoding="utf-8") as file:
            config = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{found} is not YAML: {error}") from error
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ValueError(f"the top level of {found} is a {type(config).__name__}, not a mapping")
    return config


def _places(path: str | os.PathLike[str] | None, caller: str | None) -> list[str]:
    """Where a configuration may be that a program in the file ``caller`` asks for."""
    folder = os.path.dirname(os.path.abspath(caller)) if caller else os.getcwd()
    project = folder
    while not any(os.path.exists(os.path.join(project, mark)) for mark in _MARKS):
        above = os.path.dirname(project)
        if above == project:
            project = folder
            break
        project = above
    if path is not None:
        path = os.fspath(path)
        is_bare = os.path.basename(path) == path
        # Of an absolute path, both are that path.
        return list(dict.fromkeys([path, os.path.join(project, "config" if is_bare else "", path)]))
    named = os.environ.get("SAGE_CONFIG")
    users = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    systems = (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)[0]
    places = [os.path.join(project, "config"), os.path.join(users, "sage"), os.path.join(systems, "sage")]
    return [*([os.path.join(project, named)] if named else []), *(os.path.join(p, "config.yaml") for p in places)]
