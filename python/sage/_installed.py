"""Whether another distribution has a package `sage` too, such as SAGE itself or SageMath.

Two packages of a name are installed over each other, or the first one found is imported. Only names of files are looked
at, as `importlib.metadata` takes longer to import than all the package.
"""

from __future__ import annotations

import os
import sys

_OTHERS = ("isage", "sage", "sagemath", "passagemath")


def others() -> list[str]:
    """The names of the other distributions that have files in a folder `sage`."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # A program may have put there something that is not a string; the interpreter passes over it.
    paths = [place for place in sys.path if isinstance(place, str)]
    places = {here, *(place for place in paths if place.rstrip(os.sep).endswith("-packages"))}
    found = set()
    for place in places:
        try:
            entries = os.listdir(place)
        except OSError:
            continue
        for entry in entries:
            name = _name(entry)
            if name and _has_sage(os.path.join(place, entry)):
                found.add(name)
    return sorted(found)


def _name(entry: str) -> str | None:
    """The name of the distribution that a folder of metadata is of, if it is one that may be in the way."""
    stem, end = os.path.splitext(entry)
    if end not in (".dist-info", ".egg-info"):
        return None
    name = stem.partition("-")[0].replace("_", "-").replace(".", "-").lower()
    return name if name.partition("-")[0] in _OTHERS and name != "sage-dataflow" else None


def _has_sage(metadata: str) -> bool:
    """Whether its list of files, or of packages, has `sage`, or a file that leads to a folder of sources."""
    for file in ("RECORD", "top_level.txt"):
        try:
            with open(os.path.join(metadata, file), encoding="utf-8", errors="replace") as lines:
                entries = [line.partition(",")[0].strip() for line in lines]
        except OSError:
            continue
        return any(entry == "sage" or entry.startswith("sage/") or entry.endswith(".pth") for entry in entries)
    return False


def warn() -> None:
    """Warns of each."""
    if names := others():
        import warnings

        have = "has a package" if len(names) == 1 else "have packages"
        warnings.warn(
            f"{', '.join(names)} {have} `sage` as well as sage-dataflow, and only one can be imported; "
            f"uninstall what you do not need: pip uninstall {' '.join(names)}",
            RuntimeWarning,
            stacklevel=3,
        )
