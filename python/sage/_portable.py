"""Pickles the functions of a step for a worker, and says what of them cannot be taken there.

cloudpickle takes functions, lambdas and classes of the main module by value, and what modules have by its name. Here
are added handles of services, which call the services of the job from there, and a refusal of open files, which
cloudpickle takes as copies of their contents.
"""

from __future__ import annotations

import dis
import importlib
import io
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from ._arguments import warn
from ._handles import ServiceHandle
from ._context import JobContext
from ._makers import Maker
from ._sage import Binding, SubmitError

#: The class of methods of handles.
METHOD: Any = type(Binding("").method(""))

#: How far into what a function needs is looked for what cannot be pickled.
_MOST_LEVELS = 6

#: What changes a container, of those that a function may share with its program.
_CHANGES = {"append", "appendleft", "extend", "add", "update", "insert", "setdefault", "pop", "clear", "remove"}
_CONTAINERS = (list, dict, set, deque, bytearray)


def pickled(maker: Maker) -> bytes:
    """A maker, pickled. Raises ``SubmitError`` with what cannot be taken to a worker."""
    for part in maker.parts:
        for name in sorted(set(shared(part.made[0]))):
            warn(
                f"`{part.name}` changes `{name}`, of which each worker has a copy: the program does not see that; "
                "return what is to be known, or keep it in a service"
            )
    try:
        return dumped(maker)
    except Exception as error:
        found = next(filter(None, (culprit(part.made, f"`{part.name}`") for part in maker.parts)), None)
        where, why = found or (", ".join(f"`{part.name}`" for part in maker.parts), error)
        raise SubmitError(
            f"{where} cannot be taken to a worker process: {said_of(why)}; make it in the constructor of a function "
            "class, keep it in a service, or run the step with `workers=None`"
        ) from error


def pickled_service(name: str, factory: Any, job: JobContext) -> bytes:
    """What makes a service, pickled with what it knows of its job. Raises ``SubmitError`` with what cannot be taken to
    a process."""
    try:
        return dumped((factory, name, job))
    except SubmitError:
        raise
    except Exception as error:
        path, why = culprit(factory, f"service `{name}`") or (f"service `{name}`", error)
        raise SubmitError(
            f"{path} cannot be taken to a process of its own: {said_of(why)}; make it in the constructor or in `setup` "
            "of the service, or leave out `isolated`"
        ) from error


def said_of(error: BaseException) -> str:
    """An exception, in words."""
    return f"{type(error).__name__}: {error}"


def dumped(value: Any) -> bytes:
    """Any object, as it is taken to a worker."""
    return dumped_all(_to_worker, lambda: value)


def _to_worker(value: Any) -> Any:
    if isinstance(value, ServiceHandle):
        binding, cls, changes = value.__dict__["_sage"]
        return _handle, (binding.name, cls, changes)
    if isinstance(value, METHOD):
        return _method, (value.__self__.name, value.__name__, value.changes)
    return NotImplemented


def dumped_all(reduced: Callable[[Any], Any], *values: Callable[[], Any]) -> bytes:
    """Several objects, pickled one after the other; each is asked for when those before it are. ``reduced`` says how to
    pickle some objects, as ``reducer_override`` does."""
    try:
        cloudpickle: Any = importlib.import_module("cloudpickle")
    except ModuleNotFoundError:
        raise SubmitError(
            "what runs in another process needs cloudpickle, which takes functions there: "
            "pip install 'sage-dataflow[processes]'"
        ) from None

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        def reducer_override(self, value: Any) -> Any:
            told = reduced(value)
            if told is not NotImplemented:
                return told
            if isinstance(value, io.IOBase) and not isinstance(value, (io.BytesIO, io.StringIO)):
                raise TypeError(f"an open file, {getattr(value, 'name', value)!r}, belongs to its process")
            return super().reducer_override(value)

    file = io.BytesIO()
    pickler = Pickler(file, protocol=5)
    for value in values:
        pickler.dump(value())
    return file.getvalue()


def _handle(name: str, cls: Any, changes: Any) -> ServiceHandle:
    """In a worker: the handle of a service of the job."""
    from ._worker import binding

    return ServiceHandle(binding(name), cls, changes)


def _method(name: str, method: str, changes: Any) -> Any:
    """In a worker: a method of such a handle."""
    from ._worker import binding

    return binding(name).method(method, changes)


def culprit(value: Any, path: str, level: int = 0) -> tuple[str, Exception] | None:
    """The innermost part of a value that cannot be pickled, and why."""
    try:
        dumped(value)
        return None
    except Exception as error:
        if level < _MOST_LEVELS:
            for inner, name in _parts(value):
                found = culprit(inner, f"{name} of {path}" if name else path, level + 1)
                if found is not None:
                    return found
        return path, error


def _parts(value: Any) -> Iterator[tuple[Any, str]]:
    """What a value is made of, with what that is called; without a name where it is no part to speak of."""
    if isinstance(value, FunctionType):
        code = value.__code__
        for name, cell in zip(code.co_freevars, value.__closure__ or ()):
            try:
                yield cell.cell_contents, f"`{name}`"
            except ValueError:
                pass  # not set yet
        for name in sorted(_names(code)):
            if name in value.__globals__:
                yield value.__globals__[name], f"`{name}`"
        yield from ((default, "a default") for default in value.__defaults__ or ())
    elif isinstance(value, MethodType):
        yield value.__self__, "the object"
        yield value.__func__, ""
    elif isinstance(value, partial):
        yield value.func, ""
        yield from ((argument, "an argument") for argument in [*value.args, *value.keywords.values()])
    elif isinstance(value, (tuple, list, set, frozenset)):
        yield from ((item, "" if isinstance(value, tuple) else "an item") for item in value)
    elif isinstance(value, dict):
        yield from ((item, f"`{key}`" if isinstance(key, str) else "an item") for key, item in value.items())
    elif isinstance(value, type):
        yield from ((item, f"`{name}`") for name, item in vars(value).items() if not name.startswith("__"))
    else:
        yield from ((item, f"`{name}`") for name, item in getattr(value, "__dict__", {}).items())


def _names(code: CodeType) -> set[str]:
    """The names that a function's code, or one within it, mentions."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def shared(function: Any) -> Iterator[str]:
    """The names of containers outside of a function that it changes."""
    if not isinstance(function, FunctionType):
        return
    known: dict[str, Any] = {}
    if function.__module__ == "__main__":
        known.update(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            known[name] = cell.cell_contents
        except ValueError:
            known.pop(name, None)  # not set yet
    last = ""
    for line in dis.get_instructions(function):
        if line.opname in ("LOAD_DEREF", "LOAD_GLOBAL"):
            last = str(line.argval)
        elif line.opname in ("LOAD_ATTR", "LOAD_METHOD") and last:
            if line.argval in _CHANGES and isinstance(known.get(last), _CONTAINERS):
                yield last
            last = ""
        elif line.opname == "STORE_SUBSCR":
            if isinstance(known.get(last), _CONTAINERS):
                yield last
        elif not line.opname.startswith(("LOAD_", "CACHE", "PUSH_NULL", "EXTENDED_ARG", "COPY", "BINARY", "SWAP")):
            last = ""
