"""What this engine is for: with ``autostop``, a service is cleaned when ``submit`` returns."""

from __future__ import annotations

import threading

from sage.common.core.functions import BatchFunction as LaterBatchFunction
from sage.core.api.function.batch_function import BatchFunction
from sage.core.api.function.sink_function import SinkFunction
from sage.core.api.local_environment import LocalEnvironment
from sage.core.api.service.base_service import BaseService
from sage.runtime import LocalEnvironment as LatestEnvironment

calls: list[str] = []


class Letters(BaseService):
    def __init__(self) -> None:
        self.is_running = False

    def setup(self) -> None:
        calls.append("initialised")

    def start(self) -> None:
        self.is_running = True

    def process(self, text: str) -> str:
        calls.append("used")
        return text.upper()

    def stop(self) -> None:
        self.is_running = False

    def cleanup(self) -> None:
        calls.append("cleaned, running" if self.is_running else "cleaned, not running")


class Five(BatchFunction):
    def __init__(self) -> None:
        self.left = 5

    def execute(self) -> str | None:
        if self.left == 0:
            return None
        self.left -= 1
        return "abcde"[4 - self.left]


class Ask(SinkFunction):
    def execute(self, letter: str) -> None:
        self.logger.debug("asking")
        calls.append(self.call_service("letters", letter))


def test_a_service_is_cleaned_when_submit_returns() -> None:
    calls.clear()
    env = LocalEnvironment("autostop")
    env.register_service("letters", Letters)
    env.from_batch(Five).sink(Ask)
    seen: list[bool] = []
    started, over = threading.Event(), threading.Event()

    def watch() -> None:
        started.set()
        while not over.is_set():
            seen.append(env.is_running)

    monitor = threading.Thread(target=watch)
    monitor.start()
    started.wait()
    env.submit(autostop=True)
    assert not env.is_running
    over.set()
    monitor.join()
    assert calls[0] == "initialised" and calls[-1] == "cleaned, not running"
    assert calls.count("used") == 5 and calls.count("cleaned, not running") == 1
    assert [call for call in calls if len(call) == 1] == list("ABCDE")


def test_the_three_eras_import_the_same() -> None:
    assert LatestEnvironment is LocalEnvironment and LaterBatchFunction is BatchFunction
