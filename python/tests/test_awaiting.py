"""Coroutines and generators: awaited where that can be, refused by name where nobody would; hooks that are async."""

from __future__ import annotations

import asyncio
import functools
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from sage import (
    BaseCoMapFunction,
    BaseService,
    BatchFunction,
    JobFailed,
    LocalEnvironment,
    MapFunction,
    ProcessFunction,
    Retry,
    SinkFunction,
    SourceFunction,
    Tumbling,
)


@pytest.fixture(autouse=True)
def nothing_is_left_unawaited() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class Client:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send(self, record: Any, more: Any = None) -> Any:
        await asyncio.sleep(0)
        self.sent.append(record)
        return record


client = Client()


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


class Calls:
    def __call__(self, *args: Any) -> Any:
        return client.send(*args)


def mixed(record: int) -> Any:
    return client.send(record) if record > 2 else None


def written(record: int) -> Iterator[int]:
    client.sent.append(record)
    yield record


async def numbers(record: int) -> Any:
    yield record


class Class(MapFunction):
    def execute(self, record: int) -> Any:
        return client.send(record)


#: Functions whose results nobody awaits, which cannot be seen before they are called.
HIDDEN: dict[str, Any] = {
    "lambda": lambda *args: client.send(*args),
    "wrapped": wrapped(client.send),
    "object": Calls(),
    "class": Class,
    "async generator": lambda *args: numbers(1),
}


def refused(env: LocalEnvironment, name: str) -> None:
    with pytest.raises(JobFailed, match="and nothing") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, TypeError) and f"`{name}" in str(failed.value)


@pytest.mark.parametrize("options", [{}, {"on_error": "skip"}, {"retry": Retry(3, 0, 0)}, {"in_flight": 2}])
@pytest.mark.parametrize("function", HIDDEN)
@pytest.mark.parametrize("kind", ["map", "filter", "sink"])
def test_what_nobody_awaits_is_refused_by_name(kind: str, function: str, options: dict[str, Any]) -> None:
    env = LocalEnvironment("refused")
    stream = env.from_batch([1, 2, 3])
    if kind == "sink":
        stream.sink(HIDDEN[function], name="it", **options)
    else:
        getattr(stream, kind)(HIDDEN[function], name="it", **options).collect()
    refused(env, "it")


def test_also_where_only_some_results_are_to_be_awaited() -> None:
    for kind in ("sink", "map"):
        env = LocalEnvironment("mixed")
        stream = env.from_batch(range(100))
        if kind == "sink":
            stream.sink(mixed, name="it")
        else:
            stream.map(mixed, name="it").map(str, parallelism=2).collect()
        refused(env, "it")


def test_generators_that_nobody_goes_through_are_refused() -> None:
    for options in ({}, {"in_flight": 2}):
        env = LocalEnvironment("generator")
        env.from_batch([1]).sink(lambda record: written(record), name="it", **options)
        refused(env, "it")


HIDDEN_CALL = HIDDEN["lambda"]


@pytest.mark.parametrize(
    "declare",
    [
        lambda stream: stream.keyby(HIDDEN_CALL, name="it").reduce(max),
        lambda stream: stream.keyby(lambda n: 1).reduce(HIDDEN_CALL),
        lambda stream: stream.keyby(lambda n: 1).fold(0, HIDDEN_CALL),
        lambda stream: stream.keyby(lambda n: 1).sum(HIDDEN_CALL),
        lambda stream: stream.reduce(HIDDEN_CALL),
        lambda stream: stream.with_timestamps(HIDDEN_CALL, out_of_order=1),
        lambda stream: timed(stream).window(Tumbling(1)).reduce(HIDDEN_CALL),
        lambda stream: timed(stream).window(Tumbling(1)).apply(HIDDEN_CALL_4),
    ],
)
def test_what_gathers_refuses_as_well(declare: Any) -> None:
    env = LocalEnvironment("gathers")
    declare(env.from_batch([1, 2])).collect()
    refused(env, "")


def HIDDEN_CALL_4(key: Any, start: float, end: float, records: list[Any]) -> Any:
    return client.send(records)


def timed(stream: Any) -> Any:
    return stream.with_timestamps(lambda n: 0.0, out_of_order=1).keyby(lambda n: 1)


async def combine(one: Any, other: Any) -> Any:
    return one


@pytest.mark.parametrize(
    "declare",
    [
        lambda stream: stream.keyby(client.send),
        lambda stream: stream.split(client.send),
        lambda stream: stream.keyby(lambda n: 1).reduce(combine),
        lambda stream: stream.keyby(lambda n: 1).fold(0, combine),
        lambda stream: stream.keyby(lambda n: 1).sum(client.send),
        lambda stream: stream.keyby(lambda n: 1).top_k(1, client.send),
        lambda stream: stream.keyby(lambda n: 1).map_with_state(0, combine),
        lambda stream: stream.with_timestamps(client.send, out_of_order=1),
        lambda stream: timed(stream).window(Tumbling(1)).reduce(combine),
        lambda stream: timed(stream).window(Tumbling(1)).apply(numbers),
        lambda stream: stream._environment.from_source(client.send),
        lambda stream: stream._environment.from_batch(Batches),
        lambda stream: stream._environment.from_source(Sources),
    ],
)
def test_async_functions_are_refused_where_nothing_awaits_them(declare: Any) -> None:
    env = LocalEnvironment("declared")
    stream = env.from_batch([1])
    with pytest.raises(TypeError, match="async"):
        declare(stream)
    stream.collect()


class Batches(BatchFunction):
    async def execute(self) -> Any:
        return None


class Sources(SourceFunction):
    async def execute(self) -> Any:
        return None


def test_sources_refuse_what_nobody_awaits() -> None:
    env = LocalEnvironment("source")
    env.from_source(lambda: client.send(1), name="it").collect()
    refused(env, "it")


class Process(ProcessFunction):
    async def on_record(self, record: Any, key: Any) -> None:  # type: ignore[override]
        await asyncio.sleep(0)


class CoMap(BaseCoMapFunction):
    async def map0(self, record: Any) -> Any:
        return record

    async def map1(self, record: Any) -> Any:
        return record


def test_methods_of_function_classes_refuse_what_nobody_awaits() -> None:
    env = LocalEnvironment("process")
    env.from_batch([1]).keyby(lambda n: n).process(Process).collect()
    refused(env, "Process.on_record")
    env = LocalEnvironment("comap")
    env.from_batch([1]).connect(env.from_batch([2])).comap(CoMap).collect()
    refused(env, "CoMap")


async def keeps(record: int) -> bool:
    await asyncio.sleep(0)
    return record > 1


def test_what_is_seen_to_be_async_is_awaited() -> None:
    client.sent.clear()
    env = LocalEnvironment("awaited")

    class Send:
        async def __call__(self, record: int) -> Any:
            return await client.send(record)

    class Generate:
        async def __call__(self, record: int) -> Any:
            yield record
            yield -record

    stream = env.from_batch([1, 2])
    stream.sink(functools.partial(client.send, more=1))
    stream.sink(client.send)
    stream.sink(Send())
    kept = stream.filter(functools.partial(keeps)).flatmap(Generate()).collect()
    env.submit(autostop=True)
    assert sorted(client.sent) == [1, 1, 1, 2, 2, 2] and kept == [2, -2]


class Session:
    """A client that belongs to the loop that it was opened on."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.current_thread()
        self.is_open = True

    async def ask(self, record: int) -> int:
        assert asyncio.get_running_loop() is self.loop and self.is_open
        await asyncio.sleep(0.001)
        return record + 1

    async def close(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0.001)
        self.is_open = False


class Store(BaseService):
    session: Session

    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def setup(self) -> None:
        self.session = Session()
        self.task = asyncio.create_task(asyncio.sleep(3600))
        self.log.append("setup")

    async def start(self) -> None:
        self.log.append("start")

    async def stop(self) -> None:
        await asyncio.sleep(0)
        self.log.append("stop")

    async def cleanup(self) -> None:
        await self.session.close()
        self.log.append("cleanup")

    async def ask(self, record: int) -> int:
        return await self.session.ask(record)


@pytest.mark.parametrize("parallelism", [1, 3])
def test_async_hooks_share_the_loop_of_the_jobs_functions(parallelism: int) -> None:
    log: list[str] = []
    env = LocalEnvironment("hooks")
    store = env.service("store", Store, args=(log,))
    sessions: list[Session] = []

    async def ask(record: int) -> int:
        return int(await store.ask(record))

    class Twice(MapFunction):
        def __init__(self) -> None:
            sessions.append(Session())

        async def execute(self, record: int) -> int:
            return await sessions[-1].ask(record)

        async def close(self) -> None:  # type: ignore[override]
            await sessions[0].close()

    got = env.from_batch(range(20)).map(ask, parallelism=parallelism).map(Twice).collect()
    env.submit(autostop=True)
    assert sorted(got) == list(range(2, 22)) and log == ["setup", "start", "stop", "cleanup"]
    assert not sessions[0].is_open and not sessions[0].thread.is_alive() and sessions[0].loop.is_closed()


@pytest.mark.parametrize("hook", ["setup", "start", "stop", "cleanup"])
def test_an_async_hook_that_raises_fails_the_job(hook: str) -> None:
    async def raises(self: Any) -> None:
        await asyncio.sleep(0)
        raise ValueError("no database")

    env = LocalEnvironment("raises")
    env.register_service("db", type("Db", (BaseService,), {hook: raises}))
    env.from_batch([1]).collect()
    with pytest.raises(JobFailed, match="no database"):
        env.submit(autostop=True)


def test_an_async_hook_that_hangs_is_named() -> None:
    async def hangs(self: Any) -> None:
        await asyncio.sleep(3600)

    env = LocalEnvironment("hangs", config={"timeouts": {"cleanup": 0.2}})
    env.register_service("db", type("Db", (BaseService,), {"cleanup": hangs}))
    env.from_batch([1]).collect()
    with pytest.raises(JobFailed, match="await asyncio.sleep") as failed:
        env.submit(autostop=True)
    assert "service `db`" in str(failed.value.report)


class AsyncClose(SinkFunction):
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def execute(self, record: int) -> None:
        pass

    async def close(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.log.append("closed")


def test_an_async_close_is_awaited() -> None:
    log: list[str] = []
    env = LocalEnvironment("close")
    env.from_batch([1]).sink(AsyncClose, log)
    env.from_batch([1]).sink(AsyncClose, log, in_flight=2)
    env.submit(autostop=True)
    assert log == ["closed", "closed"]


def test_constructors_and_hooks_that_never_run_are_refused() -> None:
    async def constructor(self: Any) -> None:
        pass

    def generates(self: Any) -> Iterator[int]:
        yield 1

    env = LocalEnvironment("constructor")
    env.register_service("db", type("Db", (BaseService,), {"__init__": constructor}))
    env.from_batch([1]).collect()
    refused(env, "Db.__init__")
    env = LocalEnvironment("hook")
    env.register_service("db", type("Db", (BaseService,), {"setup": generates}))
    env.from_batch([1]).collect()
    refused(env, "Db.setup")
    env = LocalEnvironment("function")
    env.from_batch([1]).map(type("Made", (MapFunction,), {"__init__": constructor})).collect()
    refused(env, "Made.__init__")


#: How a job's own functions may come to wait for it.
WAITS: dict[str, Any] = {
    "job.wait": lambda env: env.job.wait(),
    "job.wait in time": lambda env: env.job.wait(3600),
    "job.report": lambda env: env.job.report,
    "wait": lambda env: env.wait(),
    "stop": lambda env: env.stop(),
    "close": lambda env: env.close(),
    "with": lambda env: env.__exit__(None, None, None),
}


@pytest.mark.parametrize("where", ["plain", "threads", "async", "to_thread", "source", "hook", "async hook", "service"])
@pytest.mark.parametrize("wait", WAITS)
def test_contract_04_a_job_that_waits_for_itself_gets_an_error_at_once(wait: str, where: str) -> None:
    env = LocalEnvironment("itself")
    submitted = threading.Event()

    def waits(*_: Any) -> None:
        assert submitted.wait(30)
        WAITS[wait](env)

    async def waits_async(*_: Any) -> None:
        waits()

    async def on_thread(_: int) -> None:
        await asyncio.to_thread(waits)

    class Db(BaseService):
        def process(self, record: int) -> None:
            waits()

        if where == "hook":
            cleanup = waits
        if where == "async hook":
            cleanup = waits_async

    class Ask(MapFunction):
        def execute(self, record: int) -> Any:
            return self.call_service_async("db", record).result()

    env.register_service("db", Db)
    stream = env.from_source(waits) if where == "source" else env.from_batch([1])
    if where == "service":
        stream = stream.map(Ask)
    functions = {"plain": waits, "async": waits_async, "to_thread": on_thread, "threads": waits}
    stream.sink(functions.get(where, lambda _: None), **({"in_flight": 2} if where == "threads" else {}))
    job = env.submit()
    submitted.set()
    with pytest.raises(JobFailed, match="would wait for itself"):
        job.wait()


def test_a_function_may_wait_for_another_job() -> None:
    def inner(record: int) -> list[int]:
        env = LocalEnvironment("inner")
        got = env.from_batch([record]).map(wrapped(abs)).collect()
        env.submit(autostop=True)
        return got

    env = LocalEnvironment("outer")
    got = env.from_batch([-1, -2]).map(inner, in_flight=2).map(lambda one: inner(one[0])).collect()
    env.submit(autostop=True)
    assert got == [[1], [2]]
