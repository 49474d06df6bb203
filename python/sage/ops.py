"""Functions that the engine runs itself, outside Python's threads and without the interpreter's lock.

Each is a function like any other, so ``ops.split()("a b")`` returns ``["a", "b"]``. In a pipeline, plain records
(``None``, ``bool``, ``int`` of 64 bits, ``float``, ``str``, ``bytes``, and results of ``parse_json``) go through
without Python. Other records, such as a ``list`` or a ``dict``, stay the same objects, and the Python function is
called for them.

>>> from sage import LocalEnvironment, ops
>>> env = LocalEnvironment("words")
>>> counts = env.from_batch(["a b", "b"]).flatmap(ops.split()).keyby(ops.identity()).count().collect()
>>> job = env.submit(autostop=True)
>>> sorted(counts)
[('a', 1), ('b', 2)]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._keywords import spelt

__all__ = ["Op", "contains", "field", "identity", "lower", "parse_json", "split", "strip", "to_float", "to_int"]


class Op:
    """A function that the engine knows.

    >>> ops.lower()("TEA")
    'tea'
    """

    def __init__(self, name: str, reference: Callable[[Any], Any], argument: str | None = None) -> None:
        self.name = name
        self.argument = argument
        self._reference = reference
        self.__name__ = name if argument is None else f"{name} {argument!r}"

    def __call__(self, record: Any) -> Any:
        """Calls the function with a record."""
        return self._reference(record)

    def __repr__(self) -> str:
        return f"sage.ops.{self.name}({'' if self.argument is None else repr(self.argument)})"


def identity() -> Op:
    """Returns the record itself, for a record that is its own key.

    >>> ops.identity()("tea")
    'tea'
    """
    return Op("identity", lambda record: record)


@spelt
def split(separator: str | None = None) -> Op:
    """For ``flatmap``: the words of a text, or its parts between separators, as ``str.split``.

    >>> ops.split()("good tea"), ops.split(",")("a,b")
    (['good', 'tea'], ['a', 'b'])
    """
    if separator == "":
        raise ValueError("the separator is empty; leave it out to split at white space")
    return Op("split", lambda text: text.split(separator), separator)


def strip() -> Op:
    """A text without the white space around it, as ``str.strip``.

    >>> ops.strip()("  tea ")
    'tea'
    """
    return Op("strip", lambda text: text.strip())


def lower() -> Op:
    """A text in lower case, as ``str.lower``.

    >>> ops.lower()("TEA")
    'tea'
    """
    return Op("lower", lambda text: text.lower())


@spelt
def contains(part: str) -> Op:
    """For ``filter``: whether a text has ``part`` in it.

    >>> env = LocalEnvironment("errors")
    >>> errors = env.from_batch(["INFO begin", "ERROR lost"]).filter(ops.contains("ERROR")).collect()
    >>> job = env.submit(autostop=True)
    >>> errors
    ['ERROR lost']
    """
    return Op("contains", lambda text: part in text, part)


def parse_json() -> Op:
    """The value of a text that is JSON, as ``json.loads``.

    >>> ops.parse_json()('{"id": 1}')
    {'id': 1}
    """
    import json  # only where it is needed

    return Op("parse_json", json.loads)


@spelt
def field(name: str) -> Op:
    """The value that a ``dict`` has under ``name``; raises ``KeyError`` if it has none.

    >>> ops.field("user")({"user": "ada"})
    'ada'
    """
    return Op("field", lambda record: record[name], name)


def to_int() -> Op:
    """The whole number of a text or a number, as ``int``.

    >>> ops.to_int()("12")
    12
    """
    return Op("to_int", int)


def to_float() -> Op:
    """The number of a text or a number, as ``float``.

    >>> ops.to_float()("1.5")
    1.5
    """
    return Op("to_float", float)
