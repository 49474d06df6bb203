"""Two streams that become one, and one that becomes two."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import pytest

from sage import JobFailed, LocalEnvironment


def run(env: LocalEnvironment) -> None:
    env.submit(autostop=True)


def test_zip_pairs_by_order_and_ends_with_the_shorter() -> None:
    env = LocalEnvironment("zip")
    words = env.from_batch(["a", None, ["c"]])
    endless = env.from_source(itertools.count().__next__)
    pairs = words.zip(endless).collect()
    left = env.from_batch(range(5000)).map(lambda n: n + 1)
    right = env.from_batch(range(3000)).filter(lambda n: n % 2)
    shorter = left.zip(right).map(lambda pair: pair[0] - pair[1]).collect()
    nothing = env.from_batch([]).zip(env.from_batch([1])).collect()
    run(env)
    assert pairs == [("a", 0), (None, 1), (["c"], 2)]
    assert shorter == [n + 1 - (2 * n + 1) for n in range(1500)]
    assert nothing == []


def test_zip_of_one_stream_with_itself_and_with_what_became_of_it() -> None:
    env = LocalEnvironment("itself")
    numbers = env.from_batch(range(100))
    twice = numbers.zip(numbers).collect()
    squares = numbers.zip(numbers.map(lambda n: n * n)).collect()
    run(env)
    assert twice == [(n, n) for n in range(100)]
    assert squares == [(n, n * n) for n in range(100)]


def test_zip_fails_when_one_stream_is_too_far_ahead() -> None:
    env = LocalEnvironment("ahead")
    env.from_batch(range(100)).zip(env.from_source(lambda: None), max_ahead=10).collect()
    with pytest.raises(JobFailed, match="`zip`.*left stream is more than 10 records ahead.*`max_ahead`"):
        run(env)


def test_zips_that_cannot_be() -> None:
    stream = LocalEnvironment("mistakes").from_batch([1])
    with pytest.raises(TypeError, match="`zip` needs another stream"):
        stream.zip([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two environments"):
        stream.zip(LocalEnvironment("other").from_batch([1]))
    for ahead in (0, True, 1.5):
        with pytest.raises(ValueError, match="`max_ahead` is a whole number"):
            stream.zip(stream, max_ahead=ahead)  # type: ignore[arg-type]


class Held:
    """A record that can be watched."""


def test_zip_leaves_no_record_behind() -> None:
    records = [Held() for _ in range(50)]
    watched = [weakref.ref(record) for record in records]
    env = LocalEnvironment("held")
    seen = env.from_batch(records).zip(env.from_batch(range(20))).map(lambda pair: pair[1]).collect()
    run(env)
    assert seen == list(range(20))
    del records, env
    gc.collect()
    assert not any(record() for record in watched)
