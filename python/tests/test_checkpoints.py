"""The checkpoints of functions: states that new instances are given, and the files that show them."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from flaky import Counted, Numbers, Once, row, tolerant
from sage import JobFailed, LocalEnvironment, MapFunction


def checkpointed(folder: Path, interval: float, name: str = "kept") -> LocalEnvironment:
    kept = {"strategy": "checkpoint", "checkpoint_interval": interval, "checkpoint_dir": str(folder / "states")}
    return LocalEnvironment(name, {"fault_tolerance": kept})


class Sum(MapFunction):
    """The sum so far; raises once at each record that `once` says."""

    def __init__(self, once: Once, folder: Path | None = None) -> None:
        self.once, self.folder, self.kept = once, folder, {"total": 0, "seen": set()}

    def execute(self, n: int) -> Any:
        if self.folder is not None:
            self.once.calls += [path.read_text() for path in self.folder.glob("states/*")]
        self.once.check(n)
        self.kept["seen"].add(n)  # type: ignore[attr-defined]
        self.kept["total"] += n  # type: ignore[operator]
        return self.kept["total"]

    def get_state(self) -> dict[str, Any]:
        return self.kept

    def restore_state(self, state: dict[str, Any]) -> None:
        self.kept = state


class LaterSum(Sum):
    async def execute(self, n: int) -> Any:
        await asyncio.sleep(0)
        return super().execute(n)


WITH_STATE: dict[str, tuple[Any, dict[str, Any]]] = {
    "map": (Sum, {}),
    "async": (LaterSum, {"in_flight": 1}),
    "in flight": (Sum, {"in_flight": 1}),
}


@pytest.mark.parametrize("kind", WITH_STATE)
def test_the_state_is_restored_as_it_was_kept(kind: str, tmp_path: Path) -> None:
    function, options = WITH_STATE[kind]
    env, once = checkpointed(tmp_path, 0.0), Once(3, 3, 4)
    out = env.from_batch([1, 2, 3, 4]).map(function, once, name="sum", **options).collect()
    job = env.submit(autostop=True)
    assert out == [1, 3, 6, 10]
    (counted,) = [row for row in job.report.data["operators"] if row["restarts"]]
    assert (counted["restarts"], counted["state_lost"]) == (3, 0)
    assert not list((tmp_path / "states").iterdir()), "nobody needs the files of a job that succeeded"


@pytest.mark.parametrize("kind", WITH_STATE)
def test_what_came_since_the_last_checkpoint_is_lost_and_counted(kind: str, tmp_path: Path) -> None:
    function, options = WITH_STATE[kind]
    env, once = checkpointed(tmp_path, 3600.0), Once(4)
    out = env.from_batch([1, 2, 3, 4]).map(function, once, name="sum", **options).collect()
    job = env.submit(autostop=True)
    # The first state is kept behind the first record, the next would be an hour later.
    assert out == [1, 3, 6, 5]
    (counted,) = [row for row in job.report.data["operators"] if row["restarts"]]
    assert (counted["restarts"], counted["state_lost"]) == (1, 2)
    assert "restarted 1 time, and lost what 2 records had changed in its state" in str(job.report)


def test_a_restart_without_checkpoints_counts_what_is_lost_of_a_state() -> None:
    env, once = tolerant("plain"), Once(3)
    out = env.from_batch([1, 2, 3]).map(Sum, once, name="sum").collect()
    job = env.submit(autostop=True)
    assert out == [1, 3, 3] and row(job, "sum → collect")["state_lost"] == 2


@pytest.mark.parametrize("kind", WITH_STATE)
def test_the_file_is_whole_and_its_owners_only_and_no_later_run_reads_it(kind: str, tmp_path: Path) -> None:
    function, options = WITH_STATE[kind]
    once = Once(*[5] * 9)
    env = checkpointed(tmp_path, 0.0, "../a b")
    env.from_batch([1, 2, 5]).map(function, once, tmp_path, name="x/" * 200, **options).collect()
    with pytest.raises(JobFailed, match="bad 5"):
        env.submit(autostop=True)
    folder = tmp_path / "states"
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(file.name) < 120 and file.name.endswith("-0.json")
    told = json.loads(file.read_text())
    assert (told["environment"], told["function"], told["replica"]) == ("../a b", "x/" * 200, 0)
    assert told["records"] == 2 and told["state"] == {"total": 3, "seen": "{1, 2}"}
    # Whoever looked found one file that is whole.
    looks = [json.loads(look)["state"]["total"] for look in once.calls if isinstance(look, str)]
    assert looks == [1] + [3] * (len(looks) - 1)
    once.bad.clear()
    env = checkpointed(tmp_path, 0.0, "../a b")
    out = env.from_batch([1, 2, 5]).map(function, once, name="x/" * 200, **options).collect()
    env.submit(autostop=True)
    assert out == [1, 3, 8] and not list(folder.iterdir())


def test_several_calls_at_a_time_are_over_before_a_state_is_kept(tmp_path: Path) -> None:
    class Wide(MapFunction):
        inside = 0
        found: list[int] = []

        async def execute(self, n: int) -> int:
            type(self).inside += 1
            await asyncio.sleep(0.001)
            type(self).inside -= 1
            return n

        def get_state(self) -> dict[str, Any]:
            self.found.append(type(self).inside)
            return {}

        def restore_state(self, state: dict[str, Any]) -> None: ...

    env = checkpointed(tmp_path, 0.0)
    out = env.from_batch(range(20)).map(Wide, in_flight=4).collect()
    env.submit(autostop=True)
    assert out == list(range(20)) and Wide.found and not any(Wide.found)


class Odd(Sum):
    def __init__(self, once: Once, state: Any) -> None:
        super().__init__(once)
        self.state = state

    def get_state(self) -> Any:
        if isinstance(self.state, Exception):
            raise self.state
        return self.state


CYCLE: dict[str, Any] = {}
CYCLE["itself"] = CYCLE


@pytest.mark.parametrize("state", [None, [1], {"lock": threading.Lock()}, CYCLE, OSError("no state")])
@pytest.mark.parametrize("options", [{}, {"on_error": "skip"}, {"in_flight": 1}])
def test_a_state_that_cannot_be_kept_fails_the_job(state: Any, options: dict[str, Any], tmp_path: Path) -> None:
    env = checkpointed(tmp_path, 0.0)
    env.from_batch([1, 2]).map(Odd, Once(), state, name="odd", **options).collect()
    with pytest.raises(JobFailed, match="the state of `odd` cannot be kept as a checkpoint: "):
        env.submit(autostop=True)


def test_a_folder_that_cannot_be_is_told_with_the_function(tmp_path: Path) -> None:
    (tmp_path / "states").write_text("a file")
    env = checkpointed(tmp_path, 0.0)
    env.from_batch([1, 2]).map(Sum, Once(), name="sum").collect()
    with pytest.raises(JobFailed, match="the state of `sum` cannot be kept as a checkpoint: FileExistsError"):
        env.submit(autostop=True)


def test_a_state_that_could_not_be_restored_is_an_error_at_once(tmp_path: Path) -> None:
    class Half(MapFunction):
        def get_state(self) -> dict[str, Any]:
            return {}

    env = checkpointed(tmp_path, 0.0)
    env.from_batch([1, 2]).map(Half).collect()
    with pytest.raises(JobFailed, match="`Half` has `get_state` and no `restore_state`"):
        env.submit(autostop=True)


@pytest.mark.parametrize("kind", WITH_STATE)
@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_job_whose_function_cannot_be_made_anew_fails_whatever_its_step_says_of_records(
    kind: str, on_error: str, tmp_path: Path
) -> None:
    function, options = WITH_STATE[kind]

    class Lost(function):  # type: ignore[misc]
        def restore_state(self, state: dict[str, Any]) -> None:
            raise OSError("no state is there")

    env = checkpointed(tmp_path, 0.0)
    env.from_batch([1, 2, 3]).map(Lost, Once(2), on_error=on_error, **options).collect()
    with pytest.raises(JobFailed, match="no state is there") as failed:
        env.submit(autostop=True)
    assert isinstance(failed.value.__cause__, OSError)


class Kept(Numbers):
    def get_state(self) -> dict[str, Any]:
        return {"n": self.n}

    def restore_state(self, state: dict[str, Any]) -> None:
        self.n = state["n"]


def test_a_source_with_checkpoints_goes_on(tmp_path: Path) -> None:
    env, seen = checkpointed(tmp_path, 0.0), Counted()
    out = env.from_source(Kept, seen, delay=0.001).collect()
    job = env.submit(autostop=True)
    assert out == [1, 2, 3, 4, 5] and row(job, "Kept")["state_lost"] == 0
