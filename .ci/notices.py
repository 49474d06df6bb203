#!/usr/bin/env python3
"""The notices of what is linked into the Python package: whose work it is, and on what terms.

    .ci/notices.py            writes crates/sage-python/NOTICES.txt anew, after a dependency has changed
    .ci/notices.py --check    says whether it is as it would be written, and fails if not
    .ci/notices.py WHEEL...   says whether these wheels have it, and our own licences

What is linked is what `cargo tree` says that the package's crate needs on Linux, with the features that the wheel is
built with, without what only runs while it is compiled. The texts are those in the crates themselves, with those of the
C libraries that some of them bring along. A crate that has none fails the check: find its text, and say here where it
is.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTICES = ROOT / "crates/sage-python/NOTICES.txt"
OURS = ("LICENSE-APACHE", "LICENSE-MIT")
TARGET = "x86_64-unknown-linux-gnu"

#: Names of files that say on what terms a crate is given.
TEXTS = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)([-.].*)?", re.IGNORECASE)

#: What a crate brings along in C, and where its terms are; "the crate itself" where they are all that the crate has.
BUNDLED = {
    "libz-sys": {"zlib": "src/zlib/LICENSE"},
    "rdkafka-sys": {"librdkafka, with lz4, snappy, cJSON and others": "librdkafka/LICENSES.txt"},
    "zstd-sys": {"zstd": "zstd/LICENSE"},
}

#: What lies in this repository and is others' work: its name and version, its terms and home, and where its text is.
VENDORED = [
    (
        "uPlot 1.6.32",
        "MIT\n    https://github.com/leeoniya/uPlot",
        "crates/sage-jobmanager/src/page/static/uplot-LICENSE",
    )
]

#: Crates that have no text in them, and the crate of the same authors whose text it is.
SAME_AUTHORS = {"alloc-stdlib": "alloc-no-stdlib", "rdkafka-sys": "rdkafka"}

#: Crates whose text is not where others have it, and that are given on the terms of the Apache licence. Its text names
#: no authors: it is ours too.
APACHE = {"blake3", "maud"}


def cargo(*arguments: str) -> str:
    """What a command of cargo prints."""
    command = ["cargo", *arguments, "--locked"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked() -> list[tuple[str, str]]:
    """The names and versions of the crates that are linked, without our own."""
    kinds = ("--edges", "normal,no-proc-macro", "--target", TARGET)
    tree = cargo("tree", "-p", "sage-python", "--features", "kafka", *kinds, "--prefix", "none", "--format", "{p}")
    crates = set()
    for line in tree.splitlines():
        name, version, *where = line.removesuffix(" (*)").split(" ")
        if not any(place.startswith("(/") for place in where):
            crates.add((name, version.removeprefix("v")))
    return sorted(crates)


def texts_of(name: str, folder: Path) -> dict[str, str]:
    """The texts of a crate's terms, by what they are of."""
    found = {}
    for path in sorted(folder.iterdir()):
        # Files alone: a folder of licences is for tools.
        if path.is_file() and TEXTS.fullmatch(path.name):
            found[name] = f"{found[name]}\n\n{read(path)}" if name in found else read(path)
    for library, path in BUNDLED.get(name, {}).items():
        found[f"{library} (in {name})"] = read(folder / path)
    return found


def read(path: Path) -> str:
    """A text with plain ends of lines, and no empty ones around it."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def notices() -> str:
    """The whole file."""
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--all-features", "--filter-platform", TARGET))
    packages = {(package["name"], package["version"]): package for package in metadata["packages"]}
    by_name = {package["name"]: package for package in metadata["packages"]}
    table, owners = [], {}
    for name, version in linked():
        package = packages[name, version]
        texts = texts_of(name, Path(package["manifest_path"]).parent)
        if name not in texts:
            other = by_name.get(SAME_AUTHORS.get(name, ""))
            if name in APACHE and "Apache-2.0" in (package["license"] or ""):
                texts[name] = read(ROOT / "LICENSE-APACHE")
            elif other is None:
                sys.exit(f"{name} {version} has no text of its licence ({package['license']}); see .ci/notices.py")
            else:
                texts[name] = texts_of(other["name"], Path(other["manifest_path"]).parent)[other["name"]]
        terms, home = package["license"] or "see below", package["repository"] or ""
        table.append(f"{name} {version}: {terms}\n    {home}".rstrip())
        for owner, text in texts.items():
            owners.setdefault(text, []).append(owner)
    for name, terms, path in VENDORED:
        table.append(f"{name}: {terms}")
        owners.setdefault(read(ROOT / path), []).append(name)
    rule = "=" * 80
    parts = [
        "This package is linked with the works below. Each of them is given on the terms that are named beside it; the "
        "texts\nfollow. The package itself is given on the terms in LICENSE-APACHE and LICENSE-MIT.\n\n"
        + "\n".join([*table, f"the Rust standard library: MIT OR Apache-2.0\n    {RUST}"])
    ]
    parts += [f"{', '.join(of)}\n{'-' * 80}\n\n{text}" for text, of in sorted(owners.items(), key=lambda it: it[1])]
    return f"\n\n{rule}\n".join(parts) + "\n"


RUST = (
    "https://github.com/rust-lang/rust, Copyright (c) The Rust Project Contributors; "
    "texts as of LICENSE-MIT and LICENSE-APACHE"
)


def check_wheel(wheel: str) -> None:
    """Fails if the wheel has not the notices and our licences."""
    with zipfile.ZipFile(wheel) as archive:
        held = {Path(name).name: name for name in archive.namelist() if "/licenses/" in name}
        for path in (NOTICES, *(ROOT / name for name in OURS)):
            if path.name not in held or archive.read(held[path.name]) != path.read_bytes():
                sys.exit(f"{Path(wheel).name} has not the {path.name} of this repository; see pyproject.toml")


def main(arguments: list[str]) -> None:
    if arguments == ["--check"]:
        if not NOTICES.exists() or NOTICES.read_text(encoding="utf-8") != notices():
            sys.exit(f"{NOTICES.relative_to(ROOT)} is not of what is linked now: run .ci/notices.py, see the change")
    elif arguments:
        for wheel in arguments:
            check_wheel(wheel)
    else:
        NOTICES.write_text(notices(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
