#!/usr/bin/env python3
"""Builds the wheels of a release into target/wheels, and tries each that can run here: `make wheels`.

    .ci/wheels.py                         all of them
    .ci/wheels.py --only 3.13-x86_64      these alone; may be given several times
    .ci/wheels.py --debug                 without optimising, to see whether the recipe works
    .ci/wheels.py --with 3.14-aarch64=PATH
                                          tries that wheel by the interpreter there; may be given several times

They are for CPython 3.10 to 3.14, on x86-64 and on arm64, and for systems whose C library is glibc 2.28 or later
(manylinux_2_28). An interpreter need not be here to build for it; a wheel for 3.14t, without the interpreter's lock, is
built by `--only 3.14t-x86_64`. The compiler and linker of zig, which pip installs, link for that old library and for
the other processor. `make` must be here as well.

A wheel is tried where its interpreter and its processor are: it is installed alone into an empty environment, and runs
a program. What could not be tried is named at the end. The command fails if a wheel cannot be built or does not work.

What `--with` names may be a script. For another processor, one that runs an interpreter for it on an emulator:

    exec qemu-aarch64 -L ROOT -0 "$0" ROOT/usr/bin/python3.14 "$@"

`-0 "$0"` tells the interpreter by which name it was called; by that it finds its environment.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "target" / "wheels"
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TARGETS = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}
GLIBC = "2.28"
COMPATIBILITY = f"manylinux_{GLIBC.replace('.', '_')}"

#: What unwinds stacks, in the system's own library. CPython before 3.14 ends threads with `pthread_exit`, which unwinds
#: them with it: where Rust's frames were made for zig's, which would be linked in, the interpreter crashes at its end.
UNWINDER = "libgcc_s.so.1"
UNWINDS = """Backtrace DeleteException FindEnclosingFunction ForcedUnwind GetCFA GetDataRelBase GetGR GetIP GetIPInfo
GetLanguageSpecificData GetRegionStart GetTextRelBase RaiseException Resume Resume_or_Rethrow SetGR SetIP"""

#: How large a wheel may be that is built to be given away; `make wheel` has the same limit.
MOST_BYTES = 20 * 1024**2

#: Runs in the environment of a wheel: a job with a service, threads, a process of its own and a Kafka topic.
PROGRAM = ROOT / "examples" / "python" / "cookbook" / "kafka_topics.py"
#: Ends interpreters in which jobs run or are left behind.
ENDS = ROOT / "python" / "tests" / "exits.py"


def interpreter(version: str) -> str | None:
    """The interpreter of a version, if there is one here."""
    found = shutil.which(f"python{version}")
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    others = sorted(str(path) for path in versions.glob(f"*/bin/python{version}"))
    # What pyenv puts on the path may be a script that says it has no such version.
    return next((path for path in [*others, found] if path and runs(path, "-c", "")), None)


def runs(*command: str) -> bool:
    """Whether a command succeeds."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def compilers(processor: str, folder: Path) -> dict[str, str]:
    """The variables by which librdkafka's own `configure` finds zig; all else that is C is told by maturin."""
    zig = f"{sys.executable} -m ziglang"
    made = {}
    folder.mkdir(parents=True, exist_ok=True)
    target = f"-target {processor}-linux-gnu.{GLIBC}"
    for variable, command in (("CC", f"cc {target}"), ("CXX", f"c++ {target}"), ("AR", "ar"), ("RANLIB", "ranlib")):
        script = folder / variable.lower()
        script.write_text(f'#!/bin/sh\nexec {zig} {command} "$@"\n')
        script.chmod(0o755)
        made[variable] = str(script)
    # It links a shared library as well, which nobody needs, with a list of names that are not all there.
    return {**made, "LDFLAGS": "-Wl,--undefined-version"}


def unwinder(compilers: dict[str, str], folder: Path) -> Path:
    """Makes a library to link with in place of the system's: it has the same name and functions, and does nothing."""
    source, library = folder / "unwinder.c", folder / UNWINDER
    source.write_text("".join(f"void _Unwind_{name}(void) {{}}\n" for name in UNWINDS.split()))
    made_as = ["-shared", "-nostdlib", f"-Wl,-soname,{UNWINDER}", "-o", str(library)]
    subprocess.run([compilers["CC"], *made_as, str(source)], check=True)
    return library


def build(version: str, processor: str, debug: bool) -> Path:
    """Builds a wheel. Returns its path."""
    subprocess.run(["rustup", "target", "add", TARGETS[processor]], cwd=ROOT, check=True)
    # Each processor has a folder of its own: cargo does not notice that `CC` is another one.
    built = ROOT / "target" / "zig" / processor
    found = compilers(processor, built / "compilers")
    variables = {**os.environ, **found, "CARGO_TARGET_DIR": str(built)}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(dir=OUT.parent) as folder:
        command = ["maturin", "build", "--zig", "--compatibility", COMPATIBILITY, "--target", TARGETS[processor]]
        command += ["--interpreter", interpreter(version) or f"python{version}", "--out", folder]
        command += [] if debug else ["--release", "--strip"]
        command += ["--", "-C", f"link-arg={unwinder(found, built / 'compilers')}"]
        subprocess.run(command, cwd=ROOT, check=True, env=variables)
        (wheel,) = Path(folder).glob("*.whl")
        if COMPATIBILITY not in wheel.name or processor not in wheel.name:
            sys.exit(f"{wheel.name} is not for {COMPATIBILITY} on {processor}")
        if not is_unwound(wheel):
            sys.exit(f"{wheel.name} does not unwind with {UNWINDER}: interpreters would crash at their end")
        if not debug and (size := wheel.stat().st_size) > MOST_BYTES:
            sys.exit(f"{wheel.name} has {size} bytes, and may have {MOST_BYTES} at most")
        return Path(shutil.move(wheel, OUT / wheel.name))


def is_unwound(wheel: Path) -> bool:
    """Whether the module of a wheel needs the system's library for unwinding."""
    with zipfile.ZipFile(wheel) as archive:
        (module,) = (name for name in archive.namelist() if name.endswith(".so"))
        return UNWINDER.encode() in archive.read(module)


def tried(wheel: Path, version: str, processor: str, told: str | None) -> str:
    """Tries a wheel, by the interpreter that was told if one was. Returns that it works, or why it was not tried."""
    if told is None and processor != platform.machine():
        return f"not tried, as this machine is {platform.machine()}"
    python = told or interpreter(version)
    if python is None:
        return f"not tried, as there is no CPython {version} here"
    check(wheel, python, emulated=processor != platform.machine())
    return "works"


def check(wheel: Path, by: str, emulated: bool) -> None:
    """Installs a wheel into an empty environment, and runs programs there."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([by, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", str(wheel)]
        subprocess.run(pip, check=True)
        subprocess.run([python, str(PROGRAM)], check=True, cwd=folder)
        # An emulator has a thread of its own in the process, which the command refuses, and is slow at ending many.
        if not emulated:
            subprocess.run([python, str(ENDS), "--runs", "10"], check=True, cwd=folder)
            subprocess.run([f"{folder}/bin/sage", "--version"], check=True, cwd=folder)


def main() -> None:
    names = [f"{version}-{processor}" for processor in TARGETS for version in VERSIONS]
    known = [*names, *(f"3.14t-{processor}" for processor in TARGETS)]
    told = argparse.ArgumentParser(description="Builds the wheels of a release.")
    told.add_argument("--only", action="append", choices=known, metavar="VERSION-PROCESSOR")
    told.add_argument("--with", action="append", default=[], dest="by", metavar="VERSION-PROCESSOR=PATH")
    told.add_argument("--debug", action="store_true")
    arguments = told.parse_args()
    by = dict(pair.partition("=")[::2] for pair in arguments.by)
    for name, path in by.items():
        if name not in known or shutil.which(path) is None or not runs(path, "-c", ""):
            told.error(f"--with {name}={path}: say VERSION-PROCESSOR=PATH, the path of an interpreter that runs")
    OUT.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in arguments.only or names:
        version, _, processor = name.partition("-")
        wheel = build(version, processor, arguments.debug)
        subprocess.run([ROOT / ".ci" / "notices.py", wheel], check=True)
        rows.append(f"{wheel.name}: {tried(wheel, version, processor, by.get(name))}")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
