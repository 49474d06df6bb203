"""Every scenario comes to the same in worker processes as on threads."""

from __future__ import annotations

from functools import partial

import pytest
from elsewhere import no_processes  # noqa: F401 (a fixture)
from scenarios import SCENARIOS, on_threads, run

from sage import LocalEnvironment

pytest.importorskip("cloudpickle")
pytestmark = pytest.mark.usefixtures("no_processes")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_comes_to_the_same_in_processes(name: str) -> None:
    assert run(SCENARIOS[name], partial(LocalEnvironment, workers="processes")) == on_threads(name)


def test_what_they_come_to_on_threads() -> None:
    """So that they do not come to nothing everywhere."""
    assert {name for name in SCENARIOS if on_threads(name).error} == {
        *(name for name in SCENARIOS if name.endswith(("fails", "in vain", "too many"))),
        "cancel", "cancel in drain", "deadline",
    }
    told = on_threads("map fails")
    assert told.error == "job `scenario` failed at operator `step`, record 6: Broken: at five"
    assert told.cause == "Broken: at five"
    seed = on_threads("the seed").log
    assert [line for line in seed if line.startswith("got")] == [f"got {3 * n + 300}" for n in range(1, 6)]
    assert seed[-1] == "db.cleanup" and seed.count("db.cleanup") == 1
    assert on_threads("nested").results == ["a", "ab", "aba", "abab", "ababa"]
    assert on_threads("awaited").results == [2 * n + 200 for n in range(12)]
    assert [record for record, *_ in on_threads("letters").letters] == [3, 10, 17, 24]
