"""Pipelines: the declared steps of an environment, and the methods that begin streams."""

from __future__ import annotations

import atexit
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from functools import wraps
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload
from weakref import WeakSet

from ._arguments import check_call, check_none_left, name_too, parameters, seconds, text, truth, warn, whole
from ._config import keep_none_of
from ._file_sources import FileSources
from ._functions import BaseFunction, KafkaSourceFunction
from ._made import Made, is_function_class
from ._keywords import spelt
from ._given import check_not_async, check_parallelism, name_of
from ._kinds import BATCH, FILL, FUTURE, ITERABLE, KAFKA, SOURCE, Kind
from ._pace import Pace, taken
from ._policies import FAIL, Policy, retried
from ._sage import Spec
from ._stream import DataStream, T
from ._transformation import NOTHING, Transformation
from ._types import default, given

if TYPE_CHECKING:
    from ._job import JobId
    from ._packet import StopSignal
    from ._policies import Retry
    from ._running import Run
    from ._services import ServiceFactory
    from ._types import Executes, OnError, Seconds

#: Those with a stream that ends, of which nobody has asked for anything yet.
declared: WeakSet[Pipeline] = WeakSet()

_Method = TypeVar("_Method", bound=Callable[..., Any])

FORGOTTEN = "{} was declared and never submitted, so nothing ran: call `submit(autostop=True)`"


@atexit.register
def _warn_of_declared() -> None:
    """Warns of pipelines that a program declared and did not run, unless it ends by an exception."""
    forgotten = sorted(env.name for env in list(declared))
    if forgotten and not hasattr(sys, "last_value"):
        names = ", ".join(f"`{name}`" for name in forgotten[:3]) + (", …" if len(forgotten) > 3 else "")
        warn(FORGOTTEN.format(names))


def _behind_class(method: _Method) -> _Method:
    """Has a method take the class of a Kafka source in front, as in SAGE since December 2025."""

    @wraps(method)
    def call(self: Pipeline, *args: Any, source_class: Any = None, **kwargs: Any) -> Any:
        if args and isinstance(args[0], type):
            source_class, args = args[0], args[1:]
        if source_class not in (None, KafkaSourceFunction):
            raise TypeError(f"the engine reads the topics itself, not {source_class!r}; use `from_source` for that")
        return method(self, *args, **kwargs)

    return cast(_Method, call)


@spelt
class Pipeline(FileSources):
    """The steps that a program declares, and the services beside them."""

    def __init__(self, name: str) -> None:
        self.name = text("the name of an environment", name)
        self.config: dict[str, Any] = {}
        self._steps: list[Transformation] = []
        self._services: dict[str, ServiceFactory] = {}
        self._names: dict[str, int] = {}
        #: The job submitted last.
        self._run: Run | None = None
        #: What ``submit`` has returned; ``None`` before, and after ``close``.
        self.env_uuid: str | None = None

    @property
    def pipeline(self) -> list[Transformation]:
        """The steps that the program has declared, in their order.

        Each has its ``function_class``, its ``basename`` (the name of that class, with ``_1``, ``_2``, … behind it from
        the second on), its ``parallelism``, and its ``upstreams``, the steps whose records it takes.

        >>> env = LocalEnvironment("squares")
        >>> squares = env.from_batch([1, 2]).map(lambda n: n * n)
        >>> [step.parallelism for step in env.pipeline]
        [1, 1]
        """
        steps = [step for step in self._steps if step.owner is None and step.kind is not FILL]
        names: dict[str, int] = {}
        for step in steps:
            name = step.function_class.__name__
            number = names[name] = names.get(name, -1) + 1
            step.basename = f"{name}_{number}" if number else name
        return steps

    def _declare(self, step: Transformation) -> DataStream[Any]:
        """Adds a step; returns what comes out. With one that ends a stream, it is a pipeline to be submitted."""
        for before, _ in step.inputs:
            if before.is_closed:
                name = before.told or before.name
                raise RuntimeError(f"the stream of `{name}` was closed with its pipeline; begin a new stream")
            if before.is_replaced:
                before.is_replaced, before.name = False, self._named(f"{before.name} again")
                self._steps.append(before)
        self._steps.append(step)
        if step.kind.ends and self.env_uuid is None:
            declared.add(self)
        return DataStream(self, step)

    def _keeps_none(self, keep_none: bool | None) -> bool:
        """Whether results of a map that are ``None`` are records, from what its step says."""
        return keep_none_of(self.config) if keep_none is None else truth("`keep_none`", keep_none)

    def _named(self, name: str) -> str:
        """The name of a new step, with a number where it is taken."""
        text("the name of a step", name)
        number = self._names[name] = self._names.get(name, 0) + 1
        return name if number == 1 else f"{name}-{number}"

    def _source(
        self,
        kind: Kind,
        name: str,
        made: Made = NOTHING,
        spec: Spec | None = None,
        parallelism: int = 1,
        policy: Policy = FAIL,
        pace: Pace = Pace(),  # noqa: B008
    ) -> DataStream[Any]:
        parallelism = check_parallelism(parallelism)
        spec = spec or Spec.Source()
        step = Transformation(kind, self._named(name), made, parallelism=parallelism, spec=spec)
        step.policy, step.pace = policy, pace
        return self._declare(step)

    @overload
    def from_batch(
        self, source: type[Executes], *args: Any, name: str | None = None, **kwargs: Any
    ) -> DataStream[Any]: ...

    @overload
    def from_batch(
        self,
        source: Iterable[T] | AsyncIterable[T],
        *,
        name: str | None = None,
        delay: Seconds | None = None,
        progress_log_interval: int | None = None,
        total_count: int | None = None,
        total: int | None = None,
    ) -> DataStream[T]: ...

    def from_batch(
        self,
        source: Any,
        *args: Any,
        name: str | None = None,
        delay: Seconds | None = default(None),
        progress_log_interval: int | None = default(None),
        total_count: int | None = default(None),
        total: int | None = default(None),
        **kwargs: Any,
    ) -> DataStream[Any]:
        """Begins a stream with the records of a ``BatchFunction`` class, of any iterable or async iterable, such as an
        async generator, which runs on the job's event loop. ``None`` in a list is a record like others. A class of
        any other kind that has ``execute`` ends as a ``BatchFunction`` does, when that returns ``None`` or a
        ``StopSignal``. Without ``delay``, which is as for ``from_source``, it is read as fast as the next step takes
        the records. If the iterator has ``close``, as generators have, it is closed when the job is over; but an
        iterator made for ``with``, such as a file, is not. So it is with ``aclose`` and ``async with``. ``total``
        is how many records there will be, for the line of progress, where ``len`` does not tell that.

        >>> env = LocalEnvironment("numbers")
        >>> numbers = env.from_batch(range(3)).collect()
        >>> job = env.submit(autostop=True)
        >>> numbers
        [0, 1, 2]
        >>> async def pages():
        ...     for number in range(3):
        ...         yield f"page {number}"
        >>> env = LocalEnvironment("pages")
        >>> records = env.from_batch(pages()).collect()
        >>> job = env.submit(autostop=True)
        >>> records
        ['page 0', 'page 1', 'page 2']
        """
        given(kwargs, locals())
        pace = taken(kwargs, source)
        if is_function_class(source):
            name_too(source, name, args, kwargs)
            check_call(source, args, kwargs, _OPTIONS)
            check_not_async("from_batch", source, name)
            return self._source(BATCH, name or name_of(source), (source, args, kwargs), pace=pace)
        if not isinstance(source, (Iterable, AsyncIterable)):
            hint = ""
            if isinstance(source, BaseFunction):
                hint = f"; pass the class `{type(source).__name__}` and its arguments, not an object of it"
            elif callable(source):
                hint = f"; pass what `{name_of(source)}` returns, by calling it"
            raise TypeError(f"`from_batch` needs a BatchFunction class or an iterable, not {source!r}{hint}")
        check_none_left("from_batch", args, kwargs, _OPTIONS)
        _warn_of(source)
        return self._source(ITERABLE, name or "batch", (source, (), {}), pace=pace)

    @overload
    def from_collection(self, function: type[Executes], *args: Any, **kwargs: Any) -> DataStream[Any]: ...

    @overload
    def from_collection(self, function: Iterable[T] | AsyncIterable[T], **kwargs: Any) -> DataStream[T]: ...

    def from_collection(self, function: Any, *args: Any, **kwargs: Any) -> DataStream[Any]:
        """As ``from_batch``.

        >>> env = LocalEnvironment("numbers")
        >>> numbers = env.from_collection([1, 2]).collect()
        >>> job = env.submit(autostop=True)
        >>> numbers
        [1, 2]
        """
        return self.from_batch(function, *args, **kwargs)

    @overload
    def from_source(
        self, function: type[Executes], *args: Any, name: str | None = None, **kwargs: Any
    ) -> DataStream[Any]: ...

    @overload
    def from_source(
        self,
        function: Callable[[], AsyncIterator[T]],
        *,
        name: str | None = None,
        delay: Seconds | None = None,
        progress_log_interval: int | None = None,
        total_count: int | None = None,
        total: int | None = None,
    ) -> DataStream[T]: ...

    @overload
    def from_source(
        self,
        function: Callable[[], T | StopSignal | None],
        *,
        name: str | None = None,
        retry: int | Retry | None = None,
        delay: Seconds | None = None,
        progress_log_interval: int | None = None,
        total_count: int | None = None,
        total: int | None = None,
    ) -> DataStream[T]: ...

    def from_source(
        self,
        function: Any,
        *args: Any,
        name: str | None = None,
        retry: int | Retry | None = default(None),
        delay: Seconds | None = default(None),
        progress_log_interval: int | None = default(None),
        total_count: int | None = default(None),
        total: int | None = default(None),
        **kwargs: Any,
    ) -> DataStream[Any]:
        """Begins a stream with the records of a ``SourceFunction`` class, or of a callable that returns one at a time.

        An async generator function is called once, and its records are those it yields, on the job's event loop.

        The stream ends when a ``StopSignal`` is returned or a ``StopIteration`` is raised, or with the job. The class
        may be of any kind that has ``execute``; ``None`` means that there is no record just now.
        ``KafkaSourceFunction`` is ``from_kafka_source``.

        ``delay`` is how many seconds pass between two calls. Without it, the function is called as fast as the next
        step takes the records. ``progress_log_interval`` logs a line of level ``INFO`` each time so many records were
        read; ``total_count``, which that line and that of progress say too, is how many there will be; ``total`` is the
        same, unless the constructor of a class takes it. None of these is passed to such a constructor.

        ``retry``, a number of attempts or a ``Retry``, calls the function again when it raised. Attempts count from its
        last record on. The object stays the same, so a function reconnects in ``execute``. It must not skip a record
        that it could not read. A generator cannot go on after it has raised. So ``from_batch`` has no ``retry``, and a
        function that reads from a generator must make a new one.

        >>> lines = iter(["one", "two"])
        >>> env = LocalEnvironment("lines")
        >>> read = env.from_source(lambda: next(lines)).collect()
        >>> job = env.submit(autostop=True)
        >>> read
        ['one', 'two']
        """
        if function is KafkaSourceFunction:
            return self.from_kafka_source(*args, name=name, **kwargs)
        if isinstance(function, BaseFunction):
            raise TypeError(f"pass the class `{type(function).__name__}` and its arguments, not an object of it")
        if not callable(function):
            hint = "; for what can be gone through there is `from_batch`" if isinstance(function, Iterable) else ""
            raise TypeError(f"`from_source` needs a SourceFunction class or a callable, not {function!r}{hint}")
        if isgeneratorfunction(function):
            raise TypeError(
                f"`{name_of(function)}` is a generator function, and `from_source` calls it for each record; "
                f"use `from_batch({name_of(function)}())`"
            )
        given(kwargs, locals())
        takes_retry = isinstance(function, type) and "retry" in parameters(function)
        attempts = None if takes_retry else retried(kwargs.pop("retry", None))
        pace = taken(kwargs, function)
        if isinstance(function, type):
            name_too(function, name, args, kwargs)
            check_call(function, args, kwargs, _OPTIONS)
        else:
            check_none_left("from_source", args, kwargs, (*_OPTIONS, "retry"))
        if not isasyncgenfunction(function):
            check_not_async("from_source", function, name)
        elif attempts is not None:
            raise TypeError(f"`{name_of(function)}` is a generator, which cannot go on after it has raised: no `retry`")
        made = function, args, kwargs
        return self._source(SOURCE, name or name_of(function), made, policy=Policy(attempts), pace=pace)

    @_behind_class
    def from_kafka_source(
        self,
        bootstrap_servers: str | list[str],
        topic: str | list[str],
        group_id: str,
        auto_offset_reset: str = "latest",
        value_deserializer: Any = None,
        buffer_size: int = 10_000,
        max_poll_records: int = 500,
        *,
        until_end: bool = False,
        metadata: bool = True,
        enable_auto_commit: bool = True,
        connect_timeout: float = 10.0,
        parallelism: int = 1,
        name: str | None = None,
        on_error: OnError = "fail",
        retry: int | Retry | None = None,
        **kafka_config: Any,
    ) -> DataStream[Any]:
        """Begins an endless stream with the records of a Kafka topic, or of several.

        With ``until_end``, the stream ends where the partitions ended when the job started.

        **A record** is a ``dict`` of its ``value``, ``timestamp`` (milliseconds since 1970), ``topic``, ``partition``,
        ``offset`` and ``key`` (a ``str``, or ``bytes`` where it is not UTF-8); with ``metadata=False`` the value alone.
        ``value_deserializer`` makes the value: ``"json"`` (the default, of a text in UTF-8), ``"string"``, ``"bytes"``,
        or a function of ``bytes``. A missing value is ``None``, and the function is not called for it. If the function
        raises, ``on_error`` and ``retry`` apply, as for ``map``.

        **Where it begins**: at the group's committed offset. Without one, ``auto_offset_reset`` decides:
        ``"earliest"``, ``"latest"``, or ``"none"``, which fails the job. Each partition is read in order, by one of
        ``parallelism`` replicas. Jobs do not share the partitions of a group: each reads all of them.

        **Offsets** are committed once, when the job has succeeded and left nothing behind, by the call that waits for
        it: ``submit(autostop=True)``, ``wait``, ``stop``, or the program's end. After a failure, a cancel, a signal or
        a crash no offset is committed, and the next run reads the records again: none is lost, and some may come twice.
        So end an endless job by ``stop``, or by a signal with ``config={"on_signal": "finish"}``. If the commit fails,
        ``JobFailed`` is raised, with the report of a job that has succeeded. ``enable_auto_commit=False`` commits no
        offset.

        **Limits.** ``connect_timeout`` is how many seconds the source looks for a broker before the job fails. It
        fetches about ``buffer_size`` records of each partition ahead, but at most 16 MiB in each replica.
        ``max_poll_records`` is accepted because programs pass it; it has no effect.

        **Settings.** ``kafka_config`` takes other settings, spelt as in kafka-python or librdkafka, such as
        ``fetch_min_bytes=1`` or ``**{"fetch.min.bytes": 1}``. A setting that does not exist, or that the source sets
        itself, fails the job. Values are neither shown nor logged, because they may be secret, such as
        ``sasl_plain_password``. The client has no TLS.

        >>> from sage.testing import KafkaCluster
        >>> with KafkaCluster() as cluster:
        ...     servers = cluster.bootstrap_servers
        ...     with LocalEnvironment("write") as env:
        ...         stream = env.from_batch([{"n": 1}]).to_kafka(servers, "numbers")
        ...         job = env.submit(autostop=True)
        ...     with LocalEnvironment("read") as env:
        ...         records = env.from_kafka_source(servers, "numbers", "group", "earliest", until_end=True).collect()
        ...         job = env.submit(autostop=True)
        >>> [record["value"] for record in records]
        [{'n': 1}]
        """
        from ._kafka import deserializer, names, reset_of, servers_of, settings_of

        whole("`max_poll_records`", max_poll_records, 1, 1 << 31)
        if not isinstance(group_id, str) or not group_id:
            raise ValueError(f"`group_id` is a text that is not empty, not {group_id!r}")
        if taken(kafka_config):
            raise TypeError(
                "topics are read as fast as the next step takes their records: `from_kafka_source` has no `delay`, "
                "`progress_log_interval` or `total_count`"
            )
        topics = names("topic", topic)
        spec = Spec.KafkaSource(
            servers=servers_of(bootstrap_servers),
            topics=topics,
            group=group_id,
            reset=reset_of(auto_offset_reset),
            buffer_size=whole("`buffer_size`", buffer_size, 1, 10_000_000),
            connect_timeout=seconds("a timeout", connect_timeout, more=True),
            settings=settings_of(self.from_kafka_source, kafka_config),
            until_end=bool(until_end),
            metadata=bool(metadata),
            commits=bool(enable_auto_commit),
        )
        function = deserializer(value_deserializer, metadata)
        stream = self._source(KAFKA, name or f"kafka {', '.join(topics)}", NOTHING, spec, parallelism)
        if function is None:
            return stream
        name = f"{stream._step.name} {name_of(function)}"
        values: DataStream[Any] = stream.map(
            function, parallelism=parallelism, name=name, keep_none=True, on_error=on_error, retry=retry
        )
        return values._belongs(stream, "")

    def from_future(self, name: str, *, limit: int | None = None) -> DataStream[Any]:
        """Begins a stream that another one fills, by ``fill_future``: for records that go round in a loop.

        ``limit`` is how many records may wait to go round (default 1,000,000). One more fails the job.

        >>> env = LocalEnvironment("countdown")
        >>> again = env.from_future("again")
        >>> less = env.from_batch([3]).connect(again).map(lambda n: n - 1)
        >>> seen = less.collect()
        >>> less.filter(lambda n: n > 0).fill_future(again)
        >>> job = env.submit(autostop=True)
        >>> seen
        [2, 1, 0]
        """
        if limit is not None:
            limit = whole("`limit`", limit)
        return self._source(FUTURE, name, spec=Spec.Future(limit))


#: What the methods take beside a function and the arguments of its constructor.
_OPTIONS = ("name", "total", "delay", "progress_log_interval", "total_count")


def _warn_of(records: Any) -> None:
    """Warns of what can be gone through and is seldom meant to be, part by part."""
    if isinstance(records, (str, bytes, bytearray)):
        parts = "its letters" if isinstance(records, str) else "its bytes, as numbers"
        warn(
            f"`from_batch` of a {type(records).__name__} gives {parts}, one by one; pass `[…]` for one record, "
            "`from_text` or `from_jsonl` for a file, or `list(…)` if that is meant"
        )
    elif isinstance(records, dict):
        warn("`from_batch` of a dict gives its keys; pass `d.items()` or `[d]`, or `list(d)` if that is meant")
    elif hasattr(type(records), "__dataframe__"):
        warn(
            "`from_batch` of a data frame gives its columns; `from_dataframe` gives its rows; pass `list(df)` if the "
            "columns are meant"
        )
