"""The functions of a pipeline: base classes for functions written as classes, and how they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from functools import cached_property, partial
from types import CodeType, FunctionType
from typing import Any

from ._arguments import said
from ._awaiting import check_hook
from ._context import Context, InJob
from ._keywords import spelt
from ._metronome import lock_of, releasing
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
    """Makes a record each time ``execute()`` is called, until that returns a ``StopSignal``.

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


#: A class with the arguments of its constructor, or a callable.
Made = tuple[Any, tuple[Any, ...], dict[str, Any]]


def constructed(
    cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: Context | None, kinds: Any = object
) -> Any:
    """Makes an object of a class of functions or services. If it is of these kinds, it has its context before its
    constructor runs."""
    new = cls.__new__
    made = new(cls) if new is object.__new__ else new(cls, *args, **kwargs)
    if isinstance(made, kinds):
        with suppress(AttributeError):  # a class with slots has no place for it
            made.ctx = context
    check_hook(f"{cls.__name__}.__init__", made.__init__(*args, **kwargs))
    return made


def is_function_class(function: Any) -> bool:
    """Whether it is a class of functions, of which each replica has an object: ours, or any that has ``execute``.
    Others, such as ``int``, are callables."""
    return isinstance(function, type) and (
        issubclass(function, BaseFunction) or callable(getattr(function, "execute", None))
    )


def is_async_iterable(records: Any) -> bool:
    """Whether it can be gone through by `async for` only."""
    kind = type(records)
    return hasattr(kind, "__aiter__") and not hasattr(kind, "__iter__")


def several(result: Any) -> list[Any]:
    """The records that the result of a flatmap is: those of an iterable; a text, bytes or any other object is one, and
    ``None`` is none."""
    if result is None:
        return []
    return [result] if isinstance(result, (str, bytes)) or not _is_iterable(result) else list(result)


def _is_iterable(result: Any) -> bool:
    kind = type(result)
    return getattr(kind, "__iter__", None) is not None or hasattr(kind, "__getitem__")


def asks_key(function: Any) -> bool:
    """Whether the code of a class of functions mentions ``get_key``, or the class says ``uses_key = True``. Only where
    a function asks for them do the keys of records come along."""
    if not (isinstance(function, type) and issubclass(function, BaseFunction)):
        return False
    if getattr(function, "uses_key", False):
        return True
    classes = [cls for cls in function.__mro__ if not cls.__module__.startswith(("sage._", "builtins"))]
    found = [value for cls in classes for value in vars(cls).values() if isinstance(value, _METHODS)]
    found += [getattr(value, name) for value in found for name in _WRAPS if hasattr(value, name)]
    return any(_mentions(getattr(value, "__code__", None)) for value in found)


#: What a class has its code in, and where of these the function is that was wrapped.
_METHODS = (FunctionType, staticmethod, classmethod, property, cached_property)
_WRAPS = ("__func__", "__wrapped__", "fget", "func")


def _mentions(code: Any) -> bool:
    if not isinstance(code, CodeType):
        return False
    return "get_key" in code.co_names or "get_key" in code.co_consts or any(map(_mentions, code.co_consts))


def called(made: Made, function: Any) -> Callable[..., Any]:
    """The callable of a replica's function that is called for each record."""
    call: Callable[..., Any] = function.execute if is_function_class(made[0]) else function
    return call


def instance(made: Made, context: Context) -> Any:
    """Makes the function of one replica: an object of the class, or the callable itself."""
    function, args, kwargs = made
    if not isinstance(function, type):
        return function
    made_instance = constructed(function, args, kwargs, context, BaseFunction)
    lock = lock_of(made_instance) if isinstance(made_instance, SinkFunction) else None
    if lock is not None:
        made_instance.__dict__["execute"] = releasing(made_instance.execute, lock)
    return made_instance


def hook(function: Any, name: str) -> Callable[[], Any] | None:
    """The method of this name of a function, with its context, if it has one that takes that."""
    method = getattr(function, name, None) if isinstance(function, BaseFunction) else None
    if not callable(method):
        return None
    try:
        inspect.signature(method).bind(function.ctx)
    except (TypeError, ValueError):
        return None
    return partial(method, function.ctx)


def endings(function: Any) -> list[tuple[str, Callable[[], Any]]]:
    """What is called of a function at its end, in this order, with the names of the methods."""
    calls = ("teardown", hook(function, "teardown")), ("close", getattr(function, "close", None))
    return [(name, call) for name, call in calls if callable(call)]


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
