"""Dead letters: records on which a function raised, and the files of such letters.

A file has a line of JSON for each letter. A record that is read back equals the one that was written, or the letter
says that it does not. A record is written as plain JSON if that gives it back, else in a form with tags (``_forms``);
else it is only described. Whatever a record is, and whatever its methods do, its letter is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from os import PathLike
from typing import Any, NamedTuple

from ._arguments import shown, warn
from ._forms import Reader, Unwritable, Writer, is_plain
from ._functions import Noting, SinkFunction
from ._keywords import spelt
from ._typed import NotMade, Typed


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
    #: a class of the program's that ``as_`` does not give is its fields, an object of a subclass of a built-in type has
    #: the built-in type, and what there is no form for is ``None``. For lists and dicts in files of older versions it
    #: is unknown, and ``False``.
    is_exact: bool = True
    #: A description of the record, if ``record`` is not exact.
    repr: str | None = None


def _described(record: Any) -> str:
    """What a record looks like, not too long, whatever its own methods do."""
    import reprlib  # only for such a record

    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 1000
    try:
        return short.repr(record)
    except BaseException:  # its own, and no reason to lose the letter
        return f"<{type(record).__name__} that cannot be shown>"


def line_of(letter: Letter) -> tuple[str, str | None]:
    """A letter as a line of a file, without its end; and why its record cannot be read back, if it cannot."""
    fields: dict[str, Any] = dict(zip(Letter._fields[1:], letter[1:]))
    record = letter.record
    try:
        if is_plain(record):
            return json.dumps({"record": record, "exact": True, **fields}), None
        writer = Writer()
        form = writer.form(record)
        is_exact = writer.is_exact and not writer.has_classes
        told = {} if is_exact else {"typed": writer.is_exact, "repr": _described(record)}
        return json.dumps({"record": None, "tagged": form, "exact": is_exact, **told, **fields}), None
    except BaseException as error:  # whatever a record does, its letter is written
        why = "it is nested too deep, or too large"
        if isinstance(error, Unwritable) and error.args[0]:
            why = f"there is no form for the type `{error.args[0]}`"
        return json.dumps({"record": None, "exact": False, "repr": _described(record), **fields}), why


class LetterFile(SinkFunction, Noting):
    """Appends letters to a file, a line each. A new file can be read by its owner only."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._count = 0
        #: Of which records it was said that they cannot be read back: by operators and types.
        self._said: set[tuple[str, type]] = set()
        self.notes: list[str] = []
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A line that a job could not write to its end, as it was killed, is not to spoil the first of this one.
        size = os.fstat(self._file).st_size
        self._begin = b"\n" if size and os.pread(self._file, 1, size - 1) != b"\n" else b""

    def execute(self, letter: Letter) -> None:
        """Writes a letter whole, so that it is there though the job is killed."""
        text, why = line_of(letter)
        line = memoryview(self._begin + text.encode("ascii") + b"\n")
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error
        self._begin = b""
        self._count += 1
        if why is not None:
            self._say(letter, why)

    def _say(self, letter: Letter, why: str) -> None:
        key = letter.operator, type(letter.record)
        if key not in self._said:
            self._said.add(key)
            what = f"a record of the type `{key[1].__qualname__}` cannot be read back from {self._path}"
            warn(f"dead letters of `{letter.operator}`: {what}, as {why}; the letter describes it")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)
        if self._count:
            path = os.path.abspath(self._path)
            letters = "1 dead letter is" if self._count == 1 else f"{self._count} dead letters are"
            self.notes.append(f"{letters} in {shown(path)}: `sage.read_letters({path!r})` gives the records back")


@spelt
def read_letters(path: str | PathLike[str], as_: type | tuple[type, ...] | None = None) -> Iterator[Letter]:
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

    Records of the types of Python, ``datetime`` and ``Path`` among them, and of numpy are read as they were. A record
    of a dataclass or a model of pydantic is a dict of its fields, and no code of the program is called; of a namedtuple
    it is a tuple, and of an ``Enum`` the value. Unless ``as_`` gives the class, or several: then it is an object of its
    class. Classes that the annotations of its fields name need not be given. A model is validated as it is made; a
    record that the class does not take is a ``ValueError``, with the file and the line.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Order:
    ...     fruit: str
    ...     count: int
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "failed.jsonl")
    ...     env = LocalEnvironment("orders")
    ...     orders = env.from_batch([Order("apple", 0)])
    ...     shares = orders.map(lambda order: 1 / order.count, on_error=DeadLetterQueue(path)).collect()
    ...     job = env.submit(autostop=True)
    ...     [letter.record for letter in read_letters(path, as_=Order)]
    [Order(fruit='apple', count=0)]
    """
    classes = as_ if isinstance(as_, tuple) else () if as_ is None else (as_,)
    return _letters(path, Typed(classes))


def _letters(path: str | PathLike[str], typed: Typed) -> Iterator[Letter]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _letter(json.loads(line), typed)
            except NotMade as error:
                raise ValueError(f"{path}, line {number}: {error}") from error.__cause__
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: not a letter of this package ({error})") from error


def _letter(fields: dict[str, Any], typed: Typed) -> Letter:
    letter = Letter(*(fields[name] for name in Letter._fields))
    is_typed = False
    if "tagged" in fields:
        reader = Reader(typed)
        form = typed.renamed(fields["tagged"])
        letter = Letter(reader.value(form), *letter[1:])
        is_typed = bool(fields.get("typed")) and not reader.lacks_class and _has_form(letter.record, form)
    # Older versions did not say, and wrote `repr` for what JSON has no form for.
    is_known = "repr" not in fields and not isinstance(letter.record, (list, dict))
    letter.is_exact = is_typed or bool(fields.get("exact", is_known))
    letter.repr = None if is_typed else fields.get("repr")
    return letter


def _has_form(record: Any, form: Any) -> bool:
    """Whether a record that was made by the program's classes has the form that it was made of."""
    try:
        return bool(Writer().form(record) == form)
    except Exception:
        return False
