"""The functions of a pipeline: base classes for functions written as classes, and how they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from ._arguments import said
from ._context import InJob
from ._keywords import spelt
from ._packet import StopSignal

#: What SAGE programs import of several modules.
__all__ = [
    *("BaseFunction", "BatchFunction", "FilterFunction", "FlatMapFunction", "KeyByFunction", "MapFunction"),
    *("BaseCoMapFunction", "BaseJoinFunction", "SinkFunction", "SourceFunction", "wrap_lambda"),
    *("Collector", "FutureFunction"),
]

#: What ``collect`` adds to where several records are worked on at a time, each in a context of its own.
COLLECTED: ContextVar[list[Any] | None] = ContextVar("collected", default=None)


class BaseFunction(InJob):
    """The base of all function classes: ``ctx``, ``logger`` and ``name``, and the methods to call services.

    The engine sets ``ctx`` before the constructor runs, so a constructor may call services too. A subclass need not
    call ``super().__init__()``.

    If a subclass has ``setup(context)``, it is called once, after the constructor, and ``teardown(context)`` once at
    the end, before ``close``, whatever happened. Methods of these names that take no context are the program's own.

    >>> class Scale(MapFunction):
    ...     def __init__(self, factor):
    ...         self.factor = factor
    ...     def execute(self, n):
    ...         return n * self.factor
    >>> env = LocalEnvironment("scaled")
    >>> scaled = env.from_batch([1, 2]).map(Scale, 10).collect()
    >>> job = env.submit(autostop=True)
    >>> scaled
    [10, 20]
    """

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Processes one record. Override it.

        >>> class Double(MapFunction):
        ...     def execute(self, n):
        ...         return 2 * n
        >>> Double().execute(4)
        8
        """
        raise NotImplementedError(f"{type(self).__name__} has no `execute`")

    def close(self) -> None:
        """Releases what the constructor acquired. Runs once, whatever happened.

        >>> class Numbered(MapFunction):
        ...     def __init__(self):
        ...         self.count = 0
        ...     def execute(self, line):
        ...         self.count += 1
        ...         return f"{self.count} {line}"
        ...     def close(self):
        ...         print("lines:", self.count)
        >>> env = LocalEnvironment("numbered")
        >>> lines = env.from_batch(["a", "b"]).map(Numbered).collect()
        >>> job = env.submit(autostop=True)
        lines: 2
        """


class MapFunction(BaseFunction):
    """Replaces each record by what ``execute(record)`` returns.

    >>> class Square(MapFunction):
    ...     def execute(self, n):
    ...         return n * n
    >>> env = LocalEnvironment("squares")
    >>> squares = env.from_batch([1, 2, 3]).map(Square).collect()
    >>> job = env.submit(autostop=True)
    >>> squares
    [1, 4, 9]
    """


class FilterFunction(BaseFunction):
    """Keeps the records for which ``execute(record)`` is true.

    >>> class Longer(FilterFunction):
    ...     def __init__(self, length):
    ...         self.length = length
    ...     def execute(self, word):
    ...         return len(word) > self.length
    >>> env = LocalEnvironment("long")
    >>> words = env.from_batch(["tea", "kettle"]).filter(Longer, 3).collect()
    >>> job = env.submit(autostop=True)
    >>> words
    ['kettle']
    """


class _Itself:
    """``self.out`` of a function that collects: the function. A program may assign another object."""

    def __get__(self, function: Any, _owner: Any = None) -> Any:
        return self if function is None else function


class FlatMapFunction(BaseFunction):
    """Replaces each record by the records that ``execute(record)`` passes to ``self.collect``, or to
    ``self.out.collect``, and those that it returns.

    >>> class Words(FlatMapFunction):
    ...     def execute(self, line):
    ...         for word in line.split():
    ...             self.collect(word)
    >>> env = LocalEnvironment("words")
    >>> words = env.from_batch(["good tea", "pot"]).flatmap(Words).collect()
    >>> job = env.submit(autostop=True)
    >>> words
    ['good', 'tea', 'pot']
    """

    out = _Itself()

    def collect(self, record: Any) -> None:
        """Emits a record.

        >>> class Twice(FlatMapFunction):
        ...     def execute(self, word):
        ...         self.collect(word)
        ...         self.collect(word)
        >>> env = LocalEnvironment("twice")
        >>> words = env.from_batch(["tea"]).flatmap(Twice).collect()
        >>> job = env.submit(autostop=True)
        >>> words
        ['tea', 'tea']
        """
        collected = COLLECTED.get()
        if collected is not None:
            collected.append(record)
            return
        self.__dict__.setdefault("_collected", []).append(record)

    def insert_collector(self, collector: Collector) -> None:
        """Has a collector of the program take what it collects: for a test of the function by itself.

        >>> from sage.foundation import Collector
        >>> class Words(FlatMapFunction):
        ...     def execute(self, line):
        ...         for word in line.split():
        ...             self.collect(word)
        >>> words, collector = Words(), Collector()
        >>> words.insert_collector(collector)
        >>> words.execute("good tea")
        >>> collector.get_collected_data()
        ['good', 'tea']
        """
        collector.logger = self.logger
        self.__dict__.update(out=collector, collect=collector.collect)


class Collector:
    """Takes what a ``FlatMapFunction`` collects: see ``FlatMapFunction.insert_collector``."""

    def __init__(self, logger: Any = None) -> None:
        self.logger = logger
        self._collected_data: list[Any] = []

    def collect(self, data: Any) -> None:
        """Takes a record."""
        self._collected_data.append(data)

    def get_collected_data(self) -> list[Any]:
        """The records so far."""
        return list(self._collected_data)

    def get_collected_count(self) -> int:
        """How many there are."""
        return len(self._collected_data)

    def clear(self) -> None:
        """Forgets them."""
        self._collected_data.clear()


class SinkFunction(BaseFunction):
    """Takes each record by ``execute(record)``.

    >>> class Total(SinkFunction):
    ...     def __init__(self):
    ...         self.total = 0
    ...     def execute(self, n):
    ...         self.total += n
    ...     def close(self):
    ...         print("total:", self.total)
    >>> env = LocalEnvironment("total")
    >>> stream = env.from_batch([1, 2, 3]).sink(Total)
    >>> job = env.submit(autostop=True)
    total: 6
    """


class Noting:
    """A function of the package's own that has something to tell the report when it is closed."""

    #: What the report is to tell.
    notes: list[str]


class SourceFunction(BaseFunction):
    """Makes a record each time ``execute()`` is called, until that returns a ``StopSignal`` or raises
    ``StopIteration``.

    How a function is used says what ``None`` is, whatever its class: in ``from_source`` it has nothing just now, in
    ``from_batch`` it has no more.

    >>> class Countdown(SourceFunction):
    ...     def __init__(self, start):
    ...         self.n = start
    ...     def execute(self):
    ...         if self.n == 0:
    ...             return StopSignal("countdown")
    ...         self.n -= 1
    ...         return self.n + 1
    >>> env = LocalEnvironment("countdown")
    >>> numbers = env.from_source(Countdown, 3).collect()
    >>> job = env.submit(autostop=True)
    >>> numbers
    [3, 2, 1]
    """


class BatchFunction(BaseFunction):
    """Makes a record each time ``execute()`` is called, until that returns ``None`` or a ``StopSignal``.

    In ``from_source``, ``None`` is nothing just now: see ``SourceFunction``.

    >>> class Numbers(BatchFunction):
    ...     def __init__(self, most):
    ...         self.n, self.most = 0, most
    ...     def execute(self):
    ...         self.n += 1
    ...         return self.n if self.n <= self.most else None
    >>> env = LocalEnvironment("numbers")
    >>> numbers = env.from_batch(Numbers, 3).collect()
    >>> job = env.submit(autostop=True)
    >>> numbers
    [1, 2, 3]
    """


class FromIterator(BaseFunction):
    """Gives what an iterator gives."""

    def __init__(self, records: Iterable[Any]) -> None:
        self._records: Iterator[Any] = iter(records)

    def execute(self) -> Any:
        """The next record."""
        try:
            return next(self._records, _END)
        except BaseException as exception:
            self._records = Raising(exception)
            raise


_END = StopSignal("end of the records")


class SimpleBatchFunction(FromIterator, BatchFunction):
    """Gives the records of an iterable; ``None`` is one like others."""

    _gives_none = True


class Raising:
    """Stands for an iterator that has raised: it raises again, where a generator would say that it is over."""

    def __init__(self, exception: BaseException) -> None:
        self._exception = exception

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        raise self._exception


class FutureFunction(BaseFunction):
    """Stands for a stream that another one fills: see ``from_future`` and ``fill_future``, which need no function."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Raises: a future stream gets its records from the stream that fills it."""
        raise RuntimeError(
            "a FutureFunction is a placeholder and should not be called directly: a future stream is made by "
            "`from_future` and filled by `fill_future`"
        )

    __call__ = call = execute

    def __repr__(self) -> str:
        return "FutureFunction(placeholder)"


class KafkaSourceFunction(SourceFunction):
    """A source of Kafka topics: ``env.from_source(KafkaSourceFunction, bootstrap_servers=…, topic=…, group_id=…)``.

    It stands for ``from_kafka_source`` and takes the same arguments: the engine reads the topics itself. So this class
    has no objects and no subclasses; process its records in a ``map`` behind it.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> KafkaSourceFunction:
        raise TypeError(
            "pass `KafkaSourceFunction` to `from_source`, with its arguments behind it, and make no object of it"
        )

    def __init_subclass__(cls) -> None:
        raise TypeError(
            f"`{cls.__name__}` cannot be a subclass of `KafkaSourceFunction`, whose topics the engine reads itself; "
            "use `value_deserializer`, or a `map` behind the source"
        )


class KeyByFunction(BaseFunction):
    """Gives the key of each record: the result of ``execute(record)``.

    >>> class First(KeyByFunction):
    ...     def execute(self, word):
    ...         return word[0]
    >>> env = LocalEnvironment("letters")
    >>> counts = env.from_batch(["tea", "pot", "tin"]).keyby(First).count().collect()
    >>> job = env.submit(autostop=True)
    >>> counts
    [('t', 2), ('p', 1)]
    """

    def validate_key(self, key: Any) -> bool:
        """Whether it can be a key, as it has a hash.

        >>> KeyByFunction().validate_key(("ada", 1)), KeyByFunction().validate_key(["ada"])
        (True, False)
        """
        try:
            hash(key)
        except TypeError:
            return False
        return True

    def extract_with_validation(self, data: Any) -> Any:
        """The key of a record. Raises ``ValueError`` for one that has no hash.

        >>> class First(KeyByFunction):
        ...     def execute(self, word):
        ...         return word[0]
        >>> First().extract_with_validation("tea")
        't'
        """
        key = self.execute(data)
        if not self.validate_key(key):
            raise ValueError(f"Invalid partition key of `{self.name}`, as it has no hash: {said(key)}")
        return key

    __call__ = extract_with_validation


class BaseCoMapFunction(BaseFunction):
    """Replaces each record of the connected stream number N by what ``mapN(record)`` returns.

    >>> class Name(BaseCoMapFunction):
    ...     def map0(self, order):
    ...         return f"order {order}"
    ...     def map1(self, payment):
    ...         return f"payment {payment}"
    >>> env = LocalEnvironment("shop")
    >>> told = env.from_batch([1]).connect(env.from_batch([2])).comap(Name).collect()
    >>> job = env.submit(autostop=True)
    >>> sorted(told)
    ['order 1', 'payment 2']
    """

    is_comap = True

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Raises: its methods are ``map0``, ``map1`` and so on."""
        raise NotImplementedError(f"`{type(self).__name__}` should have mapN methods, and its `execute` is not called")


class BaseJoinFunction(BaseFunction):
    """Joins two streams: ``execute(payload, key, tag)`` is called for each record of both, with the number of its
    stream as the tag, and returns a list of results. It keeps its own state for each key.

    >>> class Meet(BaseJoinFunction):
    ...     def __init__(self):
    ...         self.seen = {}
    ...     def execute(self, payload, key, tag):
    ...         there = self.seen.setdefault(key, [[], []])
    ...         there[tag].append(payload)
    ...         return [(payload, other) if tag == 0 else (other, payload) for other in there[1 - tag]]
    >>> env = LocalEnvironment("meet")
    >>> left, right = env.from_batch([1, 2]).keyby(abs), env.from_batch([-1, -3]).keyby(abs)
    >>> pairs = left.connect(right).join(Meet).collect()
    >>> job = env.submit(autostop=True)
    >>> pairs
    [(1, -1)]
    """

    is_join = True


#: What functions ``wrap_lambda`` makes, by their names.
_WRAPPED: dict[str, type[BaseFunction]] = {
    "map": MapFunction,
    "filter": FilterFunction,
    "flatmap": FlatMapFunction,
    "sink": SinkFunction,
    "source": SourceFunction,
    "keyby": KeyByFunction,
}


@spelt
def wrap_lambda(
    func: Callable[..., Any],
    func_type: str | type[BaseFunction] | None = None,
    *,
    base: type[BaseFunction] | None = None,
) -> type[BaseFunction]:
    """Makes a function class of a callable: its ``execute`` calls the function.

    ``func_type`` is ``"map"``, ``"filter"``, ``"flatmap"``, ``"sink"``, ``"source"`` or ``"keyby"``, or a class to make
    a subclass of, as is ``base``. Without either, the signature decides: a function without parameters is a source, one
    that is annotated to return ``bool`` a filter, a ``list[…]`` a flatmap, ``None`` a sink, and any other a map.

    Streams take callables directly; this is for programs that pass classes on.
    """
    if not callable(func):
        raise TypeError(f"`wrap_lambda` needs a callable, not {func!r}")
    wanted = base or func_type or _type_of(func)
    if isinstance(wanted, str):
        if wanted not in _WRAPPED:
            raise ValueError(f"`wrap_lambda` makes {', '.join(map(repr, _WRAPPED))}, not {wanted!r}")
        wanted = _WRAPPED[wanted]
    if not (isinstance(wanted, type) and issubclass(wanted, BaseFunction)):
        raise TypeError(f"`wrap_lambda` makes a subclass of a function class, not of {wanted!r}")
    name = getattr(func, "__name__", type(func).__name__)
    module = getattr(func, "__module__", None) or __name__
    return type(name, (wanted,), {"execute": staticmethod(func), "__module__": module, "__doc__": func.__doc__})


def _type_of(func: Callable[..., Any]) -> str:
    """What a function looks like by its signature."""
    try:
        signature = inspect.signature(func, eval_str=True)
    except Exception:
        return "map"  # it has none, or annotations that mean something else
    returns = signature.return_annotation
    if len(signature.parameters) != 1:
        return "map" if signature.parameters else "source"
    if returns is None or returns is bool:
        return "sink" if returns is None else "filter"
    return "flatmap" if getattr(returns, "__origin__", None) is list else "map"
