"""Dead letters: records on which a function raised, and the files of such letters.

A file has a line of JSON for each letter. A record that is read back equals the one that was written, or the letter
says that it does not. A record is written as plain JSON if that gives it back, else in a form with tags; else it is
only described. Whatever a record is, and whatever its methods do, its letter is written.

``{"tuple": […]}`` stands for a tuple, ``{"dict": [[key, value], …]}`` for a dict, and so on: see ``_WRITE`` and
``_READ``. Reading a file calls no code of the program.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from os import PathLike
from typing import Any, NamedTuple

from ._arguments import shown
from ._functions import Noting, SinkFunction

#: How deep the containers of a record may be nested to be written, and how many parts it may have.
_MOST_DEPTH, _MOST_PARTS = 100, 1_000_000

#: As how many parts a container counts that comes again: shared on every level, it is endless when written out.
_AGAIN = 100

#: Integers of more bits are written in hexadecimal digits, for which Python has no limit.
_MOST_BITS = 2000


class _Fields(NamedTuple):
    #: The record as the function received it.
    record: Any
    #: The name of the operator.
    operator: str
    #: The operator's replica, from 0.
    replica: int
    #: The record's number among those that this replica took, from 1.
    position: int
    #: How often the function was called with it.
    attempts: int
    #: The message of the error, then those of its causes.
    errors: list[str]
    #: When the function failed, in seconds since 1970.
    time: float


class Letter(_Fields):
    """A record on which a function raised, with what you need to find the cause and to try the record again.

    >>> env = LocalEnvironment("numbers")
    >>> dead = DeadLetterQueue()
    >>> numbers = env.from_batch([1, 0]).map(lambda n: 1 / n, on_error=dead).collect()
    >>> letters = dead.letters.collect()
    >>> job = env.submit(autostop=True)
    >>> letters[0].record, letters[0].position, letters[0].attempts, letters[0].errors
    (0, 2, 1, ['ZeroDivisionError: division by zero'])
    """

    #: Whether ``record`` equals the record that failed. In a letter that was read from a file it may not: an object of
    #: the program's own class is ``None`` there, and an object of a subclass of a built-in type has the built-in type.
    #: For lists and dicts in files of older versions it is unknown, and ``False``.
    is_exact: bool = True
    #: A description of the record, if ``record`` is not exact.
    repr: str | None = None


class _Unwritable(Exception):
    """A record has a part that no form is known for."""


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


class _Writer:
    """Makes a record's form with tags."""

    def __init__(self) -> None:
        self.is_exact = True
        self._room = _Room()
        self._depth = 0

    def form(self, value: Any) -> Any:
        """The form of a value; ``_Unwritable`` where it has none."""
        if not self._room.has(value, self._depth):
            raise _Unwritable
        kind = type(value)
        write = _WRITE.get(kind) or _write_imported(kind)
        if write is None:
            write = next((write for kind, write in _WRITE.items() if isinstance(value, kind)), None)
            if write is None:
                raise _Unwritable
            self.is_exact = False
        self._depth += 1
        written = write(self, value)
        self._depth -= 1
        return written

    def forms(self, values: Any) -> list[Any]:
        """Those of several."""
        return [self.form(value) for value in values]


def _int(_writer: _Writer, value: int) -> Any:
    value = int.__int__(value)
    return value if value.bit_length() <= _MOST_BITS else {"int": hex(value)}


def _float(_writer: _Writer, value: float) -> Any:
    value = float.__float__(value)
    return value if math.isfinite(value) else {"float": repr(value)}


def _str(_writer: _Writer, value: str) -> Any:
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
        raise _Unwritable
    return key


def _read_zone(zone: Any) -> tzinfo | None:
    if isinstance(zone, str):
        return _imported("zoneinfo", "ZoneInfo", zone)  # type: ignore[no-any-return]
    return None if zone is None else timezone(timedelta(microseconds=zone))


def _datetime(_writer: _Writer, value: datetime) -> Any:
    day = value.year, value.month, value.day
    moment = datetime(*day, value.hour, value.minute, value.second, value.microsecond)
    return {"datetime": [moment.isoformat(), value.fold, _zone(value.tzinfo)]}


def _time(_writer: _Writer, value: time) -> Any:
    moment = time(value.hour, value.minute, value.second, value.microsecond)
    return {"time": [moment.isoformat(), value.fold, _zone(value.tzinfo)]}


#: The form of each type, in the order in which one below several of them is looked for.
_WRITE: dict[type, Callable[[_Writer, Any], Any]] = {
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
_WRITE_IMPORTED: dict[tuple[str, str], Callable[[_Writer, Any], Any]] = {
    ("decimal", "Decimal"): lambda _writer, value: {"Decimal": str(value)},
    ("fractions", "Fraction"): lambda writer, value: {
        "Fraction": writer.forms([value.numerator, value.denominator])
    },
    ("uuid", "UUID"): lambda _writer, value: {"UUID": value.hex},
}


def _write_imported(kind: type) -> Callable[[_Writer, Any], Any] | None:
    module = kind.__module__, kind.__name__
    is_it = module in _WRITE_IMPORTED and getattr(sys.modules.get(module[0]), module[1], None) is kind
    return _WRITE_IMPORTED[module] if is_it else None


def _imported(module: str, name: str, *args: Any) -> Any:
    """An object of a class whose module is imported only when a file has one."""
    return getattr(importlib.import_module(module), name)(*args)


def _read_moment(kind: Any) -> Callable[[list[Any]], Any]:
    def read(parts: list[Any]) -> Any:
        text, fold, zone = parts
        return kind.fromisoformat(text).replace(fold=fold, tzinfo=_read_zone(zone))

    return read


#: What is read of each form.
_READ: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "complex": lambda parts: complex(*map(_read, parts)),
    "str": lambda letters: "".join(map(chr, letters)),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "tuple": lambda parts: tuple(map(_read, parts)),
    "dict": lambda pairs: {_read(key): _read(value) for key, value in pairs},
    "set": lambda parts: set(map(_read, parts)),
    "frozenset": lambda parts: frozenset(map(_read, parts)),
    "datetime": _read_moment(datetime),
    "date": date.fromisoformat,
    "time": _read_moment(time),
    "timedelta": lambda parts: timedelta(*parts),
    "Decimal": lambda text: _imported("decimal", "Decimal", text),
    "Fraction": lambda parts: _imported("fractions", "Fraction", *map(_read, parts)),
    "UUID": lambda text: _imported("uuid", "UUID", text),
}


def _read(form: Any) -> Any:
    """The value of a form with tags."""
    if isinstance(form, list):
        return [_read(part) for part in form]
    if not isinstance(form, dict):
        return form
    ((kind, parts),) = form.items()
    return _READ[kind](parts)


def _is_plain(value: Any, room: _Room, depth: int = 0) -> bool:
    """Whether plain JSON gives it back."""
    if not room.has(value, depth):
        return False
    kind = type(value)
    if kind is str or kind is int or kind is float:
        return not isinstance(_WRITE[kind](_Writer(), value), dict)
    if kind is list:
        return all(_is_plain(part, room, depth + 1) for part in value)
    if kind is dict:
        return all(
            type(key) is str and _is_plain(key, room, depth + 1) and _is_plain(part, room, depth + 1)
            for key, part in value.items()
        )
    return value is None or kind is bool


def _described(record: Any) -> str:
    """What a record looks like, not too long, whatever its own methods do."""
    import reprlib  # only for such a record

    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 1000
    try:
        return short.repr(record)
    except BaseException:  # its own, and no reason to lose the letter
        return f"<{type(record).__name__} that cannot be shown>"


def line_of(letter: Letter) -> str:
    """A letter as a line of a file, without its end."""
    fields: dict[str, Any] = dict(zip(Letter._fields[1:], letter[1:]))
    record = letter.record
    try:
        if _is_plain(record, _Room()):
            return json.dumps({"record": record, "exact": True, **fields})
        writer = _Writer()
        form = writer.form(record)
        told = {} if writer.is_exact else {"repr": _described(record)}
        return json.dumps({"record": None, "tagged": form, "exact": writer.is_exact, **told, **fields})
    except BaseException:  # whatever a record does, its letter is written
        return json.dumps({"record": None, "exact": False, "repr": _described(record), **fields})


class LetterFile(SinkFunction, Noting):
    """Appends letters to a file, a line each. A new file can be read by its owner only."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._count = 0
        self.notes: list[str] = []
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A line that a job could not write to its end, as it was killed, is not to spoil the first of this one.
        size = os.fstat(self._file).st_size
        self._begin = b"\n" if size and os.pread(self._file, 1, size - 1) != b"\n" else b""

    def execute(self, letter: Letter) -> None:
        """Writes a letter whole, so that it is there though the job is killed."""
        line = memoryview(self._begin + line_of(letter).encode("ascii") + b"\n")
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error
        self._begin = b""
        self._count += 1

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)
        if self._count:
            path = os.path.abspath(self._path)
            letters = "1 dead letter is" if self._count == 1 else f"{self._count} dead letters are"
            self.notes.append(f"{letters} in {shown(path)}: `sage.read_letters({path!r})` gives the records back")


def read_letters(path: str | PathLike[str]) -> Iterator[Letter]:
    """Reads the letters of a file that ``DeadLetterQueue`` wrote. Each letter's ``is_exact`` tells whether its record
    equals the one that failed.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "failed.jsonl")
    ...     env = LocalEnvironment("numbers")
    ...     numbers = env.from_batch(["1", "two"]).map(int, on_error=DeadLetterQueue(path)).collect()
    ...     job = env.submit(autostop=True)
    ...     [letter.record for letter in read_letters(path)]
    ['two']
    """
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _letter(json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: not a letter of this package ({error})") from error


def _letter(fields: dict[str, Any]) -> Letter:
    letter = Letter(*(fields[name] for name in Letter._fields))
    if "tagged" in fields:
        letter = Letter(_read(fields["tagged"]), *letter[1:])
    # Older versions did not say, and wrote `repr` for what JSON has no form for.
    is_known = "repr" not in fields and not isinstance(letter.record, (list, dict))
    letter.is_exact, letter.repr = bool(fields.get("exact", is_known)), fields.get("repr")
    return letter
