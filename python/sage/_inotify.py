"""What tells of changes of files and folders on Linux: inotify, whose descriptor can be waited for."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_MODIFY, _ATTRIB, _MOVED_TO, _CREATE, _DELETE_SELF, _MOVE_SELF = 0x2, 0x4, 0x80, 0x100, 0x400, 0x800

#: What is of interest of a file, and of a folder that gets files.
FILE = _MODIFY | _ATTRIB | _DELETE_SELF | _MOVE_SELF
FOLDER = _CREATE | _MOVED_TO

#: How many bytes of events are taken at a time.
_EVENTS_BYTES = 64 << 10


class Watch:
    """Watches files and folders. Which of them has changed, it does not tell: look at all."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.descriptor < 0:
            raise _error("inotify")

    def add(self, path: str, events: int) -> int:
        """Watches a file or a folder. Returns its number."""
        number = self._libc.inotify_add_watch(self.descriptor, os.fsencode(path), ctypes.c_uint32(events))
        if number < 0:
            raise _error(path)
        return int(number)

    def remove(self, number: int) -> None:
        """Watches it no more. Of a file that is gone, the system has done that."""
        self._libc.inotify_rm_watch(self.descriptor, number)

    def drain(self) -> None:
        """Takes events that have come. The descriptor tells of those that are left, and of later ones."""
        with suppress(BlockingIOError):
            os.read(self.descriptor, _EVENTS_BYTES)

    def close(self) -> None:
        """Ends it."""
        os.close(self.descriptor)


def _error(path: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)
