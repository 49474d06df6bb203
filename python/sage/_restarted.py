"""How replicas that are made anew stand in a task: in a chain, as a source, as a function of records and timers. What
they do is in ``_replica``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ._awaiting import UNAWAITED
from ._chain import close_all
from ._executed import executed
from ._made import is_function_class, several
from ._output_sink import OutputSink
from ._kinds import BATCH, FLATMAP, Kind, Link, Part
from ._process import Done, Runner
from ._replica import FATAL, Attempts, Replica
from ._restarts import Halt
from ._sage import Wait
from .ops import Op

if TYPE_CHECKING:
    from ._context import ServiceCalls
    from ._makers import Maker


def is_restarted(function: Any) -> bool:
    """Whether another one can take the place of a function, or it be called again: a program's own can. Those of the
    package fail again, or would begin anew."""
    module = getattr(function, "__module__", None) or ""
    is_ours = module == "sage" or module.startswith("sage.")
    is_file = isinstance(function, type) and issubclass(function, OutputSink)
    return callable(function) and not (is_ours or is_file or isinstance(function, Op))


def replica_of(
    maker: Maker,
    part: Part,
    calls: ServiceCalls,
    number: int,
    parallelism: int,
    kind: type[Replica] = Replica,
    **how: Any,
) -> Any:
    """A replica, with ``how`` it is bound, and what else of it is not as for all."""
    is_class = is_function_class(part.made[0])

    def make() -> Any:
        return maker._instance(part, calls, number, parallelism) if is_class else part.made[0]

    def end(function: Any) -> None:
        close_all([function] if is_class else [], calls.loop)

    assert calls.restarts is not None, "the job has fault tolerance"
    given = {"make": make, "end": end, **how}
    return kind(part, maker.job, calls.restarts, number, maker.retry, **given)


def chained(
    maker: Maker, part: Part, calls: ServiceCalls, number: int, parallelism: int, pause: Any
) -> tuple[Replica, list[Link]]:
    """A function of a chain, and its links."""
    anew = replica_of(maker, part, calls, number, parallelism, bind=partial(_called, part), pause=pause or Halt())
    first, *others = part.kind.links(part, anew.begin())
    # What follows the first is the package's.
    return anew, [first._replace(call=partial(anew.run, 0)), *others]


def sourced(
    maker: Maker, part: Part, calls: ServiceCalls, number: int, parallelism: int
) -> tuple[Replica, Iterator[Any]]:
    """A source, and its records."""

    def bind(function: Any) -> list[Callable[..., Any]]:
        return [partial(executed, part.made, function, part.kind is BATCH, part.name)]

    anew = replica_of(maker, part, calls, number, parallelism, bind=bind, pause=None)
    anew.begin()
    return anew, _records(anew)


class Processed:
    """A function of records and timers, called as ``Runner`` is."""

    def __init__(
        self, maker: Maker, part: Part, calls: ServiceCalls, number: int, parallelism: int, pause: Any
    ) -> None:
        def bind(function: Any) -> list[Callable[..., Done]]:
            runner = Runner(function, part.inputs, calls.loop)
            return [runner.record, runner.timer]

        anew = replica_of(maker, part, calls, number, parallelism, bind=bind, pause=pause or Halt())
        anew.begin()
        self.record, self.timer, self.close = partial(anew.run, 0), partial(anew.run, 1), anew.close


def _called(part: Part, function: Any) -> list[Callable[..., Any]]:
    """What a chain calls of an object of a function."""
    first = part.kind.links(part, function)[0]
    assert first.call is not None, "a program's function is called"
    return [_whole(first.kind, first.call)]


def _whole(kind: Kind, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call with all its results, of one that gives them one by one."""
    if kind is FLATMAP:
        return lambda *arguments: _gathered(call(*arguments))
    if not kind.name.startswith("flatmap"):
        return call

    def with_state(*arguments: Any) -> Any:
        returned = call(*arguments)
        is_pair = type(returned) is tuple and len(returned) == 2
        return (returned[0], _gathered(returned[1])) if is_pair else returned

    return with_state


def _gathered(results: Any) -> Any:
    return results if type(results) in UNAWAITED else several(results)


def _records(replica: Replica) -> Iterator[Any]:
    """The records of a source that is made anew when it raises. Its waits are the engine's, so that they end with the
    job, which does not ask again then."""
    failures, attempts = 0, Attempts(replica)
    while True:
        made = replica.made
        assert made is not None, "it was made before it is read"
        try:
            # A generator that has raised is over: each attempt has its own.
            for record in made.calls[0]():
                if type(record) is not Wait:
                    failures = attempts.count = 0
                    replica.done(made)
                    if replica.is_due():
                        replica.keep()
                yield record
            return
        except FATAL:
            raise
        except Exception as exception:
            failures, attempts.count = failures + 1, attempts.count + 1
            if replica.is_retried(exception, failures):
                yield Wait(replica.wait(failures))
                continue
            with attempts:
                delay = replica.failed(exception)
            replica.retire(exception)
            replica.end_old()
        failures = 0
        with attempts:
            for rest in replica.renewals(delay, attempts):
                yield Wait(rest)
