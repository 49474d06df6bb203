"""The forms of records in the files of dead letters: JSON with tags, from which a record is made again.

``{"tuple": […]}`` stands for a tuple, ``{"dict": [[key, value], …]}`` for a dict, and so on: see ``_WRITE`` and
``_READ``. An object of a class of the program's, such as a dataclass, has a form with the name of its class and its
fields: see ``_typed``. Reading a form calls no code of the program, unless that gives the classes.
"""

from __future__ import annotations

import binascii
import importlib
import math
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Any

from ._typed import Typed, fields_of

#: How deep the containers of a record may be nested to be written, and how many parts it may have.
_MOST_DEPTH, _MOST_PARTS = 100, 1_000_000

#: As how many parts a container counts that comes again: shared on every level, it is endless when written out.
_AGAIN = 100

#: Integers of more bits are written in hexadecimal digits, for which Python has no limit.
_MOST_BITS = 2000


class Unwritable(Exception):
    """A record has a part that no form is known for: of this type, if it is the type."""

    def __init__(self, kind: type | None = None) -> None:
        super().__init__("" if kind is None else kind.__qualname__)


class _Room:
    """How much of a record may still be written."""

    def __init__(self) -> None:
        self._parts = _MOST_PARTS
        self._seen: set[int] = set()

    def has(self, value: Any, depth: int) -> bool:
        """Whether there is room for a value."""
        self._parts -= 1
        if isinstance(value, (list, tuple, dict, set, frozenset)) and value:
            if id(value) in self._seen:
                self._parts -= _AGAIN
            self._seen.add(id(value))
        return self._parts >= 0 and depth <= _MOST_DEPTH


class Writer:
    """Makes a record's form with tags."""

    def __init__(self) -> None:
        #: Whether the form gives the record back, and whether it needs classes of the program's for that.
        self.is_exact = True
        self.has_classes = False
        self._room = _Room()
        self._depth = 0

    def form(self, value: Any) -> Any:
        """The form of a value; ``Unwritable`` where it has none."""
        if not self._room.has(value, self._depth):
            raise Unwritable
        kind = type(value)
        write = _WRITE.get(kind) or _write_imported(kind)
        self._depth += 1
        if write is None:
            fields = fields_of(value)
            if fields is not None:
                self.has_classes = True
                tag, parts = fields
                written = {tag: [kind.__qualname__, self.forms(parts)]}
                self._depth -= 1
                return written
            write = next((write for kind, write in _WRITE.items() if isinstance(value, kind)), None)
            if write is None:
                raise Unwritable(kind)
            self.is_exact = False
        written = write(self, value)
        self._depth -= 1
        return written

    def forms(self, values: Any) -> list[Any]:
        """Those of several."""
        return [self.form(value) for value in values]


def _int(_writer: Writer, value: int) -> Any:
    value = int.__int__(value)
    return value if value.bit_length() <= _MOST_BITS else {"int": hex(value)}


def _float(_writer: Writer, value: float) -> Any:
    value = float.__float__(value)
    return value if math.isfinite(value) else {"float": repr(value)}


def _str(_writer: Writer, value: str) -> Any:
    value = str.__str__(value)
    # Halves of a character would be joined when they are read.
    is_plain = value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    return value if is_plain else {"str": [ord(letter) for letter in value]}


def _zone(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone:
        return zone.utcoffset(None) // timedelta(microseconds=1)
    key = getattr(zone, "key", None)
    if type(zone).__module__.partition(".")[0] not in ("zoneinfo", "backports") or not isinstance(key, str):
        raise Unwritable(type(zone))
    return key


def _read_zone(zone: Any) -> tzinfo | None:
    if isinstance(zone, str):
        return _imported("zoneinfo", "ZoneInfo", zone)  # type: ignore[no-any-return]
    return None if zone is None else timezone(timedelta(microseconds=zone))


def _datetime(_writer: Writer, value: datetime) -> Any:
    day = value.year, value.month, value.day
    moment = datetime(*day, value.hour, value.minute, value.second, value.microsecond)
    return {"datetime": [moment.isoformat(), value.fold, _zone(value.tzinfo)]}


def _time(_writer: Writer, value: time) -> Any:
    moment = time(value.hour, value.minute, value.second, value.microsecond)
    return {"time": [moment.isoformat(), value.fold, _zone(value.tzinfo)]}


#: The form of each type, in the order in which one below several of them is looked for.
_WRITE: dict[type, Callable[[Writer, Any], Any]] = {
    type(None): lambda _writer, value: value,
    bool: lambda _writer, value: value,
    int: _int,
    float: _float,
    complex: lambda writer, value: {"complex": writer.forms([value.real, value.imag])},
    str: _str,
    bytes: lambda _writer, value: {"bytes": bytes.hex(value)},
    bytearray: lambda _writer, value: {"bytearray": bytearray.hex(value)},
    list: lambda writer, value: writer.forms(list.__iter__(value)),
    tuple: lambda writer, value: {"tuple": writer.forms(tuple.__iter__(value))},
    dict: lambda writer, value: {"dict": [writer.forms(pair) for pair in dict.items(value)]},
    set: lambda writer, value: {"set": writer.forms(set.__iter__(value))},
    frozenset: lambda writer, value: {"frozenset": writer.forms(frozenset.__iter__(value))},
    datetime: _datetime,
    date: lambda _writer, value: {"date": date(value.year, value.month, value.day).isoformat()},
    time: _time,
    timedelta: lambda _writer, value: {"timedelta": [value.days, value.seconds, value.microseconds]},
}

#: The same of classes whose modules are not imported for this: a record has one only when the program has imported it.
_WRITE_IMPORTED: dict[tuple[str, str], Callable[[Writer, Any], Any]] = {
    ("decimal", "Decimal"): lambda _writer, value: {"Decimal": str(value)},
    ("fractions", "Fraction"): lambda writer, value: {
        "Fraction": writer.forms([value.numerator, value.denominator])
    },
    ("uuid", "UUID"): lambda _writer, value: {"UUID": value.hex},
    ("pathlib", "PosixPath"): lambda writer, value: {"Path": writer.form(str(value))},
    ("pathlib", "PurePosixPath"): lambda writer, value: {"PurePosixPath": writer.form(str(value))},
    ("pathlib", "PureWindowsPath"): lambda writer, value: {"PureWindowsPath": writer.form(str(value))},
    ("numpy", "ndarray"): lambda _writer, value: {"ndarray": _array(value)},
}

#: The kinds of numpy's types whose bytes are all there is of a value: no objects, and no types of several fields.
_NUMPY_KINDS = "biufcmMSU"


def _array(value: Any) -> list[Any]:
    if value.dtype.kind not in _NUMPY_KINDS:
        raise Unwritable(type(value))
    packed = binascii.b2a_base64(value.tobytes(), newline=False).decode("ascii")
    return [value.dtype.str, list(value.shape), packed]


def _write_imported(kind: type) -> Callable[[Writer, Any], Any] | None:
    # Some are defined in a module below the one that has them.
    name = kind.__module__.partition(".")[0], kind.__name__
    module = sys.modules.get(name[0])
    if name in _WRITE_IMPORTED and getattr(module, name[1], None) is kind:
        return _WRITE_IMPORTED[name]
    if name[0] == "numpy" and module is not None and issubclass(kind, module.generic):
        return lambda _writer, value: {"numpy": _array(value)}
    return None


def _imported(module: str, name: str, *args: Any) -> Any:
    """An object of a class whose module is imported only when a file has one."""
    return getattr(importlib.import_module(module), name)(*args)


def _read_array(parts: list[Any]) -> Any:
    text, shape, packed = parts
    numpy, data = importlib.import_module("numpy"), binascii.a2b_base64(packed)
    dtype = numpy.dtype(text)
    # Of objects, the bytes would be taken for addresses.
    if dtype.kind not in _NUMPY_KINDS or min(shape, default=0) < 0:
        raise ValueError("not an array")
    array = numpy.frombuffer(data, dtype) if data else numpy.empty(0, dtype)
    # A copy, as what is made of bytes cannot be changed.
    return array.reshape(shape).copy()


class Reader:
    """Makes a record of its form with tags, with the classes that a program gives."""

    def __init__(self, typed: Typed | None = None) -> None:
        self._typed = typed or Typed(())
        #: Whether there was an object of a class that was not given.
        self.lacks_class = False

    def value(self, form: Any) -> Any:
        """The value of a form."""
        if isinstance(form, list):
            return self.values(form)
        if not isinstance(form, dict):
            return form
        ((tag, parts),) = form.items()
        if tag in Typed.TAGS:
            name, fields = parts
            made = self._typed.made(tag, name, self.values(fields))
            self.lacks_class = self.lacks_class or not made.is_typed
            return made.value
        return _READ[tag](self, parts)

    def values(self, forms: list[Any]) -> list[Any]:
        """Those of several."""
        return [self.value(form) for form in forms]


def _moment(kind: Any) -> Callable[[Reader, list[Any]], Any]:
    def read(_reader: Reader, parts: list[Any]) -> Any:
        text, fold, zone = parts
        return kind.fromisoformat(text).replace(fold=fold, tzinfo=_read_zone(zone))

    return read


def _path(name: str) -> Callable[[Reader, Any], Any]:
    return lambda reader, text: _imported("pathlib", name, reader.value(text))


#: What is read of each form.
_READ: dict[str, Callable[[Reader, Any], Any]] = {
    "int": lambda _reader, text: int(text, 16),
    "float": lambda _reader, text: float(text),
    "complex": lambda reader, parts: complex(*reader.values(parts)),
    "str": lambda _reader, letters: "".join(map(chr, letters)),
    "bytes": lambda _reader, text: bytes.fromhex(text),
    "bytearray": lambda _reader, text: bytearray.fromhex(text),
    "tuple": lambda reader, parts: tuple(reader.values(parts)),
    "dict": lambda reader, pairs: {reader.value(key): reader.value(value) for key, value in pairs},
    "set": lambda reader, parts: set(reader.values(parts)),
    "frozenset": lambda reader, parts: frozenset(reader.values(parts)),
    "datetime": _moment(datetime),
    "date": lambda _reader, text: date.fromisoformat(text),
    "time": _moment(time),
    "timedelta": lambda _reader, parts: timedelta(*parts),
    "Decimal": lambda _reader, text: _imported("decimal", "Decimal", text),
    "Fraction": lambda reader, parts: _imported("fractions", "Fraction", *reader.values(parts)),
    "UUID": lambda _reader, text: _imported("uuid", "UUID", text),
    "Path": _path("Path"),
    "PurePosixPath": _path("PurePosixPath"),
    "PureWindowsPath": _path("PureWindowsPath"),
    "ndarray": lambda _reader, parts: _read_array(parts),
    "numpy": lambda _reader, parts: _read_array(parts)[()],
}


def is_plain(value: Any) -> bool:
    """Whether plain JSON gives a record back."""
    return _is_plain(value, _Room())


def _is_plain(value: Any, room: _Room, depth: int = 0) -> bool:
    if not room.has(value, depth):
        return False
    kind = type(value)
    if kind is str or kind is int or kind is float:
        return not isinstance(_WRITE[kind](Writer(), value), dict)
    if kind is list:
        return all(_is_plain(part, room, depth + 1) for part in value)
    if kind is dict:
        return all(
            type(key) is str and _is_plain(key, room, depth + 1) and _is_plain(part, room, depth + 1)
            for key, part in value.items()
        )
    return value is None or kind is bool
