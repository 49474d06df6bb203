"""The classes of functions."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from . import CORE, function_modules, of, run, there

_SOURCE = "sage.core.api.function sage.common.core.functions"


@there("BaseFunction", "*args, **kwargs", function_modules("base"))
def base(BaseFunction: Any) -> None:
    class Add(BaseFunction):
        def __init__(self, n: int) -> None:
            super().__init__("passed", on=True)
            self.n = n

        def execute(self, record: int) -> int:
            return record + self.n

    assert Add(2).execute(1) == 3
    assert run(lambda env: env.from_batch([1]).map(Add, 2)) == [3]


@there("MapFunction", "*args, **kwargs", function_modules("map"))
def map_(MapFunction: Any) -> None:
    class Half(MapFunction):
        def execute(self, n: int) -> int | None:
            return n // 2 if n % 2 == 0 else None

    assert run(lambda env: env.from_batch([1, 2, 3, 4]).map(Half)) == [1, 2]


@there("FilterFunction", "*args, **kwargs", function_modules("filter"))
def filter_(FilterFunction: Any) -> None:
    class Odd(FilterFunction):
        def execute(self, n: int) -> int:
            return n % 2

    assert run(lambda env: env.from_batch([1, 2, 3]).filter(Odd)) == [1, 3]


@there("FlatMapFunction", "*args, **kwargs", function_modules("flatmap"))
def flatmap(FlatMapFunction: Any) -> None:
    class Words(FlatMapFunction):
        def execute(self, line: str) -> list[str]:
            self.collect(line)
            self.out.collect(len(line))
            return line.split()

    assert run(lambda env: env.from_batch(["a b"]).flatmap(Words)) == ["a b", 3, "a", "b"]


@there("SinkFunction", "*args, **kwargs", function_modules("sink"))
def sink(SinkFunction: Any) -> None:
    seen: list[int] = []

    class Keep(SinkFunction):
        def execute(self, n: int) -> None:
            seen.append(n)

        def close(self) -> None:
            seen.append(-1)

    run(lambda env: env.from_batch([1, 2]).sink(Keep))
    assert seen == [1, 2, -1]


class _Counts:
    n = 0

    def execute(self, data: Any = None) -> int | None:
        self.n += 1
        return self.n if self.n < 3 else None


@there("SourceFunction", "*args, **kwargs", function_modules("source"))
def source(SourceFunction: Any) -> None:
    class Counts(_Counts, SourceFunction):
        pass

    assert run(lambda env: env.from_source(Counts).take(2)) == [1, 2]
    assert run(lambda env: env.from_batch(Counts)) == [1, 2]


@there("BatchFunction", "*args, **kwargs", function_modules("batch"))
def batch(BatchFunction: Any) -> None:
    class Counts(_Counts, BatchFunction):
        pass

    assert run(lambda env: env.from_batch(Counts)) == [1, 2]


@there("KeyByFunction", "*args, **kwargs", function_modules("keyby"))
def keyby(KeyByFunction: Any) -> None:
    class Length(KeyByFunction):
        def execute(self, word: str) -> int:
            return len(word)

    assert run(lambda env: env.from_batch(["a", "b", "cd"]).keyby(Length).count()) == [(1, 2), (2, 1)]


@of("KeyByFunction", "validate_key", "key")
@of("KeyByFunction", "extract_with_validation", "data")
def validated(KeyByFunction: Any) -> None:
    class Itself(KeyByFunction):
        def execute(self, record: Any) -> Any:
            return record

    assert Itself().validate_key(None) and not Itself().validate_key([])
    assert Itself().extract_with_validation(0) == Itself()(0) == 0
    with pytest.raises(ValueError, match="no hash"):
        Itself()([])


@of("FlatMapFunction", "collect", "record")
@of("FlatMapFunction", "insert_collector", "collector")
def inserted(FlatMapFunction: Any) -> None:
    from sage.foundation import Collector

    made, taker = FlatMapFunction(), Collector()
    made.insert_collector(taker)
    made.collect(1)
    made.out.collect(2)
    assert taker.get_collected_data() == [1, 2]


@there("BaseJoinFunction", "*args, **kwargs", function_modules("join"))
def join(BaseJoinFunction: Any) -> None:
    class Both(BaseJoinFunction):
        def execute(self, payload: Any, key: Any, tag: int) -> list[Any]:
            return [(payload, key, tag)]

    assert Both.is_join
    streams = lambda env: env.from_batch([1]).connect(env.from_batch(["1"])).keyby(int)  # noqa: E731
    assert sorted(run(lambda env: streams(env).join(Both)), key=str) == [("1", 1, 1), (1, 1, 0)]


@there("BaseCoMapFunction", "*args, **kwargs", function_modules("comap"))
def comap(BaseCoMapFunction: Any) -> None:
    class Both(BaseCoMapFunction):
        def map0(self, n: int) -> int:
            return -n

        def map1(self, n: int) -> int:
            return n

    assert Both.is_comap
    with pytest.raises(NotImplementedError, match="mapN methods"):
        Both().execute(1)
    assert sorted(run(lambda env: env.from_batch([1]).connect(env.from_batch([2])).comap(Both))) == [-1, 2]


@there("FutureFunction", "*args, **kwargs", function_modules("future"))
def future(FutureFunction: Any) -> None:
    assert "placeholder" in repr(FutureFunction())
    for call in ("execute", "call", "__call__"):
        with pytest.raises(RuntimeError, match="should not be called directly.*from_future"):
            getattr(FutureFunction(), call)(1)


@there(
    "SimpleBatchFunction",
    "records",
    "sage.core.api.function.simple_batch_function sage.common.core.functions.simple_batch_function "
    "sage.kernel.api.function.simple_batch_function",
)
def simple_batch(SimpleBatchFunction: Any) -> None:
    assert run(lambda env: env.from_batch(SimpleBatchFunction, [1, None, 2])) == [1, None, 2]


_KAFKA = "sage.libs.io_utils.source sage.libs.foundation.io.source sage.libs.foundation.io"


@there("KafkaSourceFunction", "*args, **kwargs", "sage.core.api.function.kafka_source")
@there("KafkaSource", "*args, **kwargs", _KAFKA)
def kafka(KafkaSourceFunction: Any) -> None:
    with pytest.raises(TypeError, match="pass `KafkaSourceFunction` to `from_source`"):
        KafkaSourceFunction()


@there(
    "Collector",
    "logger=None",
    "sage.core.api.function.flatmap_collector sage.common.core.functions.flatmap_collector "
    f"sage.common.core.functions sage.common.core sage.foundation {CORE}",
)
def collector(Collector: Any) -> None:
    made = Collector()
    made.collect(1)
    assert made.get_collected_data() == [1] and made.get_collected_count() == 1 and made.logger is None


@there(
    "wrap_lambda",
    "func, func_type=None",
    "sage.core.api.function.lambda_function sage.common.core.functions.lambda_function "
    f"{_SOURCE} sage.common.core sage.foundation {CORE}",
)
def wrapped(wrap_lambda: Any) -> None:
    from sage import FilterFunction, SourceFunction

    assert issubclass(wrap_lambda(bool, "filter"), FilterFunction) and wrap_lambda(len)().execute("ab") == 2
    assert issubclass(wrap_lambda(lambda: 1), SourceFunction) and pickle.loads(pickle.dumps(wrap_lambda)) is wrap_lambda
