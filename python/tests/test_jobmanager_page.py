"""The commands and the program of docs/jobmanager.md, run with a job manager of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import free_port

PAGE = (Path(__file__).parents[2] / "docs" / "jobmanager.md").read_text(encoding="utf-8")

#: Says that it runs, and goes on until it is drained.
APP = """
import sys
from sage import LocalEnvironment
env = LocalEnvironment("app")
env.from_source(lambda: None, delay=0.01).sink(str)
job = env.submit()
print("runs with", *sys.argv[1:], flush=True)
job.wait()
print("was drained", flush=True)
"""

#: What the program of the page has besides.
BESIDES = """
class PriceList:
    def of(self, fruit):
        return {"apples": 30}[fruit]

orders = ["apples"]
"""
PRICE = """
from sage import MapFunction
class price(MapFunction):
    def execute(self, fruit):
        return self.call_service("prices", fruit, method="of")
"""


class Terminal:
    """A shell in a folder, whose `sage` has a job manager of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        sage = folder / "bin" / "sage"
        sage.parent.mkdir()
        # The page speaks to the usual port, at which another job manager of the machine may listen.
        command = f'first=$1 verb=$2; shift 2; exec {sys.executable} -m sage $first $verb --port {self.port} "$@"'
        sage.write_text(f"#!/bin/sh\n{command}\n")
        sage.chmod(0o755)
        path = f"{sage.parent}{os.pathsep}{os.environ['PATH']}"
        self.variables = {**os.environ, "PATH": path, "SAGE_HOME": str(folder / "home")}

    def begin(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["sh", "-c", command], cwd=self.folder, env=self.variables, text=True, stdout=subprocess.PIPE
        )

    def run(self, command: str) -> str:
        begun = self.begin(command)
        told, _ = begun.communicate(timeout=60)
        assert begun.returncode == 0, (command, told)
        return told


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    yield made
    made.run("sage job cleanup && sage jobmanager stop")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_of_the_page_do_what_they_say(terminal: Terminal) -> None:
    (terminal.folder / "app.py").write_text(APP)
    [block] = blocks("bash")
    start, submit, listed, logs, drain = [line.partition("#")[0].strip() for line in block.splitlines()]
    assert "http://127.0.0.1:" in terminal.run(start)
    terminal.run(submit)
    follows = terminal.begin(logs)
    try:
        assert follows.stdout is not None and follows.stdout.readline() == "runs with --input q.txt\n"
        assert re.search(r"\bapp +\| running\b", terminal.run(listed))
        terminal.run(drain)
        rest, _ = follows.communicate(timeout=60)
        assert rest == "was drained\n" and follows.returncode == 0
    finally:
        follows.kill()
        follows.communicate()


def test_the_program_of_the_page_runs(terminal: Terminal) -> None:
    pytest.importorskip("cloudpickle")
    [program] = blocks("py")
    named = program.replace('RemoteEnvironment("orders")', f'RemoteEnvironment("orders", port={terminal.port})')
    assert named != program
    (terminal.folder / "orders.py").write_text(BESIDES + PRICE + named)
    terminal.run("sage jobmanager start")
    assert terminal.run(f"{sys.executable} orders.py").splitlines()[0] == "30"


def test_the_verbs_of_the_page_are_those_of_the_command() -> None:
    told = subprocess.run([sys.executable, "-m", "sage", "job", "--help"], capture_output=True, text=True, check=True)
    table = PAGE.partition("| verb | what it does |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z]+)\b[^`]*`", row.split("|")[1])}
    assert len(named) > 10 and all(re.search(rf"\b{name}\b", told.stdout) for name in named)
