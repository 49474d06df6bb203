"""Pipelines as services, with SAGE's names: a service with a bridge, and a pipeline that the bridge feeds."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from queue import Empty
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, MapFunction, SinkFunction, SourceFunction, StopSignal
from sage.kernel.api.service import PipelineBridge, PipelineRequest, PipelineService
from sage.kernel.api.service.pipeline_service import PipelineServiceSink, PipelineServiceSource


class Ask(MapFunction):
    """Calls the service `answers` with a number."""

    def execute(self, n: int) -> Any:
        try:
            return n, self.call_service("answers", {"n": n})["answer"]
        except (RuntimeError, TimeoutError) as error:
            return n, error


def square(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "answer": data["n"] ** 2}


def served(env: LocalEnvironment, *steps: Any, **options: Any) -> PipelineBridge:
    """Declares a pipeline of these maps, whose service is `answers`."""
    bridge = PipelineBridge()
    env.register_service("answers", PipelineService, bridge, **options)
    stream = env.from_source(PipelineServiceSource, bridge)
    for step in steps:
        stream = stream.map(step)
    stream.sink(PipelineServiceSink)
    return bridge


def test_a_program_written_for_sage_runs_and_ends_by_itself() -> None:
    class Rag(BaseService):
        """As programs wrote it: it submits and waits."""

        def __init__(self, bridge: PipelineBridge) -> None:
            super().__init__()
            self.bridge = bridge

        def process(self, question: str) -> Any:
            return self.bridge.submit({"question": question}).get(timeout=30)

        def stop(self) -> None:
            self.bridge.close()

    class Answer(MapFunction):
        def execute(self, data: dict[str, Any]) -> dict[str, Any]:
            data["answer"] = data["question"].upper()
            return data

    class Driver(MapFunction):
        def execute(self, question: str) -> Any:
            return self.call_service("rag", question)

    env = LocalEnvironment("rag")
    bridge = PipelineBridge()
    env.register_service("rag", Rag, bridge)
    env.from_source(PipelineServiceSource, bridge).map(Answer).sink(PipelineServiceSink)
    answers = env.from_batch([f"question {n}" for n in range(100)]).map(Driver, parallelism=3).collect()
    began = time.monotonic()
    env.submit(autostop=True)
    assert time.monotonic() - began < 20
    assert sorted(one["answer"] for one in answers) == sorted(f"QUESTION {n}" for n in range(100))
    assert all(set(one) == {"question", "answer"} for one in answers) and bridge.is_closed


def test_what_is_no_dict_comes_as_data() -> None:
    env = LocalEnvironment("data")
    bridge = PipelineBridge()
    env.register_service("answers", PipelineService, bridge)
    env.from_source(PipelineServiceSource, bridge).map(
        lambda data: {**data, "data": data["data"] + 1}
    ).sink(PipelineServiceSink)
    answers = env.from_batch([1, 2]).map(Call).collect()
    env.submit(autostop=True)
    assert answers == [{"data": 2}, {"data": 3}]


def test_a_step_may_take_the_record_as_a_request_and_answer_with_its_queue() -> None:
    def squared(data: Any) -> dict[str, Any]:
        return {"payload": {"answer": data.payload["n"] ** 2}, "response_queue": data.response_queue}

    env = LocalEnvironment("requests")
    served(env, squared)
    answers = env.from_batch([1, 2, 3]).map(Ask).collect()
    env.submit(autostop=True)
    assert answers == [(1, 1), (2, 4), (3, 9)]


class Call(MapFunction):
    def execute(self, record: Any) -> Any:
        return self.call_service("answers", record)


def drops(data: dict[str, Any]) -> Any:
    """Gives no record for odd numbers, leaves the caller out of one, and fails with another."""
    if data["n"] == 4:
        return {"answer": 4}
    if data["n"] == 6:
        raise ValueError("six")
    return None if data["n"] % 2 else data


def test_a_dropped_record_gives_its_caller_an_error_at_once() -> None:
    env = LocalEnvironment("drops")
    bridge = PipelineBridge()
    env.register_service("answers", PipelineService, bridge, request_timeout=60)
    stream = env.from_source(PipelineServiceSource, bridge).map(drops, on_error="skip")
    stream.map(lambda data: square(data) if "n" in data else data).sink(PipelineServiceSink, on_error="skip")
    answers = env.from_batch(range(8)).map(Ask).collect()
    began = time.monotonic()
    env.submit(autostop=True)
    assert time.monotonic() - began < 20
    told = dict(answers)
    assert (told[0], told[2]) == (0, 4)
    for n in (1, 3, 4, 5, 6, 7):
        assert isinstance(told[n], RuntimeError) and "dropped the record" in str(told[n]), n


def test_a_late_answer_is_a_timeout_and_a_closed_bridge_an_error() -> None:
    released = threading.Event()

    def wait(data: dict[str, Any]) -> dict[str, Any]:
        released.wait(30)
        return square(data)

    env = LocalEnvironment("late")
    bridge = served(env, wait, request_timeout=0.05)

    class Late(MapFunction):
        def execute(self, n: int) -> Any:
            with pytest.raises(TimeoutError, match="did not answer within 0.05 s"):
                self.call_service("answers", {"n": n})
            # Those that wait behind it are forgotten when their callers leave.
            with pytest.raises(TimeoutError):
                self.call_service("answers", {"n": n})
            assert bridge.next(timeout=0) is None
            released.set()
            assert self.call_service("answers", {"command": "shutdown"}) == {"status": "shutdown_ack"}
            with pytest.raises(RuntimeError, match="closed"):
                self.call_service("answers", {"n": n})
            with pytest.raises(ValueError, match="not None"):
                self.call_service("answers", None)
            return n

    done = env.from_batch([1]).map(Late).collect()
    env.submit(autostop=True)
    assert done == [1]


def test_a_drain_ends_it_after_those_that_call_it() -> None:
    env = LocalEnvironment("drained")
    served(env, square)
    seen: list[Any] = []
    numbers = iter(range(10**9))
    env.from_source(lambda: next(numbers)).map(Ask).sink(seen.append)
    env.submit()
    while len(seen) < 50:
        time.sleep(0.001)
    env.stop()
    assert all(answer == n * n for n, answer in seen), seen[-1]


def test_a_cancel_ends_every_call() -> None:
    held = threading.Event()
    released = threading.Event()

    def hold(data: dict[str, Any]) -> dict[str, Any]:
        held.set()
        released.wait(30)
        return data

    env = LocalEnvironment("cancelled")
    served(env, hold)
    for n in range(3):
        env.from_batch([n]).map(Call).sink(lambda _record: None)
    env.submit()
    assert held.wait(30)
    job = env._run.job if env._run is not None else None
    assert job is not None
    releaser = threading.Timer(0.2, released.set)
    releaser.start()
    with pytest.raises(JobFailed):
        job.cancel()
        env.wait()
    releaser.join()


def test_one_service_may_use_another_and_they_end_in_order() -> None:
    class Inner(MapFunction):
        def execute(self, data: dict[str, Any]) -> dict[str, Any]:
            return {**data, "answer": self.call_service("inner", {"n": data["n"]})["answer"] + 1}

    for order in ((0, 1), (1, 0)):
        env = LocalEnvironment("two")
        bridges = PipelineBridge(), PipelineBridge()
        for number in order:
            env.register_service(("answers", "inner")[number], PipelineService, bridges[number])
            stream = env.from_source(PipelineServiceSource, bridges[number])
            stream.map((Inner, square)[number]).sink(PipelineServiceSink)
        answers = env.from_batch(range(5)).map(Ask).collect()
        env.submit(autostop=True)
        assert answers == [(n, n * n + 1) for n in range(5)]


def test_a_pipeline_that_calls_itself_gets_an_error_at_once() -> None:
    class Itself(MapFunction):
        def execute(self, data: dict[str, Any]) -> dict[str, Any]:
            try:
                self.call_service("answers", {"n": 1})
            except RuntimeError as error:
                return {**data, "answer": str(error)}
            raise AssertionError("it called itself")

    env = LocalEnvironment("self")
    served(env, Itself, request_timeout=60)
    answers = env.from_batch([1]).map(Ask).collect()
    began = time.monotonic()
    env.submit(autostop=True)
    assert time.monotonic() - began < 20
    assert "would wait for itself, by answers → answers" in answers[0][1]


def test_a_bridge_that_a_program_has_written_serves_too() -> None:
    class Own:
        def __init__(self) -> None:
            self.requests: list[PipelineRequest] = []
            self.is_closed = False

        def submit(self, payload: Any) -> Any:
            from queue import Queue

            request = PipelineRequest(payload, Queue(maxsize=1))
            self.requests.append(request)
            return request.response_queue

        def next(self, timeout: float = 0.1) -> Any:
            if self.requests:
                return self.requests.pop(0)
            if self.is_closed:
                return StopSignal("closed")
            time.sleep(min(timeout, 0.01))
            return None

        def close(self) -> None:
            self.is_closed = True

    env = LocalEnvironment("own")
    bridge = Own()
    env.register_service("answers", PipelineService, bridge)
    env.from_source(PipelineServiceSource, bridge).map(square).sink(PipelineServiceSink)
    answers = env.from_batch([1, 2, 3]).map(Ask).collect()
    env.submit(autostop=True)
    assert answers == [(1, 1), (2, 4), (3, 9)] and bridge.is_closed


def test_a_bridge_gives_requests_in_their_order_and_ends() -> None:
    bridge = PipelineBridge()
    responses = [bridge.submit(n) for n in range(3)]
    taken = [bridge.next(timeout=0) for _ in range(3)]
    assert [request.payload for request in taken if isinstance(request, PipelineRequest)] == [0, 1, 2]
    assert bridge.next(timeout=0) is None
    with pytest.raises(Empty):
        responses[0].get(timeout=0.01)
    first = taken[0]
    assert isinstance(first, PipelineRequest)
    caller = first.response_queue
    assert copy.copy(caller) is caller and copy.deepcopy({"c": caller})["c"] is caller
    caller.put("a")
    caller.put("a second answer is ignored")
    assert responses[0].get(timeout=1) == "a" and responses[0].empty()
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(caller)
    del taken, first, caller
    with pytest.raises(RuntimeError, match="dropped the record"):
        responses[1].get(timeout=1)
    last = bridge.submit("last")
    bridge.close()
    bridge.close()
    with pytest.raises(RuntimeError, match="closed"):
        bridge.submit("late")
    assert isinstance(bridge.next(), PipelineRequest) and isinstance(bridge.next(), StopSignal)
    with pytest.raises(RuntimeError, match="dropped"):
        last.get(timeout=1)
    assert not pickle.loads(pickle.dumps(bridge)).is_closed


def test_the_time_that_a_call_may_take_is_shorter_in_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_TEST_MODE", raising=False)
    monkeypatch.delenv("SAGE_EXAMPLES_MODE", raising=False)
    assert PipelineService(PipelineBridge()).request_timeout == 30
    monkeypatch.setenv("SAGE_EXAMPLES_MODE", "test")
    assert PipelineService(PipelineBridge()).request_timeout == 5
    monkeypatch.setenv("SAGE_EXAMPLES_MODE", "other")
    monkeypatch.setenv("SAGE_TEST_MODE", "true")
    assert PipelineService(PipelineBridge()).request_timeout == 5
    assert PipelineService(PipelineBridge(), request_timeout=2).request_timeout == 2
    with pytest.raises(ValueError, match="request_timeout"):
        PipelineService(PipelineBridge(), request_timeout=0)


def test_sources_and_sinks_of_a_programs_own_work_with_a_bridge() -> None:
    """As in examples that have their own: they end by a request of their own."""

    class Source(SourceFunction):
        def __init__(self, bridge: PipelineBridge) -> None:
            self.bridge = bridge

        def execute(self) -> Any:
            request = self.bridge.next(timeout=0.05)
            if request is None or isinstance(request, StopSignal):
                return request
            return request

    class Sink(SinkFunction):
        def execute(self, request: PipelineRequest) -> None:
            request.response_queue.put({"answer": request.payload["n"] ** 2})

    class Last(MapFunction):
        def execute(self, record: Any) -> Any:
            if record[0] == 3:
                self.call_service("answers", {"command": "shutdown"})
            return record

    env = LocalEnvironment("own")
    bridge = PipelineBridge()
    env.register_service("answers", PipelineService, bridge)
    env.from_source(Source, bridge).sink(Sink)
    answers = env.from_batch([1, 2, 3]).map(Ask).map(Last).collect()
    env.submit(autostop=True)
    assert answers == [(1, 1), (2, 4), (3, 9)]
