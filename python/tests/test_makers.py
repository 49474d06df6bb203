"""What makes the functions of a task is a value: another process makes them of it, knowing nothing of the pipeline."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import cloudpickle
import pytest

from sage import (
    DataStream,
    FlatMapFunction,
    LocalEnvironment,
    MapFunction,
    ProcessFunction,
    SourceFunction,
    StopSignal,
)
from sage._makers import Maker
from sage._plan import plan

#: What a worker does: makes what the makers say and lets each take its records. A service is whatever has ``call``.
WORKER = """
import pickle, sys
from sage._context import ServiceCalls

class Service:
    def __init__(self, name): self.name = name
    def call(self, method, args, kwargs, timeout): return self.name, method, *args
    def close(self): pass

def through(chain, records):
    for stage in chain.stages:
        out = []
        stage.run(iter(records), out)
        records = out if stage.kept is None else list(stage.kept())
    return records

answers = []
for maker, records in pickle.load(sys.stdin.buffer):
    calls = ServiceCalls(maker.job, {})
    calls.bind({name: Service(name) for name in maker.job.services}, "a job", None)
    made = maker.make(calls, 1, 2)
    answers.append(through(made, records) if hasattr(made, "stages") else list(made) if hasattr(made, "records") else
                   type(made).__name__)
    if not hasattr(made, "bridge"):
        made.close()
    else:
        made.begin_close(False), made.finish_close()
    calls.close()
assert "test_makers" not in sys.modules
sys.stdout.buffer.write(pickle.dumps(answers))
"""


def in_a_worker(work: list[tuple[Maker, list[Any]]]) -> list[Any]:
    """What another process makes of these makers, each of its records."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        sent = cloudpickle.dumps(work)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ran = subprocess.run([sys.executable, "-c", WORKER], input=sent, capture_output=True, timeout=60)
    assert ran.returncode == 0, ran.stderr.decode()
    answers: list[Any] = cloudpickle.loads(ran.stdout)
    return answers


def makers(env: LocalEnvironment) -> list[Maker]:
    return [step.make for step in plan(env._steps, env._context()) if isinstance(step.make, Maker)]


class Asking(MapFunction):
    def __init__(self, method: str) -> None:
        self._method = method
        self._place = self.ctx.replica, self.ctx.parallelism

    def execute(self, record: Any) -> Any:
        return self.name, self.logger.name, self._place, self.call_service("db", record, method=self._method)


class Twice(FlatMapFunction):
    def execute(self, record: int) -> None:
        self.collect(record)
        self.collect(record)


class Numbers(SourceFunction):
    def __init__(self) -> None:
        self._left = 3

    def execute(self) -> Any:
        self._left -= 1
        return StopSignal() if self._left < 0 else self._left


class Remembering(ProcessFunction):
    pass


def test_a_worker_makes_the_functions_of_a_chain_and_calls_services_by_their_names() -> None:
    env = LocalEnvironment("far")
    env.register_service("db", dict)
    much = list(range(200_000))
    offset = 100
    asked = env.from_batch(much).filter(lambda n: n % 2).flatmap(Twice).map(lambda n: n + offset)
    asked.map(Asking, "search", name="ask").collect()
    (chain,) = [maker for maker in makers(env) if len(maker.parts) > 1]
    sent = cloudpickle.dumps(chain)
    assert len(sent) < 20_000, "the records of the source do not come along"
    # Of its sink, which adds to a list of this process, the worker has a copy.
    chain = replace(chain, parts=chain.parts[:-1])
    (got,) = in_a_worker([(chain, [1, 2, 3])])
    assert got == [("ask", "sage.far.ask", (1, 2), ("db", "search", n)) for n in (101, 101, 103, 103)]


@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "whole"])
def test_states_and_what_comes_at_the_end_are_the_workers(keyed: bool) -> None:
    env = LocalEnvironment("states")
    stream: DataStream = env.from_batch([1, 2, 3])
    (stream.keyby(lambda n: n % 2).sum() if keyed else stream.fold(0, lambda a, b: a + b)).map(str).collect()
    chain = makers(env)[-1]
    chain = replace(chain, parts=chain.parts[:-1])
    (got,) = in_a_worker([(chain, [1, 2, 3])])
    assert got == (["(1, 4)", "(0, 2)"] if keyed else ["6"])


def test_sources_async_functions_and_functions_of_timers_are_made_elsewhere_as_well() -> None:
    async def later(n: int) -> int:
        return n

    env = LocalEnvironment("kinds")
    timed = env.from_source(Numbers).with_timestamps(float).map(later).map(abs, in_flight=2)
    timed.keyby(abs).process(Remembering).collect()
    made = in_a_worker([(maker, []) for maker in makers(env)])
    assert made[0] == [2, 1, 0]
    assert ["LoopRunner", "ThreadRunner", "Runner"] == [answer for answer in made if isinstance(answer, str)]
