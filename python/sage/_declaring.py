"""How a stream adds steps to the pipeline of its environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _kinds as kinds
from ._arguments import numbered
from ._config import check_worker_loss
from ._given import check_function, check_parallelism, flight_of, is_async, name_of, ray_of, workers_of
from ._output_sink import OutputSink
from ._keywords import no_attribute
from ._output_sink import OutputSink
from ._policies import policy, split_options
from ._transformation import Transformation, behind

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._pipeline import Pipeline
    from ._stream import DataStream


class Output:
    """An output of a step, to which other steps are added. What is public of it is a ``DataStream``."""

    def __init__(self, environment: Pipeline, step: Transformation, output: int = 0) -> None:
        self._environment = environment
        self._step = step
        self._output = output
        self._others: list[Output] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._place()}>"

    def _place(self) -> str:
        """The name of its environment, and how many steps of the program its records have come through."""
        steps = len(behind([step for step, _ in self._inputs()]))
        return f"of {self._environment.name}, {numbered(steps, 'step')}"

    if not TYPE_CHECKING:  # for checkers there is no such attribute

        def __getattr__(self, name):
            from ._keyed import KeyedStream

            raise no_attribute(self, name, KeyedStream, "it is for streams with a key, so use `keyby` first")

    def _inputs(self) -> list[tuple[Transformation, int]]:
        return [(stream._step, stream._output) for stream in [self, *self._others]]

    def _add(
        self,
        kind: kinds.Kind,
        function: Any = None,
        name: str | None = None,
        parallelism: int = 1,
        args: Any = (),
        kwargs: Any = None,
        **does: Any,
    ) -> DataStream[Any]:
        """Adds a step; ``does`` are other fields of it."""
        parallelism = check_parallelism(parallelism)
        name = self._environment._named(name or (kind.name if function is None else name_of(function)))
        made = function, args, kwargs or {}
        return self._environment._declare(Transformation(kind, name, made, self._inputs(), parallelism, **does))

    def _ours(
        self, kind: kinds.Kind, function: Any = None, parallelism: int = 1, *, is_aside: bool = True, **does: Any
    ) -> DataStream[Any]:
        """Adds a step that is a part of one of the program's: see ``_belongs``."""
        parallelism = check_parallelism(parallelism)
        inputs = self._inputs()
        step = Transformation(kind, "", (function, (), {}), inputs, parallelism, is_aside=is_aside, **does)
        return self._environment._declare(step)

    def _belongs(self, owner: Output, what: str) -> Self:
        """Makes its step a part of another one. Returns this stream."""
        step = self._step
        step.owner, step.told = owner._step, owner._step.name
        step.name = step.name or self._environment._named(f"{what} of {step.told}")
        return self

    def _then(
        self,
        kind: kinds.Kind,
        function: Any,
        args: Any,
        kwargs: Any,
        parallelism: int,
        name: str | None,
        is_given: bool = True,
    ) -> DataStream[Any]:
        """Adds a step with a function; ``is_given`` says that the program gave its name."""
        options = split_options(function, kwargs)
        check_function(kind, function, args, kwargs, name if is_given else None)
        told, dead = policy(options)
        is_awaited = is_async(function)
        spec = None
        if "in_flight" in options or is_awaited:
            if isinstance(function, type) and issubclass(function, OutputSink):
                raise ValueError(f"`{function.__name__}` writes one record at a time, so it takes no `in_flight`")
            spec = flight_of(kind, options)
        elif "ordered" in options or "timeout" in options:
            named = name or name_of(function)
            raise ValueError(f"`ordered` and `timeout` are for functions that are async or have `in_flight`: `{named}`")
        does: dict[str, Any] = {"policy": told, "spec": spec, "is_awaited": is_awaited}
        if "on_worker_loss" in options:
            does["on_worker_loss"] = check_worker_loss("`on_worker_loss`", options["on_worker_loss"])
        if "workers" in options:
            does["workers"] = workers_of(options["workers"], kind, name or name_of(function))
        if "ray" in options:
            does["ray"] = ray_of(options, kind, name or name_of(function))
        stream = self._add(kind, function, name, parallelism, args, kwargs, **does)
        if dead is not None:
            from ._letters import Letter  # here, as few programs need it
            from ._stream import DataStream

            failed: DataStream[Any] = DataStream(self._environment, stream._step, kind.outputs)
            letters = failed._ours(kinds.MAP, Letter._make, workers=None)
            letters._belongs(stream, "letters")._step.told = f"letters of {stream._step.name}"
            if dead.to is None:
                dead._streams.append(letters)
            else:
                name = f"dead letters of {stream._step.name}"
                end = letters._then(kinds.SINK, dead.to, dead.args, dict(dead.kwargs), 1, name, is_given=False)
                step = end._belongs(stream, "")._step
                step.told, step.is_aside = step.name, True
        return stream

    def _whole(self) -> Any:
        """A ``KeyedStream`` of one key, whose results come without it."""
        from ._keyed import KeyedStream

        # It is declared with the step that it is a part of.
        return KeyedStream(self._environment, Transformation(kinds.WHOLE, "", inputs=self._inputs(), is_aside=True))
