"""What an import of the package takes: counted in modules, which no load of the machine changes, as it would a time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Standard modules that take long, and that few programs need.
HEAVY = {
    *("asyncio", "concurrent", "csv", "ctypes", "decimal", "email", "gzip", "html", "http", "json", "multiprocessing"),
    *("pathlib", "pickle", "queue", "random", "selectors", "shutil", "socket", "sqlite3", "ssl", "subprocess"),
    *("tempfile", "unittest", "urllib", "uuid", "xml"),
}

SMALL_JOB = """
from sage import LocalEnvironment
env = LocalEnvironment("small")
squares = env.from_batch([1, 2]).map(lambda n: n * n).collect()
env.submit(autostop=True)
"""

#: A program; how many modules it brings at most, and how many of these are the package's.
PROGRAMS = {"import sage": ("import sage", 50, 4), "a small job": (SMALL_JOB, 150, 60)}


@pytest.mark.parametrize(("program", "most", "most_own"), PROGRAMS.values(), ids=PROGRAMS.keys())
def test_an_import_brings_few_modules_and_none_but_standard_ones(program: str, most: int, most_own: int) -> None:
    tells = f"import sys; before = set(sys.modules)\n{program}\nbrought = set(sys.modules) - before"
    tells += "\nimport json; print(json.dumps(sorted(brought)))"
    ran = subprocess.run([sys.executable, "-c", tells], capture_output=True, text=True, timeout=60, check=True)
    brought = json.loads(ran.stdout)
    own = [name for name in brought if name.partition(".")[0] == "sage"]
    tops = {name.partition(".")[0] for name in brought} - {"sage"}
    assert tops <= sys.stdlib_module_names, "no optional package is imported before it is used"
    assert not tops & HEAVY
    assert 0 < len(own) <= most_own, own
    assert len(brought) <= most, brought
