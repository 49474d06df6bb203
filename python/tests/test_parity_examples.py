"""`make parity` tells the right examples of a checkout from the wrong ones and from those that need what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

SCRIPT = Path(__file__).parents[2] / "benches" / "parity" / "run.py"

#: A pipeline that prints the squares of 1 to 3, and then what it is told to.
SQUARES = """
    from sage.core.api.local_environment import LocalEnvironment

    if __name__ == "__main__":
        env = LocalEnvironment("squares")
        env.from_batch([1, 2, 3]).map(lambda number: number * number).sink(lambda square: print("square", square))
        env.submit(autostop=True)
        print("done")
"""

REMOTE = """
    from sage.kernel.scheduler.node_selector import NodeSelector

    if __name__ == "__main__":
        NodeSelector()
"""

#: Prints for ever; on Ctrl-C it leaves a child behind.
ENDLESS = """
    import subprocess
    from sage.core.api.local_environment import LocalEnvironment

    if __name__ == "__main__":
        env = LocalEnvironment("endless")
        env.from_source(lambda: "tick", delay=0.01).sink(print)
        child = subprocess.Popen(["sleep", "60"])
        env.submit(autostop=True)
"""

#: Asks a model what it reads from its terminal, and notes what another program has noted before it.
CHAT = """
    import os
    from pathlib import Path
    from sage.common.utils.config.loader import load_config
    from sage.core.api.local_environment import LocalEnvironment
    from sage.libs.rag.generator import OpenAIGenerator

    if __name__ == "__main__":
        config = load_config("examples/config/chat.yaml")
        env = LocalEnvironment("chat")
        questions = env.from_batch([[input(config["prompt"]["text"])]])
        questions.map(OpenAIGenerator, config["model"]).sink(lambda pair: print(pair[1]))
        env.submit(autostop=True)
        note = Path(os.environ["NOTES"], "note.txt")
        print(note.read_text() if note.exists() else "none")
        note.write_text("noted")
"""

LIBRARY = "from sage.core.api.local_environment import LocalEnvironment\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one example of each kind, and the facts beside it."""
    folder = tmp_path / "checkout" / "examples" / "tutorials" / "core-api"
    folder.mkdir(parents=True)
    programs = dict.fromkeys(["right", "wrong", "new", "daemon"], SQUARES) | {"remote": REMOTE, "endless": ENDLESS}
    for name, text in programs.items():
        (folder / f"{name}.py").write_text(dedent(text), encoding="utf-8")
    (folder / "library.py").write_text(LIBRARY, encoding="utf-8")
    (folder / "outside.py").write_text("import sage.libs.agents.agent\n" + dedent(SQUARES), encoding="utf-8")
    squares = {"counts": {"square": 3, "square 4": [1, None]}, "order": ["square 1", "square 9"], "last": "done"}
    facts = [  # fmt: skip
        {"files": ["core-api/right.py"], **squares},
        {"files": ["wrong.py"], "counts": {"square": 4}, "logged": {"x": 1}, "order": ["square 9", "square 1"],
         "last": "no"},
        {"files": ["right.py"], "exit": 3},
        {"files": ["daemon.py"], "needs": "sage.kernel.scheduler.node_selector.NodeSelector"},
        {"files": ["endless.py"], "interrupt": 2, "seconds": 30, "exit": 130, "counts": {"tick": [2, None]}},
    ]
    (tmp_path / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    return tmp_path / "checkout"


def parity(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_examples_are_right_wrong_missing_or_unknown(checkout: Path) -> None:
    facts = checkout.parent / "facts.json"
    ran = parity(checkout, "--facts", facts, "--at-once", "2", "--keep", checkout.parent / "kept")
    assert ran.returncode == 1, ran.stderr
    heading, *rows, totals = ran.stdout.splitlines()
    assert heading.startswith("6 examples of October 2025")
    told = {row.split()[3].rpartition("/")[2]: row for row in rows}
    assert {name: row.split()[0] for name, row in told.items()} == {
        "right.py": "right", "wrong.py": "wrong", "new.py": "unknown", "remote.py": "missing", "daemon.py": "missing",
        "endless.py": "wrong",
    }  # fmt: skip
    assert "'square' is printed 3 times, not 4; 'x' is logged 0 times, not 1; 'square 1' is not" in told["wrong.py"]
    assert told["wrong.py"].endswith("the last line is 'done', without 'no'")
    for name in ["remote.py", "daemon.py"]:
        assert "sage.kernel.scheduler.node_selector.NodeSelector (later" in told[name]
    assert told["endless.py"].endswith("1 processes are left")
    assert totals == "right 1, wrong 2, missing 2, unknown 1"
    assert "square 9" in (checkout.parent / "kept" / "tutorials" / "core-api" / "right.txt").read_text(encoding="utf-8")


def test_a_checkout_is_run_when_all_of_it_is_right(checkout: Path) -> None:
    before = sorted(checkout.rglob("*"))
    ran = parity(checkout, "--facts", checkout.parent / "facts.json", "--only", "right")
    assert ran.returncode == 0 and ran.stdout.endswith("right 1, wrong 0, missing 0, unknown 0\n"), ran.stdout
    assert sorted(checkout.rglob("*")) == before


def test_an_example_has_a_terminal_a_model_a_configuration_and_one_that_runs_before(checkout: Path) -> None:
    examples = checkout / "examples"
    (examples / "config").mkdir()
    (examples / "config" / "chat.yaml").write_text("prompt: {text: 'You> ', n: 1}\n", encoding="utf-8")
    for name in ["chat", "lacking"]:
        (examples / f"{name}.py").write_text(dedent(CHAT), encoding="utf-8")
    settings = {"model.model_name": "m", "model.base_url": "$LLM", "model.api_key": "k"}
    row = {"files": ["chat.py"], "at": "checkout", "after": "chat.py", "input": ["Why?"], "variables": {"NOTES": "."}}
    row |= {"settings": {"config/chat.yaml": settings}, "order": ["You> ", "Why? Because."], "last": "noted"}
    lacking = {"files": ["lacking.py"], "model": "nobody/nothing"}
    facts = checkout.parent / "facts.json"
    facts.write_text(json.dumps([row, lacking]), encoding="utf-8")
    ran = parity(checkout, "--facts", facts, "--only", "chat")
    assert ran.returncode == 0 and ran.stdout.startswith("1 examples") and "right 1" in ran.stdout, ran.stdout
    ran = parity(checkout, "--facts", facts, "--only", "lacking")
    assert "nobody/nothing, a model that was not downloaded before" in ran.stdout
    assert not (checkout / "note.txt").exists()


def test_what_cannot_be_run_is_said(checkout: Path, tmp_path: Path) -> None:
    ran = parity(tmp_path)
    assert ran.returncode == 2 and "none of these folders is there: examples/tutorials/core-api" in ran.stderr
    ran = parity(checkout, "--only", "nowhere")
    assert ran.returncode == 2 and "'nowhere'" in ran.stderr
    assert "`missing` means that" in parity("--help").stdout
