"""What a job says to `logging`: a line when it begins and one when it has ended."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

import pytest

from sage import BaseService, JobFailed, LocalEnvironment


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, str]]:
    return [each for each in caplog.record_tuples if each[0].startswith("sage")]


def test_a_line_says_that_a_job_has_begun_and_one_how_it_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    env = LocalEnvironment("orders")
    env.register_service("db", BaseService)
    env.from_batch([1, 0, 2]).map(lambda n: 1 / n, on_error="skip").collect()
    job = env.submit()
    job.wait()
    job.wait()
    assert job.report.outcome == "succeeded"
    (begin, end) = lines(caplog)
    assert begin == ("sage.orders", logging.INFO, f"job {job} has begun, with 3 steps and 1 service")
    assert end[:2] == ("sage.orders", logging.INFO)
    assert re.fullmatch(rf"job {job} has ended: orders 3/3 in 0:00 [\d,.]+/s failed 1", end[2]), end


def test_the_line_tells_of_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sage")
    env = LocalEnvironment("failing")
    env.from_batch([0]).map(lambda n: 1 / n).collect()
    with pytest.raises(JobFailed):
        env.submit(autostop=True)
    assert re.search(r"has ended: failing failed at [01]/1 in 0:00 .*failed 1$", lines(caplog)[-1][2])


@pytest.mark.parametrize(
    ("configured", "count"),
    [("", 0), ("logging.basicConfig(level=logging.INFO)", 2), ("logging.basicConfig()", 0)],
    ids=["not", "to INFO", "to WARNING"],
)
def test_nothing_is_printed_unless_the_program_asks_for_it(configured: str, count: int) -> None:
    program = f"""
import logging
{configured}
from sage import LocalEnvironment
env = LocalEnvironment("quiet")
env.from_batch([1]).collect()
env.submit(autostop=True)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (len(ran.stderr.splitlines()), ran.stdout) == (count, ""), ran.stderr
