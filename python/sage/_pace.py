"""The pace of sources and batches, as SAGE's keywords ask for it: how long they wait between two polls, and how often
they log their progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ._arguments import parameters, seconds, whole
from ._sage import Nothing, Wait


class Pace(NamedTuple):
    """What a program asks for."""

    #: How many seconds are between two polls.
    delay: float = 0.0
    #: After how many records each time a line is logged; how many records there will be. Zero if neither was said.
    progress_log_interval: int = 0
    total_count: int = 0

    def __bool__(self) -> bool:
        return bool(self.delay or self.progress_log_interval)


def taken(kwargs: dict[str, Any], source: Any = None) -> Pace:
    """Takes the keywords of the pace out of those that a program gave a source. Of ``None``, as of zero, there is no
    effect. ``total`` is the short name of ``total_count``, unless the constructor of the source has one of that name.
    """
    if "total" in kwargs and not (isinstance(source, type) and "total" in parameters(source)):
        if "total_count" in kwargs:
            raise TypeError("`total` and `total_count` are the same; give one of them")
        kwargs["total_count"] = kwargs.pop("total")
    if kwargs.keys().isdisjoint(Pace._fields):
        return Pace()
    delay, interval, total = (kwargs.pop(name, None) for name in Pace._fields)
    return Pace(
        seconds("`delay`", 0.0 if delay is None else delay, hint="; leave it out for none"),
        whole("`progress_log_interval`", 0 if interval is None else interval, 0),
        whole("`total_count`", 0 if total is None else total, 0),
    )


class Paced:
    """Gives what an iterator gives, at a pace."""

    def __init__(self, records: Iterator[Any], pace: Pace, logger: logging.Logger) -> None:
        self._records = records
        self._pace = pace
        self._logger = logger
        self._due = 0.0
        self._count = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        left = self._due - time.monotonic() if self._due else 0.0
        if left > 0:
            return Wait(left)
        record = next(self._records)
        if type(record) is Wait and record is not Nothing:
            return record
        if self._pace.delay:
            self._due = time.monotonic() + self._pace.delay
        if record is not Nothing:
            self._count += 1
            self._log()
        return record

    def _log(self) -> None:
        interval, total = self._pace.progress_log_interval, self._pace.total_count
        if interval and (self._count % interval == 0 or self._count == total):
            self._logger.info("%s records read" + (" of %s" if total else ""), self._count, *([total] if total else []))
