"""Finds the weights of models that are on this machine. Nothing is downloaded."""

from __future__ import annotations

import os
import re
from pathlib import Path


def folder_of(model: str | os.PathLike[str]) -> Path | None:
    """The folder of a model: the one that is given; or, of a name such as ``BAAI/bge-m3``, the one where Hugging Face's
    tools have put what they downloaded before. ``None`` if there is none."""
    folder = Path(model)
    if folder.is_dir():
        return folder
    name = os.fspath(model)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return None
    kept = _cache() / ("models--" + name.replace("/", "--"))
    try:
        commit = (kept / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot = kept / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None


def _cache() -> Path:
    """Where Hugging Face's tools keep models: their variables of the environment say it."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    if home := os.environ.get("HF_HOME"):
        return Path(home, "hub")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface", "hub")
