"""The keys of the records of a file of JSON lines, by which a job goes on where another one was ended.

A key is kept as a hash of 16 bytes, which takes about 100 bytes of memory, whatever the key is. Two different keys
have the same hash as seldom as never.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, BinaryIO, NamedTuple, Union

from ._arguments import said
from ._file_error import BadLine
from ._lines import MOST_LINE_BYTES
from ._plain import Json
from ._sage import Cancelled, is_cancelled_here

#: What says which key a record has: a field, or a function of the record as its line gives it back.
Key = Union[str, Callable[[Any], Any]]

#: After how many lines it is looked whether the job is being cancelled.
_LOOK = 4096


def check_key(key: Any) -> Any:
    """The key, if it is one."""
    if not (isinstance(key, str) and key) and not callable(key):
        raise TypeError(f"`key` is the name of a field, or a function of a record, not {said(key)}")
    return key


class Read(NamedTuple):
    """What was read of a file."""

    #: Where its last whole line ends, and where the file does, in bytes.
    end: int
    size: int
    #: Whether the last line has an end.
    is_ended: bool


class Keys:
    """A set of keys."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self._json = Json()
        self._hashes: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._hashes)

    def hash_of(self, record: Any) -> bytes:
        """The hash of a record's key. Raises ``ValueError`` for a record without one."""
        if callable(self.key):
            key, what = self.key(record), "its key"
        else:
            if not isinstance(record, Mapping) or self.key not in record:
                raise ValueError(f"it has no field `{self.key}`, which is its key: {said(record)}")
            key, what = record[self.key], f"its key `{self.key}`"
        if key is None:
            raise ValueError(f"{what} is None: {said(record)}")
        # As it is read from its line: a UUID and its text are one key. Of an integer that is the same, and quicker.
        text = str(key) if type(key) is int else self._json.text(key)
        return blake2b(text.encode(), digest_size=16).digest()

    def __contains__(self, hashed: bytes) -> bool:
        return hashed in self._hashes

    def add(self, hashed: bytes) -> None:
        """Adds one."""
        self._hashes.add(hashed)

    def read(self, path: str, file: BinaryIO) -> Read:
        """Adds the keys of a file. A last line that is not JSON was torn, as by a kill: it is left out."""
        end = size = number = 0
        torn: Exception | None = None
        line = b""
        while chunk := file.readline(MOST_LINE_BYTES):
            line, number = chunk, number + 1
            size += len(line)
            if number % _LOOK == 0 and is_cancelled_here():
                raise Cancelled("the job is being cancelled")
            if not line.strip():
                continue
            if torn is not None:
                raise BadLine(path, f"not JSON, so it cannot be told what is done: {torn}", number - 1)
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                if not line.endswith((b"\n", b"}", b"]", b'"')):
                    raise ValueError("a number that may go on")
            except (ValueError, RecursionError) as error:
                torn = error
                continue
            try:
                self.add(self.hash_of(record))
            except ValueError as error:
                raise BadLine(path, str(error), number) from error
            end = size
        return Read(end if torn is not None else size, size, not line or line.endswith(b"\n"))
