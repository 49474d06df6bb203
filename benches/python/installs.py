"""The packages that are measured: where they are installed, what they weigh, and how they are built or got.

Each system has a virtual environment of its own below ``target/bench/venvs``, made once: nothing of one is seen by
another, and none of them by the environment that the package is developed in.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "target" / "bench"


@dataclass(frozen=True)
class Peer:
    """A system that we are compared with."""

    title: str
    requirement: str
    #: Whether it is installed unless asked for: some are larger than a gigabyte.
    default: bool
    #: What a program imports at least.
    imports: str
    #: In how many rounds it takes part; the slow ones in fewer.
    rounds: int = 5


PEERS = {
    "bytewax": Peer("bytewax 0.21", "bytewax==0.21.*", default=True, imports="bytewax.operators, bytewax.testing"),
    "daft": Peer("Daft 0.7", "daft==0.7.*", default=True, imports="daft"),
    "pathway": Peer("Pathway 0.33", "pathway==0.33.*", default=False, imports="pathway", rounds=3),
    "ray": Peer("Ray 2.60", "ray[data]==2.60.*", default=False, imports="ray", rounds=3),
}

#: Engines of columns, which take part in ``make bench-columnar`` only.
COLUMNAR = {
    "polars": Peer("Polars 2.1", "polars==2.1.*", default=True, imports="polars"),
    "duckdb": Peer("DuckDB 2.0", "duckdb==2.0.*", default=True, imports="duckdb"),
}


class InstallError(Exception):
    """Something could not be built or installed; the message is the last line of what the tool said."""


def call(command: list[str | Path], cwd: Path | None = None) -> str:
    """The output of a command.

    Raises ``InstallError`` when it fails.
    """
    ran = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        lines = (ran.stderr or ran.stdout).strip().splitlines()
        raise InstallError(lines[-1] if lines else f"{command[0]} ended with {ran.returncode}")
    return ran.stdout


def _install(name: str, what: str, *options: str) -> Path:
    """Installs a package in the environment called ``name``, and returns its interpreter."""
    home = FOLDER / "venvs" / name
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    call([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, what])
    return python


def peer(name: str) -> Path:
    """The interpreter of the environment that a peer is installed in.

    Raises ``InstallError`` when pip cannot install it for this Python.
    """
    return _install(name, PEERS[name].requirement, "--only-binary=:all:")


def columnar(name: str) -> Path:
    """The interpreter of the environment that an engine of columns is installed in, with numpy, which reads its inputs.

    Raises ``InstallError`` when pip cannot install it for this Python.
    """
    _install(name, "numpy==2.*", "--only-binary=:all:")
    return _install(name, COLUMNAR[name].requirement, "--only-binary=:all:")


def build() -> Path:
    """Builds our wheel, optimised."""
    maturin = Path(sys.executable).with_name("maturin")
    out = FOLDER / "wheels"
    for old in out.glob("*.whl"):
        old.unlink()
    command = [maturin if maturin.exists() else "maturin", "build", "--release", "--quiet", "--out", out]
    call([*command, "--interpreter", sys.executable], cwd=ROOT)
    return next(out.glob("*.whl"))


def ours(wheel: Path) -> Path:
    """The interpreter of the environment that our wheel is installed in."""
    return _install("sage", str(wheel), "--force-reinstall", "--no-index")


def on_ray(wheel: Path) -> Path:
    """The interpreter of an environment that has Ray beside our wheel."""
    _install("on_ray", PEERS["ray"].requirement, "--only-binary=:all:")
    _install("on_ray", "cloudpickle==3.1.3", "--only-binary=:all:")
    return _install("on_ray", str(wheel), "--force-reinstall", "--no-index", "--no-deps")


def limited(wheel: Path) -> Path:
    """The interpreter of an environment that has, beside our wheel, what programs limit and retry calls with."""
    for requirement in ("tenacity==9.*", "aiolimiter==1.*"):
        _install("limited", requirement, "--only-binary=:all:")
    return _install("limited", str(wheel), "--force-reinstall", "--no-index", "--no-deps")


#: What RAG programs are written with, and what each is installed from.
FRAMEWORKS = {"langchain": "LangChain 1 with faiss", "llamaindex": "LlamaIndex 0.14", "haystack": "Haystack 3"}
_RAG = {
    "sage": (),
    "langchain": ("langchain-community==0.4.*", "langchain-text-splitters==1.*", "faiss-cpu==1.15.*"),
    "llamaindex": ("llama-index-core==0.14.*",),
    "haystack": ("haystack-ai==3.4.*",),
}


def rag(name: str, wheel: Path) -> Path:
    """The interpreter of an environment with the embedder of P8 and a framework, or our wheel."""
    for requirement in ("wordllama==0.4.0.post1", *_RAG[name]):
        python = _install(f"rag_{name}", requirement, "--only-binary=:all:")
    if name == "sage":
        python = _install("rag_sage", str(wheel), "--force-reinstall", "--no-index", "--no-deps")
    return python


def vectors(wheel: Path) -> Path:
    """The interpreter of an environment that has other indexes of vectors beside our wheel. One is compiled here."""
    for requirement in ("numpy==2.*", "hnswlib==0.8.*", "usearch==2.*", "faiss-cpu==1.15.*"):
        _install("vectors", requirement)
    return _install("vectors", str(wheel), "--force-reinstall", "--no-index", "--no-deps")


_WEIGH = """
import json
from importlib.metadata import distributions
found = {d.metadata["Name"]: d for d in distributions() if d.metadata["Name"] not in ("pip", "setuptools")}
files = [f.locate() for d in found.values() for f in d.files or ()]
print(json.dumps([sum(f.stat().st_size for f in files if f.exists()) / 1e6, len(found)]))
"""


def weigh(python: Path) -> tuple[float, int]:
    """The megabytes and the number of the packages of an environment, without pip."""
    megabytes, packages = json.loads(call([python, "-c", _WEIGH]))
    return megabytes, packages
