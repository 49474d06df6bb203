"""Records as JSON: a line for each, and the name of the field that cannot be written."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from enum import Enum
from typing import Any

from ._arguments import said


def fields_of(record: Any) -> Any:
    """A record as a dict, if it has fields: of a dataclass, a model of pydantic or a namedtuple. Else the record."""
    if isinstance(record, dict):
        return record
    if isinstance(record, tuple) and hasattr(record, "_asdict"):
        return record._asdict()
    return _without_class(record)


def _without_class(value: Any) -> Any:
    dump = getattr(type(value), "model_dump", None)
    if callable(dump):
        return dump(value, mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Not `asdict`, which copies all that is in it.
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value


def simple(value: Any) -> Any:
    """The usual form in JSON of a value that JSON has no form for. Raises ``TypeError`` where none is usual."""
    plain = _without_class(value)
    if plain is not value:
        return plain
    # A `datetime` is a `date`; one of pandas that is missing is not equal to itself.
    if isinstance(value, (date, time)) and bool(value == value):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    kind = type(value)
    if kind.__name__ in ("UUID", "Decimal") and kind.__module__ in ("uuid", "decimal"):
        return str(value)
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return value.tolist()  # of an array, and of one number
    hint = "; decode them first" if isinstance(value, (bytes, bytearray)) else ""
    raise TypeError(f"JSON has no form for {said(value)}, of the type {kind.__name__}{hint}")


class Json:
    """Writes values as JSON on one line. What can be read back is what is written: not-a-number is an error."""

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=simple).encode

    def text(self, value: Any) -> str:
        """A value as JSON. Raises ``ValueError``, which names the field that has no form."""
        try:
            text = self._encode(value)
            text.encode()
        except UnicodeEncodeError:
            # Half a character, which has a form in ASCII only.
            return json.dumps(value, allow_nan=False, default=simple)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(self._blamed(value, error)) from error
        return text

    read = staticmethod(json.loads)

    def _blamed(self, value: Any, error: Exception) -> str:
        """Which field cannot be written, and why."""
        place = ""
        while "ircular" not in str(error) and place.count(".") + place.count("[") < _MOST_DEPTH:
            for name, part in _parts(value):
                try:
                    self._encode(part)
                except (TypeError, ValueError, RecursionError) as found:
                    value, error, place = part, found, place + name
                    break
            else:
                break
        why = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        if isinstance(value, float) or (isinstance(error, ValueError) and "Out of range" in why):
            why = f"JSON has no form for {value}; `None` is written as null"
        return f"the field `{place.lstrip('.')}` cannot be written: {why}" if place else why


#: How deep a field may be that an error names.
_MOST_DEPTH = 20


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    """The parts of a value with what leads to them."""
    if not isinstance(value, (dict, list, tuple)):
        try:
            value = simple(value)
        except Exception:
            return []
    if isinstance(value, dict):
        return [(f".{key}" if isinstance(key, str) else f"[{said(key)}]", part) for key, part in value.items()]
    return [(f"[{index}]", part) for index, part in enumerate(value)] if isinstance(value, (list, tuple)) else []
