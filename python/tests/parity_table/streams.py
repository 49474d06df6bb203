"""Streams: each method in a pipeline."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from sage import BaseCoMapFunction, BaseJoinFunction, MapFunction

from . import of, run, there

_FUNCTION = "function, *args, parallelism=1, **kwargs"


class Plus(MapFunction):
    def __init__(self, n: int, factor: int = 1) -> None:
        self.n, self.factor = n, factor

    def execute(self, record: int) -> int:
        return record * self.factor + self.n


class Tagged(BaseCoMapFunction):
    def map0(self, record: Any) -> Any:
        return 0, record

    def map1(self, record: Any) -> Any:
        return 1, record


class Joined(BaseJoinFunction):
    def execute(self, payload: Any, key: Any, tag: int) -> list[Any]:
        return [(tag, payload)]


@there(
    "DataStream",
    None,
    "sage.stream sage.stream.datastream sage.core.api.datastream sage.kernel.api.datastream sage",
)
def data_stream(DataStream: Any) -> None:
    def declared(env: Any) -> Any:
        stream = env.from_batch([1])
        assert isinstance(stream, DataStream)
        return stream

    assert run(declared) == [1]


@of("DataStream", "map", _FUNCTION)
def map_(_: Any) -> None:
    assert run(lambda env: env.from_batch([1, 2]).map(Plus, 1, factor=10, parallelism=None)) == [11, 21]


@of("DataStream", "filter", _FUNCTION)
def filter_(_: Any) -> None:
    assert run(lambda env: env.from_batch([1, 2]).filter(lambda n: n > 1)) == [2]


@of("DataStream", "flatmap", _FUNCTION)
def flatmap(_: Any) -> None:
    assert run(lambda env: env.from_batch([[1, 2], [], "ab"]).flatmap(lambda records: records)) == [1, 2, "ab"]


@of("DataStream", "keyby", 'function, *args, strategy="hash", parallelism=None, **kwargs')
def keyby(_: Any) -> None:
    assert run(lambda env: env.from_batch([1, 2]).keyby(lambda n: n % 1, "hash", parallelism=2).count()) == [(0, 2)]


@of("DataStream", "sink", _FUNCTION)
def sink(_: Any) -> None:
    seen: list[int] = []
    assert run(lambda env: env.from_batch([1]).sink(seen.append).map(Plus, 1)) == [2] and seen == [1]


@of("DataStream", "connect", "other")
def connect(_: Any) -> None:
    def connected(env: Any) -> Any:
        one, other, third = (env.from_batch([n]) for n in (1, 2, 3))
        return one.connect(other.connect(third)).map(Plus, 0)

    assert sorted(run(connected)) == [1, 2, 3]


@of("DataStream", "fill_future", "future_stream")
def fill_future(_: Any) -> None:
    def loop(env: Any) -> Any:
        again = env.from_future("again")
        steps = env.from_batch([1]).connect(again).map(Plus, 1)
        steps.filter(lambda n: n < 3).fill_future(again)
        return steps

    assert run(loop) == [2, 3]


@of("DataStream", "print", 'prefix="", separator=" | ", colored=False')
def print_(_: Any) -> None:
    with redirect_stdout(StringIO()) as printed:
        assert run(lambda env: env.from_batch([1]).print("p")) == [1]
    assert printed.getvalue() == "p | 1\n"


@there(
    "ConnectedStreams",
    None,
    "sage.stream sage.stream.connected_streams sage.core.api.connected_streams sage.kernel.api.connected_streams sage",
)
def connected_streams(ConnectedStreams: Any) -> None:
    def declared(env: Any) -> Any:
        streams = _pair(env)
        assert isinstance(streams, ConnectedStreams)
        return streams.map(Plus, 0)

    assert sorted(run(declared)) == [1, 2]


def _pair(env: Any) -> Any:
    return env.from_batch([1]).connect(env.from_batch([2]))


@of("ConnectedStreams", "map", "function, *args, **kwargs")
def connected_map(_: Any) -> None:
    assert sorted(run(lambda env: _pair(env).map(Plus, 1, parallelism=2))) == [2, 3]


@of("ConnectedStreams", "sink", "function, *args, **kwargs")
def connected_sink(_: Any) -> None:
    seen: list[int] = []
    assert sorted(run(lambda env: _pair(env).sink(seen.append).map(Plus, 0))) == [1, 2] and sorted(seen) == [1, 2]


@of("ConnectedStreams", "print", 'prefix="", separator=" | ", colored=False')
def connected_print(_: Any) -> None:
    with redirect_stdout(StringIO()) as printed:
        run(lambda env: _pair(env).print("p").map(Plus, 0))
    assert sorted(printed.getvalue().splitlines()) == ["p | 1", "p | 2"]


@of("ConnectedStreams", "connect", "other")
def connected_connect(_: Any) -> None:
    assert sorted(run(lambda env: _pair(env).connect(env.from_batch([3])).map(Plus, 0))) == [1, 2, 3]


@of("ConnectedStreams", "comap", _FUNCTION)
def comap(_: Any) -> None:
    assert sorted(run(lambda env: _pair(env).comap(Tagged))) == [(0, 1), (1, 2)]


@of("ConnectedStreams", "join", _FUNCTION)
def join(_: Any) -> None:
    assert sorted(run(lambda env: _pair(env).keyby([lambda n: n, lambda n: n - 1]).join(Joined))) == [(0, 1), (1, 2)]


@of("ConnectedStreams", "keyby", 'key_selector, strategy="hash"')
def connected_keyby(_: Any) -> None:
    keyed = lambda env: _pair(env).keyby(lambda n: n, "hash").comap(Tagged, parallelism=2)  # noqa: E731
    assert sorted(run(keyed)) == [(0, 1), (1, 2)]
