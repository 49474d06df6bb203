"""An environment as bytes, for a job of the job manager: written where it is submitted, and read in the process of the
job alone.

```
8 bytes   "SAGE-JOB"
u32       the version of this format
u32 u64   how long the header and the body are
header    JSON: what is needed to read the body in another process
body      two pickles: the environment, and what functions may find in the program's main module
```

Numbers are little-endian. The lengths add up to that of the whole: what is cut off or has more is refused. Nothing is
unpickled but by ``load``, and that not before the header is that of the same package and the same Python.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import struct
import sys
import types
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ._arguments import warn
from ._environment import LocalEnvironment
from ._handles import ServiceHandle
from ._portable import METHOD, culprit, dumped_all, said_of, shared
from ._sage import Binding, Reset, Role, Spec, Strategy, SubmitError, version

if TYPE_CHECKING:
    from ._base_environment import BaseEnvironment

MAGIC = b"SAGE-JOB"
VERSION = 1

#: The longest payload, in bytes: in base64 it fits into a request of 64 MiB.
MOST_BYTES = 47 << 20

#: The longest header.
_MOST_HEADER = 1 << 20

_LENGTHS = struct.Struct("<IIQ")


class Header(NamedTuple):
    """What is needed to read a payload, and to submit it."""

    #: That of the environment.
    name: str
    #: The program's folder, and its interpreter.
    folder: str
    executable: str
    #: The versions of the package and of Python: what is pickled is not for others.
    package: str
    python: str
    #: ``sys.path`` and ``sys.argv`` of the program.
    path: list[str]
    argv: list[str]
    #: Whether its interpreter leaves the program's folder out of ``sys.path``.
    safe_path: bool


class Body(NamedTuple):
    """An environment without what belongs to its process."""

    name: str
    config: dict[str, Any]
    scheduler: Any
    enable_monitoring: bool
    workers: str | None
    steps: list[Any]
    names: dict[str, int]
    services: dict[str, Any]
    after: dict[str, list[str]]
    isolated: dict[str, Any]
    policies: dict[str, Any]


def here(name: str) -> Header:
    """The header of an environment of this program."""
    paths = [os.path.abspath(path) for path in sys.path if isinstance(path, str)]
    python = ".".join(map(str, sys.version_info[:2]))
    safe_path = bool(getattr(sys.flags, "safe_path", False))
    return Header(name, os.getcwd(), sys.executable, version, python, paths, list(sys.argv), safe_path)


def packed(environment: BaseEnvironment) -> bytes:
    """The environment as bytes. Raises ``SubmitError`` with what cannot be taken to another process."""
    for step in environment._steps:
        for name in sorted(set(shared(step.made[0]))):
            warn(
                f"`{step.name}` changes `{name}`, of which the job has a copy: this program does not see that; keep "
                "it in a file or in a service"
            )
        if step.kind.ends and isinstance(getattr(step.made[0], "__self__", None), list):
            raise SubmitError(
                f"`{step.name}` gathers records in a list of this program, and the job runs in another process: end "
                "with `sink`, and write to a file"
            )
    body = _body(_parts_of(environment), list(environment._bindings.values()))
    header = json.dumps(here(environment.name)._asdict()).encode()
    whole = MAGIC + _LENGTHS.pack(VERSION, len(header), len(body)) + header + body
    if len(whole) > MOST_BYTES or len(header) > _MOST_HEADER:
        raise SubmitError(
            f"environment `{environment.name}` takes {len(whole):,} bytes as it is taken to the job manager, and "
            f"{MOST_BYTES:,} is the most: read large data in the job, from a file"
        )
    return whole


def _parts_of(environment: BaseEnvironment) -> Body:
    return Body(
        environment.name,
        environment.config,
        environment.scheduler,
        environment.enable_monitoring,
        environment.workers,
        environment._steps,
        environment._names,
        environment._services,
        environment._after,
        environment._isolated,
        environment._policies,
    )


def _body(parts: Body, bindings: Iterable[Binding]) -> bytes:
    main = sys.modules.get("__main__")
    found: dict[str, Any] = {}

    def own(binding: Binding) -> str:
        if not any(binding is mine for mine in bindings):
            raise TypeError(f"`{binding.name}` is a service of another environment")
        return binding.name

    def reduced(value: Any) -> Any:
        if isinstance(value, ServiceHandle):
            binding, cls, changes = value.__dict__["_sage"]
            return _handle, (own(binding), cls, changes)
        if isinstance(value, METHOD):
            return _method, (own(value.__self__), value.__name__, value.changes)
        if isinstance(value, Spec):
            kind: Any = type(value)
            return _spec, (_name_of(kind), {name: getattr(value, name) for name in kind.__match_args__})
        if isinstance(value, (Strategy, Role, Reset)):
            return getattr, (type(value), repr(value).rpartition(".")[2])
        if isinstance(value, (type, types.FunctionType)) and value.__module__ == "__main__":
            name = value.__qualname__
            if getattr(main, name, None) is value:
                found[name] = value
        return NotImplemented

    try:
        # What was found is known when the first is written, and most of it is written by then.
        return dumped_all(reduced, lambda: parts, lambda: found)
    except SubmitError:
        raise
    except Exception as error:
        path, why = _culprit(parts, error)
        raise SubmitError(
            f"{path} cannot be taken to the job manager: {said_of(why)}; make it in the constructor of a function "
            "class, or in a service"
        ) from error


def _culprit(parts: Body, error: Exception) -> tuple[str, Exception]:
    of_steps = (culprit(step.made, f"`{step.name}`") for step in parts.steps)
    of_services = (culprit(factory, f"service `{name}`") for name, factory in parts.services.items())
    others = ((parts.config, "`config`"), (parts.scheduler, "`scheduler`"))
    found = next(filter(None, of_steps), None) or next(filter(None, of_services), None)
    found = found or next(filter(None, (culprit(value, name) for value, name in others)), None)
    return found or (f"environment `{parts.name}`", error)


def _name_of(kind: type) -> str:
    """The name of a variant, as ``Spec`` has it."""
    return kind.__name__.rpartition("_")[2]


def _spec(name: str, fields: dict[str, Any]) -> Spec:
    if fields.get("windows"):
        # It is read by its attributes, and given by its items.
        fields["windows"] = types.SimpleNamespace(**fields["windows"])
    made: Spec = getattr(Spec, name)(**fields)
    return made


def header_of(payload: bytes) -> Header:
    """What a payload says of itself. Raises ``ValueError`` for bytes that are none."""
    return _split(payload)[0]


def _split(payload: bytes) -> tuple[Header, memoryview]:
    at = len(MAGIC) + _LENGTHS.size
    if len(payload) > MOST_BYTES or len(payload) < at or not payload.startswith(MAGIC):
        raise ValueError("this is no environment of this package: submit one with `RemoteEnvironment.submit`")
    version, header, body = _LENGTHS.unpack_from(payload, len(MAGIC))
    if version != VERSION:
        raise ValueError(f"the environment has version {version} of its format, and {VERSION} is read here")
    if header > _MOST_HEADER or at + header + body != len(payload):
        raise ValueError("the environment is cut off, or damaged: submit it anew")
    try:
        told = Header(**json.loads(payload[at : at + header]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the environment is damaged ({error}): submit it anew") from error
    return told, memoryview(payload)[at + header :]


#: The services of the environment that is being read: see ``_handle``.
_bindings: dict[str, Binding] = {}


def _bound(name: str) -> Binding:
    return _bindings.setdefault(name, Binding(name))


def _handle(name: str, cls: Any, changes: Any) -> ServiceHandle:
    return ServiceHandle(_bound(name), cls, changes)


def _method(name: str, method: str, changes: Any) -> Any:
    return _bound(name).method(method, changes)


def check(header: Header) -> None:
    """Raises ``ValueError`` if what is pickled is not for this process."""
    mine = here(header.name)
    for what, its, ours in (("sage-dataflow", header.package, mine.package), ("Python", header.python, mine.python)):
        if its != ours:
            raise ValueError(
                f"environment `{header.name}` was submitted with {what} {its}, and here is {ours}: submit it anew"
            )


def load(payload: bytes, main: types.ModuleType) -> LocalEnvironment:
    """The environment, as one whose jobs run in this process; ``main`` is given what functions may find in their main
    module. Runs code: for the process of the job alone."""
    header, body = _split(payload)
    check(header)
    importlib.import_module("cloudpickle")
    _bindings.clear()
    # One reads both, as the second refers to what is in the first.
    reader = pickle.Unpickler(io.BytesIO(body))
    parts: Body = reader.load()
    for name, value in reader.load().items():
        setattr(main, name, value)
    made = LocalEnvironment(
        parts.name, parts.config, parts.scheduler, parts.enable_monitoring, workers=parts.workers
    )
    made._steps, made._names = parts.steps, parts.names
    made._after, made._isolated, made._services = parts.after, parts.isolated, parts.services
    made._policies = parts.policies
    made._bindings = {name: _bound(name) for name in parts.services}
    return made
