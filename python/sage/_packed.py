"""Files that are packed, by their names: ``.gz`` and ``.zst``.

Python has gzip. It has Zstandard from 3.14 on; before, one of the packages `backports.zstd` and `zstandard` is needed.
"""

from __future__ import annotations

import importlib
import io
from typing import Any, BinaryIO, cast

#: How many packed bytes are unpacked at a time by `zstandard`, which gives all that is in them at once.
_CHUNK_BYTES = 16 << 10

#: The modules that know Zstandard, the best first. The first two have the same names in them.
_ZSTD = ("compression.zstd", "backports.zstd", "zstandard")


def is_packed(path: str) -> bool:
    """Whether a file of this name is."""
    return path.endswith((".gz", ".zst"))


def check(path: str) -> None:
    """Raises ``ImportError`` where nothing is installed that files of this name need."""
    if path.endswith(".zst"):
        _zstd(path)


def _zstd(path: str) -> Any:
    for name in _ZSTD:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError(f"{path} is packed with Zstandard: pip install backports.zstd", name="backports.zstd")


def opened(path: str) -> BinaryIO:
    """Opens a file to read what is in it, unpacked."""
    if path.endswith(".gz"):
        return cast(BinaryIO, importlib.import_module("gzip").open(path, "rb"))
    if not path.endswith(".zst"):
        return open(path, "rb")
    zstd = _zstd(path)
    if zstd.__name__ != "zstandard":
        return cast(BinaryIO, zstd.open(path, "rb"))
    return cast(BinaryIO, io.BufferedReader(_Unpacked(open(path, "rb"), zstd.ZstdDecompressor())))


def packed(path: str, file: BinaryIO) -> BinaryIO:
    """What packs what is written to a file of this name; the file itself, if that is not packed. Its ``close`` leaves
    the file open."""
    if path.endswith(".gz"):
        gzip = importlib.import_module("gzip")
        # Without a time in it, equal records make equal files.
        return cast(BinaryIO, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
    if not path.endswith(".zst"):
        return file
    zstd = _zstd(path)
    if zstd.__name__ != "zstandard":
        return cast(BinaryIO, zstd.ZstdFile(file, "wb"))
    return cast(BinaryIO, zstd.ZstdCompressor().stream_writer(file, closefd=False))


def broken(path: str) -> tuple[type[Exception], ...]:
    """What is raised when a file of this name is not packed as it says, or ends early, which is an ``EOFError``."""
    if path.endswith(".gz"):
        gzip, zlib = importlib.import_module("gzip"), importlib.import_module("zlib")
        return EOFError, gzip.BadGzipFile, zlib.error
    return (EOFError, _zstd(path).ZstdError) if path.endswith(".zst") else ()


class _Unpacked(io.RawIOBase):
    """A file that `zstandard` unpacks. Its own reader takes a file that was cut off for one that has ended."""

    def __init__(self, file: BinaryIO, unpacker: Any) -> None:
        self._file = file
        self._unpacker = unpacker
        #: Of the frame that has begun.
        self._frame: Any = None
        self._rest = self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = self._rest or self._file.read(_CHUNK_BYTES)
            self._rest = b""
            if not chunk:
                if self._frame is not None:
                    raise EOFError("the file ends within a frame")
                return 0
            if self._frame is None:
                self._frame = self._unpacker.decompressobj()
            self._ready = self._frame.decompress(chunk)
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
