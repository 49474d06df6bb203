"""Configuration files, as SAGE programs read them."""

from __future__ import annotations

import importlib
import os
from typing import Any


def load_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a YAML file whose top level is a mapping; an empty one is ``{}``. Needs PyYAML.

    Raises ``OSError`` for a file that cannot be read, and ``ValueError`` for one that is no such YAML; both name it.
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
        raise ValueError(f"{path} is no YAML: {error}") from error
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ValueError(f"{path} has a {type(config).__name__} at its top level, and no mapping")
    return config
