"""Objects of a program's classes as names and fields, and made again of them: dataclasses, models of pydantic,
namedtuples, members of an Enum."""

from __future__ import annotations

import dataclasses
import typing
from enum import Enum
from typing import Any, ClassVar, NamedTuple

from ._arguments import said


class NotMade(ValueError):
    """A class does not take the fields of a record."""


class Made(NamedTuple):
    """What was made of an object's fields."""

    value: Any
    #: Whether it is an object of its class.
    is_typed: bool


def _kind_of(cls: type) -> str | None:
    """What an object of a class is, if its fields can be told."""
    if issubclass(cls, Enum):
        return "enum"
    if issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make"):
        return "namedtuple"
    if isinstance(getattr(cls, "model_fields", None), dict) and callable(getattr(cls, "model_validate", None)):
        # One whose only field has no name in JSON is made otherwise.
        return None if getattr(cls, "__pydantic_root_model__", False) else "model"
    return "dataclass" if dataclasses.is_dataclass(cls) else None


def fields_of(value: Any) -> tuple[str, list[Any]] | None:
    """What an object is, with its fields: pairs of names and values, but for a namedtuple its values, and of a member
    its name and its value."""
    kind = _kind_of(type(value))
    if kind == "enum":
        return kind, [value.name, value.value]
    if kind == "namedtuple":
        return kind, list(tuple.__iter__(value))
    if kind == "dataclass":
        return kind, [[field.name, getattr(value, field.name)] for field in dataclasses.fields(value)]
    if kind == "model":
        more = getattr(value, "model_extra", None) or {}
        names = type(value).model_fields
        return kind, [*([name, getattr(value, name)] for name in names), *map(list, more.items())]
    return None


class Typed:
    """Makes objects of the classes that a program gives, and of those that their annotations name."""

    #: What an object can be.
    TAGS: ClassVar[frozenset[str]] = frozenset(("dataclass", "model", "namedtuple", "enum"))

    def __init__(self, classes: tuple[type, ...]) -> None:
        for cls in classes:
            if not isinstance(cls, type) or _kind_of(cls) is None:
                raise TypeError(f"`as_` is a dataclass, a model of pydantic, a namedtuple or an Enum, not {said(cls)}")
        #: What a record itself is, whatever the name of its class was.
        self._record = classes[0] if len(classes) == 1 else None
        self._classes = _reached(classes)

    def renamed(self, form: Any) -> Any:
        """The form of a record, as one of the only class that is given."""
        if self._record is None or not isinstance(form, dict):
            return form
        ((tag, parts),) = form.items()
        is_it = tag in self.TAGS and _fits(tag, self._record) and parts[0] not in self._classes
        return {_kind_of(self._record): [self._record.__qualname__, parts[1]]} if is_it else form

    def made(self, tag: str, name: str, parts: list[Any]) -> Made:
        """An object of a class of this name; what can be had without the class, if it is not known."""
        cls: Any = self._classes.get(name)
        if cls is None or not _fits(tag, cls):
            if tag == "enum":
                return Made(parts[1], False)
            return Made(tuple(parts) if tag == "namedtuple" else dict(parts), False)
        try:
            return Made(_make(cls, parts), True)
        except Exception as error:
            raise NotMade(f"cannot make `{cls.__qualname__}` of it: {error}") from error


def _fits(tag: str, cls: type) -> bool:
    """Whether an object of a class can be made of the fields of an object that was of this kind."""
    kind = _kind_of(cls)
    return kind == tag or {kind, tag} == {"dataclass", "model"}


def _make(cls: Any, parts: list[Any]) -> Any:
    kind = _kind_of(cls)
    if kind == "enum":
        return cls[parts[0]]
    if kind == "namedtuple":
        return cls._make(parts)
    fields = dict(parts)
    if kind == "model":
        return cls.model_validate({_input_name(cls, name): value for name, value in fields.items()})
    # Fields that the constructor does not take are set behind it, also those of a frozen class.
    later = {field.name for field in dataclasses.fields(cls) if not field.init}
    made = cls(**{name: value for name, value in fields.items() if name not in later})
    for name in later & fields.keys():
        object.__setattr__(made, name, fields[name])
    return made


def _input_name(cls: Any, name: str) -> str:
    """By which name a model takes a field."""
    field = cls.model_fields.get(name)
    alias = getattr(field, "validation_alias", None) or getattr(field, "alias", None)
    return alias if isinstance(alias, str) else name


def _reached(classes: tuple[type, ...]) -> dict[str, type]:
    """The classes, and those that the annotations of their fields name, by their names; the first of each name."""
    found: dict[str, type] = {}
    left: list[Any] = list(classes)
    seen: list[Any] = []
    while left:
        hint = left.pop(0)
        if any(hint is other for other in seen):
            continue
        seen.append(hint)
        left += typing.get_args(hint)
        if isinstance(hint, type) and _kind_of(hint) is not None:
            found.setdefault(hint.__qualname__, hint)
            try:
                left += typing.get_type_hints(hint).values()
            except Exception:
                continue  # names that are there for type checkers only; their classes can be given
    return found
