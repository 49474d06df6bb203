"""Every public class, function and method of the package has an example in its docstring, which does what it says.

The examples find the names of ``sage`` as if they had been imported; what they take from elsewhere they import. What is
written in Rust has examples in the docstrings of its classes: see ``test_retrieval.py``.
"""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

import sage
from sage import ops, testing
from sage._base_environment import BaseEnvironment
from sage._context import InJob
from sage._file_sinks import FileSinks
from sage._file_sources import FileSources
from sage._pipeline import Pipeline
from sage.integrations import opentelemetry, prometheus
from sage.ray import RayEnvironment
from sage.runtime import BaseScheduler

#: Public names, and the classes whose methods theirs inherit.
OWNERS = [getattr(sage, name) for name in sage.__all__ if name != "ops"]
OWNERS += [getattr(module, name) for module in (ops, testing, opentelemetry, prometheus) for name in module.__all__]
OWNERS += [Pipeline, BaseEnvironment, InJob, BaseScheduler, FileSources, FileSinks, RayEnvironment]

#: Whose methods need a job manager or a cluster that runs: the example of the class declares a job and does not submit
#: it. `test_remote_environment.py` and `ray_tests` run some.
REMOTE = (sage.RemoteEnvironment, RayEnvironment)

#: What has no example here, and why.
WITHOUT = {
    # Are raised, or returned by what has an example.
    **dict.fromkeys([sage.ServiceError, sage.ServiceRefused, sage.SubmitError], "written in Rust"),
    **dict.fromkeys([sage.WorkerLost, sage.ServiceFuture], "written in Rust"),
    # Are what an environment and its functions begin with.
    **dict.fromkeys([Pipeline, BaseEnvironment, InJob, FileSources, FileSinks], "a base that is not public"),
}

#: Methods that have none: a program overrides them, and the example of the class does; or they are not for programs.
OVERRIDDEN = {
    *("setup", "start", "stop", "cleanup", "on_record", "on_timer", "make_decision", "task_completed", "shutdown"),
    *("BaseCoMapFunction.execute", "BaseEnvironment.close", "BaseScheduler.decision_history", "FlatMapFunction.out"),
    "Report.told",
}

#: Methods whose examples need packages that are not here: `format_tests` run these.
ELSEWHERE = {"FileSources.from_parquet", "FileSources.from_arrow", "FileSources.from_dataframe", "FileSinks.to_parquet"}


def public() -> Iterator[tuple[str, Any]]:
    """The public objects with a docstring of ours, by their names."""
    for owner in dict.fromkeys(OWNERS):
        if owner not in WITHOUT:
            yield owner.__qualname__, owner
        has_methods = WITHOUT.get(owner) in (None, "a base that is not public") and owner not in REMOTE
        if inspect.isclass(owner) and has_methods:
            fields = getattr(owner, "_fields", ())
            for name, value in vars(owner).items():
                if not name.startswith("_") and name not in fields and is_method(value):
                    yield f"{owner.__qualname__}.{name}", value


def is_method(value: Any) -> bool:
    """Whether it is one of ours, or a property, and no other name of another one."""
    text = getattr(value, "__doc__", None)
    return hasattr(type(value), "__get__") and bool(text) and not text.startswith("As ")


PUBLIC = dict(public())


def examples_of(name: str) -> doctest.DocTest:
    names = {each: getattr(sage, each) for each in sage.__all__}
    text = inspect.getdoc(PUBLIC[name]) or ""
    return doctest.DocTestParser().get_doctest(text, {**names, "KafkaCluster": testing.KafkaCluster}, name, None, None)


def test_every_public_name_has_an_example() -> None:
    assert len(PUBLIC) > 150
    needed = [name for name in PUBLIC if OVERRIDDEN.isdisjoint([name, name.rpartition(".")[2]])]
    without = [name for name in needed if not examples_of(name).examples]
    assert without == []


@pytest.mark.parametrize("name", [name for name in PUBLIC if examples_of(name).examples and name not in ELSEWHERE])
def test_an_example_does_what_it_says(name: str) -> None:
    told: list[str] = []
    result = doctest.DocTestRunner().run(examples_of(name), out=told.append)
    assert result.failed == 0, "".join(told)
