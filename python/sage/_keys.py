"""Which replica a key belongs to."""

from __future__ import annotations

import zlib
from typing import Any

_MASK = (1 << 64) - 1


def stable_hash(key: Any) -> int:
    """A hash of 64 bits that is the same for equal keys, in every run.

    Python's own differs from run to run for texts. Equal numbers of different types are equal keys, as in a ``dict``; each not-a-number
    is the same key. Objects of classes of one's own have the hash that they say.
    """
    if isinstance(key, str):
        value = zlib.crc32(key.encode("utf-8", "surrogatepass"))
    elif isinstance(key, (bytes, bytearray)):
        value = zlib.crc32(key) ^ 0x5BD1E995
    elif isinstance(key, tuple):
        value = 0x9E3779B9
        for part in key:
            value = (value * 31 + stable_hash(part)) & _MASK
    elif isinstance(key, frozenset):
        value = sum(map(stable_hash, key))
    elif isinstance(key, float) and key != key:
        value = 0x7FF80000
    elif key is None:
        value = 0x4E6F6E65
    else:
        value = hash(key)
    # Spreads neighbours over the replicas.
    value = (value ^ (value >> 33)) * 0xFF51AFD7ED558CCD & _MASK
    return value ^ (value >> 33)
