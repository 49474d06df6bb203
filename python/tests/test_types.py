"""Types: what checkers say of programs that use the package, mypy in its strict mode and pyright in its default one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sage

HERE = Path(__file__).parent / "typed"
PACKAGE = Path(sage.__file__).parent.parent

#: The lines that a checker complains of in a file, with what it says.
Complaints = dict[int, str]


def mypy(file: Path, _tmp: Path) -> Complaints:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--output=json", str(file)]
    # Where the package is installed from a wheel, mypy finds it, and refuses to be told where it is.
    told_of = {} if PACKAGE.name == "site-packages" else {"MYPYPATH": str(PACKAGE)}
    environ = {**os.environ, **told_of}
    told = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert not told.stderr, told.stderr
    found = [json.loads(line) for line in told.stdout.splitlines()]
    assert all(os.path.samefile(error["file"], file) for error in found), told.stdout
    return {error["line"]: error["message"] for error in found if error["severity"] == "error"}


def pyright(file: Path, tmp: Path) -> Complaints:
    settings = {"include": [str(file)], "extraPaths": [str(PACKAGE)], "typeCheckingMode": "standard"}
    (tmp / "pyrightconfig.json").write_text(json.dumps(settings))
    # The same checker as pyright, with all that it needs in its package.
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(tmp)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    assert told["summary"]["filesAnalyzed"] >= 1
    return {
        error["range"]["start"]["line"] + 1: error["message"]
        for error in told["generalDiagnostics"]
        if error["severity"] == "error"
    }


@pytest.mark.parametrize("check", [mypy, pyright])
def test_checkers_know_the_types_of_streams(check: Callable[[Path, Path], Complaints], tmp_path: Path) -> None:
    assert check(HERE / "right.py", tmp_path) == {}


@pytest.mark.parametrize("check", [mypy, pyright])
def test_checkers_find_mistakes_and_complain_of_nothing_else(
    check: Callable[[Path, Path], Complaints], tmp_path: Path
) -> None:
    file = HERE / "wrong.py"
    lines = file.read_text().splitlines()
    planted = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(planted) >= 20
    assert set(check(file, tmp_path)) == planted
