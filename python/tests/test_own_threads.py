"""The engine's threads are to a program what Python's own are: stacks, context variables, and tools that trace."""

from __future__ import annotations

import contextvars
import decimal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from sage import (
    BaseService,
    Count,
    KeyContext,
    LocalEnvironment,
    MapFunction,
    ProcessFunction,
    SourceFunction,
    StopSignal,
)

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="NOT SET")


def run(env: LocalEnvironment) -> None:
    env.submit(autostop=True)


class Seen:
    """Notes in which places of a program something was so, and on how many threads."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self.look = look
        self.found: dict[str, Any] = {}

    def __call__(self, where: str) -> None:
        self.found[where] = self.look()


def everywhere(env: LocalEnvironment, see: Callable[[str], None]) -> set[str]:
    """Declares functions of many kinds, which look. Returns where they do."""

    class Watched(BaseService):
        def __init__(self) -> None:
            see("constructor")

        def setup(self) -> None:
            see("setup")

        def stop(self) -> None:
            see("stop")

        def cleanup(self) -> None:
            see("cleanup")

        def call(self, n: int) -> int:
            see("call")
            return n

    class Calls(MapFunction):
        def __init__(self) -> None:
            see("opening")

        def execute(self, n: int) -> int:
            see("map")
            self.call_service("watched", n, method="call")
            result: int = self.call_service_async("watched", n, method="call").result()
            return result

        def close(self) -> None:
            see("closing")

    class Source(SourceFunction):
        def execute(self) -> Any:
            see("source")
            return StopSignal()

    class Process(ProcessFunction):
        def on_record(self, record: int, key: KeyContext) -> None:
            see("process")

    def noted(where: str, result: Any) -> Any:
        see(where)
        return result

    def generated() -> Iterator[int]:
        see("generator")
        yield 1

    env.service("watched", Watched)
    mapped = env.from_batch([1, 2]).map(Calls)
    mapped.sink(lambda n: see("sink"))
    mapped.map(lambda n: noted("skip", n), on_error="skip").collect()
    mapped.keyby(lambda n: noted("keyby", n), name="of").reduce(lambda a, b: a).collect()
    mapped.keyby(lambda n: 0).fold(lambda: noted("initial", 0), lambda a, b: noted("fold", a)).collect()
    mapped.keyby(lambda n: 0).window(Count(1)).sum(lambda n: noted("window", n)).collect()
    mapped.keyby(lambda n: 0).process(Process).collect()
    env.from_batch(generated()).collect()
    env.from_source(Source).collect()
    return {
        *("constructor", "setup", "stop", "cleanup", "call", "opening", "map", "closing", "source", "process", "sink"),
        *("skip", "keyby", "initial", "fold", "window", "generator"),
    }


def test_context_variables_of_the_submitter_are_seen_everywhere() -> None:
    token = TENANT.set("acme")
    try:
        env = LocalEnvironment("context")
        seen = Seen(TENANT.get)
        places = everywhere(env, seen)
        run(env)
        assert seen.found == dict.fromkeys(places, "acme")
        # As they are when the job is submitted.
        TENANT.set("other")
        run_again = LocalEnvironment("again")
        got = run_again.from_batch([1]).map(lambda n: TENANT.get()).collect()
        run(run_again)
        assert got == ["other"]
    finally:
        TENANT.reset(token)


def test_what_a_function_sets_in_its_context_stays_in_its_task() -> None:
    env = LocalEnvironment("own")

    def sets(n: int) -> str:
        before = TENANT.get()
        TENANT.set(f"{before}+{n}")
        return before

    # One task, and another one behind it.
    numbers = env.from_batch([1, 2, 3])
    one, other = numbers.map(sets).collect(), numbers.map(sets, parallelism=2).collect()
    run(env)
    assert one == ["NOT SET", "NOT SET+1", "NOT SET+1+2"]
    assert sorted(other)[0] == "NOT SET" and TENANT.get() == "NOT SET"


def test_the_decimal_context_of_the_submitter_is_seen_and_not_changed() -> None:
    def divides(n: int) -> str:
        text = str(decimal.Decimal(1) / n)
        decimal.getcontext().prec = 3
        return text

    with decimal.localcontext() as context:
        context.prec = 7
        env = LocalEnvironment("decimal")
        got = env.from_batch([3, 7]).map(divides).collect()
        run(env)
        assert got == ["0.3333333", "0.143"]
        assert decimal.getcontext().prec == 7


@pytest.mark.parametrize("kind", ["trace", "profile"])
def test_tools_that_trace_see_functions_on_all_threads(kind: str) -> None:
    seen: set[tuple[str, int]] = set()

    def hook(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_name == "see_here":
            seen.add((str(frame.f_locals.get("where")), frame.f_lineno))
        return hook

    def see_here(where: str) -> None:
        where = where[:]

    before = threading.gettrace() if kind == "trace" else threading.getprofile()
    setter: Any = threading.settrace if kind == "trace" else threading.setprofile
    setter(hook)
    try:
        env = LocalEnvironment("traced")
        places = everywhere(env, see_here)
        run(env)
    finally:
        setter(before)
    assert {where for where, _ in seen} == places
    # Lines too, and not only calls.
    assert len({line for _, line in seen}) == (2 if kind == "trace" else len({line for _, line in seen}))


def test_threads_that_asked_for_themselves_are_not_listed_when_their_job_is_over() -> None:
    before = set(threading.enumerate())
    for _ in range(2):
        env = LocalEnvironment("listed")
        seen = Seen(lambda: threading.current_thread().name)
        everywhere(env, seen)
        run(env)
        assert set(threading.enumerate()) == before


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_functions_may_call_themselves_as_deeply_as_on_a_thread_of_python() -> None:
    """``repr`` of a list takes the stack of the thread, and no other."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        # From 3.12 on, the interpreter itself bounds how deep its own functions go.
        depth = 16_000 if sys.version_info < (3, 12) else 2_000
        value = nested(depth)
        env = LocalEnvironment("deep")
        got = env.from_batch([value]).map(lambda record: len(repr(record))).collect()

        class Deep(BaseService):
            def size(self, record: Any) -> int:
                return len(repr(record))

            def setup(self) -> None:
                self.size(value)

        class Calls(MapFunction):
            def execute(self, record: Any) -> Any:
                return self.call_service_async("deep", record, method="size").result()

        env.register_service("deep", Deep)
        called = env.from_batch([value]).map(Calls).collect()
        run(env)
        assert got == called == [2 * depth + 2]
    finally:
        sys.setrecursionlimit(limit)


def test_a_size_of_stacks_that_the_program_has_chosen_is_taken() -> None:
    before = threading.stack_size(256 << 10)
    try:
        env = LocalEnvironment("small")
        got = env.from_batch([1]).map(stack_bytes).collect()
        run(env)
        assert got == [256 << 10]
    finally:
        threading.stack_size(before)


def stack_bytes(_record: int) -> int:
    """The size of the mapping that the stack of this thread lies in."""
    import ctypes

    libc = ctypes.CDLL(None)
    libc.pthread_self.restype = ctypes.c_ulong
    attributes = (ctypes.c_char * 64)()
    assert libc.pthread_getattr_np(ctypes.c_ulong(libc.pthread_self()), attributes) == 0
    size = ctypes.c_size_t()
    assert libc.pthread_attr_getstacksize(attributes, ctypes.byref(size)) == 0
    libc.pthread_attr_destroy(attributes)
    return size.value


def test_keys_may_be_nested_as_deeply_as_those_of_a_dict() -> None:
    key: Any = "k"
    for _ in range(20_000):
        key = (key,)
    env = LocalEnvironment("keys")
    counts = env.from_batch([1, 2]).keyby(lambda n: key).count().collect()
    spread = env.from_batch([1, 2]).keyby(lambda n: key).map(lambda n: n, parallelism=2).collect()
    windows = env.from_batch([1]).keyby(lambda n: frozenset([key])).window(Count(1)).count().collect()
    run(env)
    assert [count for _, count in counts] == [2] and sorted(spread) == [1, 2]
    assert [window.value for window in windows] == [1]
