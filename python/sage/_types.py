"""Types for those who check programs: of functions, and of the keywords of the methods that take them.

Knows nothing of how anything runs. ``Unpack`` is for type checkers alone: the oldest Python that the package runs on
has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar, cast

if TYPE_CHECKING:
    from ._policies import DeadLetterQueue, Retry, Skip

Value = TypeVar("Value")
Given = TypeVar("Given")

#: What a program may say of records on which a function raises, of where it runs, and of the end of its process.
OnError: TypeAlias = "Literal['fail', 'skip'] | Skip | DeadLetterQueue"
Workers = Literal["processes", "ray"]
OnWorkerLoss = Literal["fail", "restart"]
Seconds = float | timedelta


class Executes(Protocol):
    """An object whose ``execute`` is called: of a class of functions, ours or a program's own."""

    @property
    def execute(self) -> Any:
        """The method that is called for each record."""


class Policies(TypedDict, total=False):
    """What becomes of records on which a function raises."""

    on_error: OnError
    retry: int | Retry | None


class Flights(Policies, total=False):
    """How many records are worked on at the same time, whether they stay in their order, and for how long at most."""

    in_flight: int | None
    ordered: bool
    timeout: Seconds | None


class Places(Policies, total=False):
    """Where a function runs."""

    parallelism: int
    name: str | None
    workers: Workers | None
    on_worker_loss: OnWorkerLoss
    ray: Mapping[str, Any] | None


class Options(Flights, Places, total=False):
    """All of these."""


class SinkOptions(Flights, total=False):
    """The keywords of a sink, which runs in the process of the job."""

    parallelism: int
    name: str | None


class _Default:
    """Stands for a keyword that a program has not given, and shows as its default."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)


def default(value: Value) -> Value:
    """The default of a keyword that belongs to the function's constructor, where that has one of its name."""
    return cast(Value, _Default(value))


#: The keywords that have such a default: of functions, and of sources.
_BY_DEFAULT = Options.__annotations__.keys() - {"parallelism", "name"}
_BY_DEFAULT |= {"delay", "progress_log_interval", "total_count", "total"}


def given(kwargs: dict[str, Any], method: Mapping[str, Any]) -> None:
    """Adds those keywords with a ``default`` that a program has given to the others. ``method`` is ``locals()`` of the
    method, at its beginning."""
    for name, value in method.items():
        if name in _BY_DEFAULT and type(value) is not _Default:
            kwargs[name] = value
