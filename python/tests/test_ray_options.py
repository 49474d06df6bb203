"""What workers take of a Ray cluster, as far as it needs none: what is refused when it is said, and what nodes can
never give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sage import BaseService, LocalEnvironment
from sage.ray import RayEnvironment
from sage.ray._demands import Demand, refused


def identity(n: int) -> int:
    return n


BAD: list[tuple[Any, type[Exception], str]] = [
    ({"num_cpu": 1}, ValueError, "`num_cpus`"),
    ({"address": "auto"}, ValueError, "has no `address`"),
    ({"num_gpus": -1}, ValueError, "`num_gpus` of .* is not negative"),
    ({"num_gpus": 1.5}, ValueError, "`num_gpus` of .* is at most 1, or a whole number, not 1.5"),
    ({"memory": float("inf")}, ValueError, "`memory` of .* has an end"),
    ({"num_cpus": "1"}, TypeError, "`num_cpus` of .* is a number, not '1'"),
    ({"num_cpus": True}, TypeError, "`num_cpus` of .* is a number, not True"),
    ({"resources": ["tpu"]}, TypeError, "`resources` of .* is a mapping"),
    ({"resources": {"tpu": -1}}, ValueError, "`tpu` of .* is not negative"),
    ({"placement_group": "pack"}, ValueError, "one of PACK, SPREAD, STRICT_PACK, STRICT_SPREAD, not 'pack'"),
    ({"placement_group": "PACK", "scheduling_strategy": "SPREAD"}, ValueError, "either a `placement_group` or"),
    (1, TypeError, "is a mapping, not 1"),
]

SAYS: dict[str, Callable[[Any], Any]] = {
    "`ray` of `step`": lambda said: LocalEnvironment("e").from_batch([1]).map(identity, name="step", ray=said),
    "`ray` of service `db`": lambda said: LocalEnvironment("e").service("db", BaseService, isolated=True, ray=said),
}


@pytest.mark.parametrize("where", SAYS)
@pytest.mark.parametrize(("said", "kind", "why"), BAD)
def test_what_a_worker_cannot_take_is_refused_with_the_step_and_the_key(
    where: str, said: Any, kind: type[Exception], why: str
) -> None:
    with pytest.raises(kind, match=why) as raised:
        SAYS[where](said)
    assert where in str(raised.value)


def test_the_same_in_the_configuration() -> None:
    with pytest.raises(ValueError, match="`num_gpus` of `ray` of `config` is not negative"):
        RayEnvironment("e", {"ray": {"num_gpus": -1}})


def test_what_workers_take_is_for_workers_on_ray() -> None:
    env = LocalEnvironment("not on Ray")
    stream = env.from_batch([1])
    with pytest.raises(ValueError, match="`ray` is for workers of a Ray cluster, which `identity` has none of"):
        stream.map(identity, workers="processes", ray={})
    with pytest.raises(ValueError, match="`print` is a sink"):
        stream.sink(print, ray={})
    with pytest.raises(ValueError, match="`ray` is for a service in an actor of its own: add `isolated=True` to `db`"):
        env.service("db", BaseService, ray={"num_cpus": 1})
    records = stream.map(identity, ray={"num_gpus": 4}).collect()
    env.submit(autostop=True)
    assert records == [1], "elsewhere it has no effect"


def step(name: str, workers: int, **takes: Any) -> Demand:
    return Demand(name, name, False, workers, takes)


def service(name: str, **takes: Any) -> Demand:
    return Demand(name, name, True, 1, takes)


TWO_OF_FOUR = [{"CPU": 4.0}, {"CPU": 4.0}]
APART = {"num_cpus": 1, "placement_group": "STRICT_SPREAD"}
TOGETHER = {"num_cpus": 1, "placement_group": "STRICT_PACK"}

PLACED: list[tuple[list[Demand], list[dict[str, float]]]] = [
    ([step("f", 8, num_cpus=1)], TWO_OF_FOUR),
    ([step("f", 3, num_cpus=0.1)], [{"CPU": 0.3}]),
    ([step("f", 1000, num_cpus=0)], [{"CPU": 1}]),
    ([step("f", 1, num_cpus=3), step("g", 1, num_cpus=3), service("db", num_cpus=1)], TWO_OF_FOUR),
    ([step("f", 1, num_cpus=1), step("g", 1, num_cpus=2)], [{"CPU": 2.0}, {"CPU": 1.0}]),
    ([step("f", 2, **APART), step("g", 2, **TOGETHER)], [{"CPU": 3.0}, {"CPU": 1.0}]),
    ([step("f", 100, num_cpus=2), step("g", 100, num_cpus=3)], [{"CPU": 5.0 + n % 3} for n in range(90)]),
]


@pytest.mark.parametrize(("demands", "nodes"), PLACED)
def test_workers_that_have_places_are_not_refused(demands: list[Demand], nodes: list[dict[str, float]]) -> None:
    assert refused(demands, nodes) is None


NOT_PLACED: list[tuple[list[Demand], list[dict[str, float]], str]] = [
    ([step("f", 9, num_cpus=1)], TWO_OF_FOUR, "the 9 workers of `f` take CPU 9 at once"),
    ([service("db", num_gpus=1)], TWO_OF_FOUR, "service `db` takes GPU 1, which no node has"),
    (
        [step("f", 2, num_cpus=3), step("g", 1, num_cpus=2), service("db", num_cpus=1)],
        TWO_OF_FOUR,
        "the 2 workers of `f`, the worker of `g` and service `db` take CPU 9 at once",
    ),
    ([step("f", 2, num_cpus=2)], [{"CPU": 3.0}, {"CPU": 1.0}], "take CPU 2 each, and the nodes have room for 1"),
    (
        [step("f", 1, num_cpus=3), step("g", 1, num_cpus=3), step("h", 1, num_cpus=2)],
        TWO_OF_FOUR,
        "the worker of `h` take CPU 8 at once, and do not fit on the nodes together (CPU 4; CPU 4)",
    ),
    ([step("f", 2, **APART), step("g", 2, **TOGETHER)], [{"CPU": 2.0}, {"CPU": 2.0}], "do not fit on the nodes"),
    ([step("f", 5, **TOGETHER)], TWO_OF_FOUR, "the 5 workers of `f` take CPU 1 each on one node, which none has"),
    ([step("f", 3, **APART)], TWO_OF_FOUR, "take CPU 1 each on nodes of their own, and 2 of the nodes have that"),
    ([step("f", 1, num_cpus=0, placement_group="PACK")], TWO_OF_FOUR, "takes nothing, so it has no `placement_group`"),
]


@pytest.mark.parametrize(("demands", "nodes", "why"), NOT_PLACED)
def test_workers_that_have_no_places_are_told_what_they_take(
    demands: list[Demand], nodes: list[dict[str, float]], why: str
) -> None:
    assert why in str(refused(demands, nodes))
