"""Where the collections of a ``MemoryManager`` are on disk.

A collection of the kind ``vdb`` called ``notes`` is the folder ``vdb_collection/notes`` in the folder of its manager:
``collection.json`` says what it is, ``items.sage`` has its texts, each ``index-N.sage`` an index.

Invariants:
1. A folder without ``collection.json`` is no collection: the file is written last when one is made.
2. Whoever has a collection open holds the lock on its ``items.sage``; it takes that lock to move or delete the folder.
3. A collection has one name, which follows from that of its folder, and no name leads out of the manager's folder.
4. A file of an index that ``collection.json`` does not name is left over, and is removed when the collection is opened.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ._arguments import said
from ._files import write_private
from ._sage import OtherCollection, StoreDamaged, StoreLocked

#: The kinds of collections.
KINDS = ("vdb", "kv", "graph")

ITEMS = "items.sage"
_SAYS = "collection.json"
_FORMAT = 1
#: The most bytes of the name of a folder; a file system takes 255, and some are for what is beside it.
_MOST_BYTES = 200
#: How folders begin that are being deleted, and that are not whole yet.
_DELETED, _NEW = ".deleted-", ".new-"


def default_data_dir() -> str:
    """``data/neuromem_data`` in the working folder, which is made if it is not there."""
    folder = Path.cwd() / "data" / "neuromem_data"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(folder)


def folder_of(data_dir: Path, kind: str, name: Any) -> Path:
    """The folder of a collection. Raises for what is no name."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of a collection is a text that is not empty, not {said(name)}")
    folder = "".join(each if each.isalnum() or each in " _-." else quote(each, safe="") for each in name)
    if folder.startswith("."):
        folder = f"%2E{folder[1:]}"
    if len(folder.encode()) > _MOST_BYTES:
        raise ValueError(
            f"the name of a collection takes at most {_MOST_BYTES} bytes as that of a folder: {said(name)}"
        )
    return data_dir / f"{kind}_collection" / folder


def name_of(folder: Path) -> str:
    """The name of the collection in a folder."""
    return unquote(folder.name)


def found(data_dir: Path, name: Any) -> tuple[str, Path] | None:
    """The kind and the folder of the collection with a name; ``None`` if there is none."""
    for kind in KINDS:
        folder = folder_of(data_dir, kind, name)
        if is_collection(folder):
            return kind, folder
    return None


def all_of(data_dir: Path) -> list[tuple[str, Path]]:
    """The kinds and folders of all collections, by their names."""
    there = [(kind, path.parent) for kind in KINDS for path in data_dir.glob(f"{kind}_collection/*/{_SAYS}")]
    return sorted(((kind, path) for kind, path in there if path.name[0] != "."), key=lambda pair: name_of(pair[1]))


def is_collection(folder: Path) -> bool:
    """Whether there is a collection in a folder."""
    return (folder / _SAYS).exists()


def identity(folder: Path) -> tuple[int, int] | None:
    """Tells a folder from one that has its name later; ``None`` if it is not there."""
    try:
        stat = os.stat(folder)
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def read(folder: Path, kind: str) -> dict[str, Any]:
    """What a collection of a kind says of itself."""
    path = folder / _SAYS
    try:
        says = json.loads(path.read_bytes())
        is_known = isinstance(says, dict) and says.get("format") == _FORMAT and isinstance(says.get("indexes"), dict)
    except ValueError:
        is_known = False
    if not is_known:
        raise StoreDamaged(f"{path} is not what was written, or of another version")
    if says.get("kind") != kind:
        raise OtherCollection(f"{folder} has a collection of the kind {said(says.get('kind'))}, not {kind!r}")
    return {"description": says.get("description", ""), "indexes": says["indexes"]}


def write(folder: Path, kind: str, description: str, indexes: dict[str, dict[str, Any]]) -> None:
    """Has a collection say of itself what it is."""
    says = {"format": _FORMAT, "kind": kind, "description": description, "indexes": indexes}
    write_private(str(folder / _SAYS), json.dumps(says, ensure_ascii=False))


def index_file(folder: Path, number: int) -> Path:
    """The file of an index."""
    return folder / f"index-{number}.sage"


def remove_index(path: Path) -> None:
    """Removes the file of an index, and what a store keeps beside it."""
    for file in path.parent.glob(f"{path.name}*"):
        with suppress(FileNotFoundError):
            file.unlink()


def sweep_indexes(folder: Path, numbers: set[int]) -> None:
    """Removes the files of indexes with other numbers."""
    for file in folder.glob("index-*.sage"):
        if file not in {index_file(folder, number) for number in numbers}:
            remove_index(file)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the lock of a collection that is not open here. Raises ``StoreLocked`` if another process has it."""
    file = os.open(folder / ITEMS, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreLocked(f"another process has {folder} open") from None
        yield
    finally:
        os.close(file)


def move(folder: Path, target: Path) -> None:
    """Gives the folder of a collection that is not open here another name."""
    with held(folder):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(folder, target)


def delete(data_dir: Path, folder: Path) -> None:
    """Deletes a collection that is not open here, with all its files: it is gone at once, or not at all."""
    away = data_dir / f"{_DELETED}{os.urandom(6).hex()}"
    with held(folder):
        os.rename(folder, away)
    shutil.rmtree(away, ignore_errors=True)


def begin_copy(data_dir: Path, folder: Path) -> Path:
    """An empty folder in which a copy of a collection is made, which ``end_copy`` puts where it belongs."""
    new = data_dir / f"{_NEW}{folder.parent.name}-{folder.name}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700, parents=True)
    return new


def end_copy(data_dir: Path, new: Path, folder: Path) -> None:
    """Puts a whole copy where it belongs, in place of what is there."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_collection(folder):
        away = data_dir / f"{_DELETED}{os.urandom(6).hex()}"
        with held(folder):
            os.rename(folder, away)
            os.rename(new, folder)
        shutil.rmtree(away, ignore_errors=True)
    else:
        os.rename(new, folder)


def tidy(data_dir: Path) -> None:
    """Goes on with what a process that was killed had begun: whole copies get their places, and what was to be deleted
    is."""
    for kind in KINDS:
        begins = f"{_NEW}{kind}_collection-"
        for says in data_dir.glob(f"{begins}*/{_SAYS}"):
            folder = data_dir / f"{kind}_collection" / says.parent.name[len(begins) :]
            if folder.exists():
                shutil.rmtree(says.parent, ignore_errors=True)
            else:
                os.rename(says.parent, folder)
    for away in data_dir.glob(f"{_DELETED}*"):
        shutil.rmtree(away, ignore_errors=True)
