"""The package says its version; importing it warns of other packages that are called `sage`."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import sage

PACKAGES = Path(sage.__file__).parents[1]


def imported(site: Path) -> str:
    program = f"import sys; sys.path[:0] = [{str(PACKAGES)!r}, {str(site)!r}]; import sage; import sage.runtime"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return ran.stderr


def test_the_version_is_that_of_the_installed_package() -> None:
    assert sage.__version__ == metadata.version("sage-dataflow")


@pytest.mark.parametrize(
    ("folder", "file", "text", "warns_of"),
    [
        ("isage-0.2.5.dist-info", "RECORD", "isage-0.2.5.dist-info/METADATA,,\nsage/__init__.py,sha256=x,1\n", "isage"),
        ("sagemath_standard-10.4.dist-info", "RECORD", "sage/all.py,,\n", "sagemath-standard"),
        ("passagemath_modules-10.5.egg-info", "top_level.txt", "sage\n", "passagemath-modules"),
        ("isage_kernel-0.2.dist-info", "RECORD", "__editable__.isage_kernel-0.2.pth,,\n", "isage-kernel"),
        ("isage_docs-0.1.dist-info", "RECORD", "isage_docs/__init__.py,,\n", None),
        ("sage_dataflow-0.0.9.dist-info", "RECORD", "sage/__init__.py,,\n", None),
    ],
)
def test_another_sage_is_warned_of_once(
    tmp_path: Path, folder: str, file: str, text: str, warns_of: str | None
) -> None:
    site = tmp_path / "site-packages"
    (site / folder).mkdir(parents=True)
    (site / folder / file).write_text(text)
    said = imported(site)
    assert said.count("RuntimeWarning") == (warns_of is not None), said
    if warns_of is not None:
        assert f"pip uninstall {warns_of}\n" in said


def test_nothing_is_said_where_it_is_alone(tmp_path: Path) -> None:
    assert imported(tmp_path) == ""


def test_what_cannot_be_read_is_no_reason_to_fail(tmp_path: Path) -> None:
    metadata = tmp_path / "site-packages" / "isage-0.2.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "RECORD").write_bytes(b"no text: \xff\n")
    # The interpreter passes over entries that are no strings.
    places = f"[{str(PACKAGES)!r}, pathlib.Path({str(tmp_path)!r}), {str(metadata.parent)!r}]"
    program = f"import pathlib, sys; sys.path[:0] = {places}; import sage"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
