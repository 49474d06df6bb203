"""Every scenario comes to the same on Ray as on threads."""

from __future__ import annotations

from typing import Any

import pytest
from scenarios import SCENARIOS, on_threads, run
from test_ray import cluster, nothing_left  # noqa: F401

from sage.ray import RayEnvironment


def on_ray(name: str, config: dict[str, Any]) -> RayEnvironment:
    return RayEnvironment(name, {**config, "ray": {"num_cpus": 0.5}})


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_comes_to_the_same_on_ray(name: str) -> None:
    assert run(SCENARIOS[name], on_ray) == on_threads(name)
