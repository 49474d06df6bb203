"""What goes between a job and its workers: the kinds of frames, and how objects become parts of them."""

from __future__ import annotations

import operator
import pickle
from typing import Any

from ._sage import most_frame_bytes

#: Of a worker, when it has begun: its version. Of the parent then: what it is to run; of the worker: that it is ready.
HELLO, INIT, READY = 1, 2, 3
#: Of the parent: records, or that there are no more. Of the worker: results, or what a function raised.
BATCH, FINISH, RESULT, FAILED = 4, 5, 6, 7
#: Of the parent: that it is to end. Of the worker: that it has begun to, and that all of its functions are closed.
CLOSE, CLOSING, CLOSED = 8, 9, 10
#: A call of a service, by a function's own thread if its id is odd, and what it has come to.
CALL, RETURN = 11, 12
#: Of the worker: a line that was printed, a record of `logging`, and that a function asks for the job's end.
LINE, LOG, STOP = 13, 14, 15
#: Of the worker: a name of the program's main module that it needs; of the parent: what that is.
NAME, NAMED = 16, 17
#: Of functions that work on several records at a time. Of the parent: records with their numbers, numbers that nobody
#: waits for any more, and that nothing is to wait for another try. Of the worker: what became of records.
ASK, CANCEL, HURRY, ANSWER = 18, 19, 20, 21
#: Of a service in a process of its own. Of the parent: what makes it, a hook to run, a call, and that nobody waits for
#: that any more. Of the process: what one of these has come to.
SERVE, HOOK, INVOKE, DROP, INVOKED = 24, 25, 26, 27, 28
#: Of a worker: how far is the job? The answer is as to a name.
STATE = 29
#: Of the parent: one record of a batch that does not go into a frame, or why that record cannot be sent.
PART = 30
#: Of the parent: the result of a call is awaited, and comes later. The worker says by ``DROP`` that it is not wanted.
AWAITED = 31

#: What is smaller is copied: that costs less than another part.
LEAST_APART = 64 << 10

#: Where large ``bytes`` are looked for: in containers of so many items at most, that deep in each other.
_FEW = 64
_DEPTH = 3


def packed(value: Any) -> list[Any]:
    """The parts of a frame: an object as ``pickle`` has it, and its large buffers, which are not copied. Raises
    ``ValueError`` if they have too many bytes for one."""
    parts: list[Any] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < LEAST_APART:
            return True
        parts.append(raw)
        return False

    made = [pickle.dumps(value, 5, buffer_callback=stays), *parts]
    if (count := size(made)) > most_frame_bytes:
        for each in (made, parts):
            each.clear()  # the traceback would keep them
        raise ValueError(
            f"it has {count:,} bytes, and what goes to another process has at most {most_frame_bytes:,} at a time"
        )
    return made


def packed_records(value: Any) -> list[Any]:
    """As ``packed``, of records or results: large ``bytes`` in them are not copied either."""
    return packed(_apart(value, _DEPTH))


def _apart(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is bytes:
        return pickle.PickleBuffer(value) if len(value) >= LEAST_APART else value
    # Of many records, none is large: batches are bounded in bytes.
    if depth == 0 or kind not in (list, tuple, dict) or len(value) > _FEW:
        return value
    items = list(value.values()) if kind is dict else value
    changed = [_apart(item, depth - 1) for item in items]
    if all(map(operator.is_, changed, items)):
        return value
    return dict(zip(value, changed)) if kind is dict else kind(changed)


def size(parts: list[Any]) -> int:
    """How many bytes these parts have."""
    return sum(map(len, parts))


def unpacked(first: bytes, others: list[bytes | bytearray]) -> Any:
    """The object that parts stand for."""
    return pickle.loads(first, buffers=others)
