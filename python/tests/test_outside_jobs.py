"""Functions and services outside a job, as programs test their own classes."""

from __future__ import annotations

import logging
from typing import Any
from unittest.mock import Mock

import pytest

from sage import BaseService, FlatMapFunction, LocalEnvironment, MapFunction, SinkFunction
from sage.common.core.functions.flatmap_collector import Collector
from sage.libs.io_utils.sink import FileSink


class Lookup(MapFunction):
    def __init__(self, method: str = "search") -> None:
        self.method = method  # and no `super().__init__()`

    def execute(self, record: Any) -> Any:
        return self.call_service("db", record, method=self.method)


class Db(BaseService):
    def search(self, record: Any) -> Any:
        return self.name, self.call_service("disk", record, timeout=1.0)


class Loud(SinkFunction):
    def __init__(self) -> None:
        super().__init__()
        self._logger = logging.getLogger("loud")

    def execute(self, record: Any) -> None:
        self.logger.info("got %s", record)


@pytest.mark.parametrize(("kind", "context"), [(Lookup, "Runtime"), (Db, "Service")])
def test_one_that_is_made_by_hand_has_a_name_and_a_logger_and_no_services(kind: Any, context: str) -> None:
    made = kind()
    assert made.ctx is None and made.name == made.logger.name == kind.__name__
    for call in ("call_service", "call_service_async"):
        with pytest.raises(RuntimeError, match=f"{context} context not initialized: `{kind.__name__}` is in no job"):
            getattr(made, call)("db", 1)


@pytest.mark.parametrize("call", ["call_service", "call_service_async"])
def test_a_test_may_set_a_context_of_its_own_and_change_it(call: str) -> None:
    lookup = Lookup()
    for answer in ("one", "another"):
        lookup.ctx = Mock(**{f"{call}.return_value": answer})
        lookup.ctx.name = answer
        assert lookup.name == answer and lookup.logger is lookup.ctx.logger
        assert getattr(lookup, call)("db", 1, key="k") == answer
        getattr(lookup.ctx, call).assert_called_once_with("db", 1, key="k", timeout=None, method=None)
    lookup.execute(2)
    lookup.ctx.call_service.assert_called_with("db", 2, timeout=None, method="search")
    lookup.call_service = Mock(return_value="patched")  # type: ignore[method-assign]
    assert lookup.execute(3) == "patched"


def test_a_function_that_ran_by_hand_runs_in_a_job_as_well() -> None:
    seen: list[Any] = []

    class Disk:
        def process(self, record: Any) -> Any:
            return -record

    class Keep(SinkFunction):
        def execute(self, record: Any) -> None:
            seen.append((self.name, self.logger.name, record))
            assert "call_service" not in vars(self) and self.call_service is vars(self)["call_service"]

    env = LocalEnvironment("both")
    env.register_service("db", Db)
    env.register_service("disk", Disk)
    env.from_batch([1]).map(Lookup).sink(Keep)
    env.submit(autostop=True)
    assert seen == [("Keep", "sage.both.Keep", ("db", -1))]


def test_the_logger_that_a_constructor_assigns_is_used_in_a_job_and_outside(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Loud().execute(0)
        env = LocalEnvironment("loud job")
        env.from_batch([1]).sink(Loud)
        env.submit(autostop=True)
    assert [record.message for record in caplog.records if record.name == "loud"] == ["got 0", "got 1"]


def test_what_a_function_collects_by_hand_can_be_seen(tmp_path: Any) -> None:
    class Words(FlatMapFunction):
        def execute(self, line: str) -> None:
            for word in line.split():
                self.out.collect(word)

    words, collector = Words(), Collector()
    words.insert_collector(collector)
    words.execute("a b")
    words.collect("c")
    assert collector.get_collected_data() == ["a", "b", "c"] and collector.get_collected_count() == 3
    assert collector.logger is words.logger
    collector.clear()
    assert collector.get_collected_data() == []
    sink = FileSink(tmp_path / "out.txt")
    sink.execute("line")
    sink.close()
    assert (tmp_path / "out.txt").read_text() == "line\n"
