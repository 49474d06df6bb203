"""What SAGE passes along a pipeline besides records, as programs make them: the signal of the end, and packets."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import Any

from ._keywords import spelt


@spelt
class StopSignal:
    """Returned by a ``BatchFunction`` or ``SourceFunction`` that has no more records.

    ``message``, also called ``name``, ``source`` and ``payload`` are for the program; ``timestamp`` is when it was
    made, in nanoseconds since 1970.

    >>> lines = iter(["one", "two"])
    >>> env = LocalEnvironment("lines")
    >>> read = env.from_source(lambda: next(lines, StopSignal("end"))).collect()
    >>> job = env.submit(autostop=True)
    >>> read
    ['one', 'two']
    """

    def __init__(
        self, message: str = "Stop", source: Any = None, payload: Any = None, *, name: str | None = None
    ) -> None:
        self.message = self.name = message if name is None else name
        self.source = self.message if source is None else source
        self.payload = payload
        self.timestamp = time.time_ns()

    def __str__(self) -> str:
        return f"StopSignal({self.message})"

    def __repr__(self) -> str:
        return f"StopSignal({self.message!r})"


@spelt
@dataclass
class Packet:
    """A record with its key, and with the number of its stream among several connected ones.

    Functions get records, never packets. A packet that a program makes is a record like others. ``timestamp`` is when
    it was made, in nanoseconds since 1970.
    """

    payload: Any
    input_index: int = 0
    partition_key: Any = None
    partition_strategy: str | None = None
    timestamp: int = field(default_factory=time.time_ns, init=False, compare=False)

    def is_keyed(self) -> bool:
        """Whether it has a key."""
        return self.partition_key is not None

    def inherit_partition_info(self, new_payload: Any) -> Packet:
        """A new packet with another payload, and the same key and strategy."""
        return Packet(new_payload, self.input_index, self.partition_key, self.partition_strategy)

    def update_key(self, new_key: Any, new_strategy: str | None = None) -> Packet:
        """A new packet with another key, and another strategy if one is given."""
        return Packet(self.payload, self.input_index, new_key, new_strategy or self.partition_strategy)

    def copy(self) -> Packet:
        """A copy, with the same timestamp."""
        return copy.copy(self)
