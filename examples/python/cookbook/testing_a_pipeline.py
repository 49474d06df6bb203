"""How to test a pipeline: the pipeline is a function of a stream, and a test gives it records. Run it with pytest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from sage import DataStream, DeadLetterQueue, JobFailed, LocalEnvironment


class Prices:
    """The service in production. Its constructor would connect to a database."""

    def of(self, fruit: str) -> int:
        raise ConnectionError("the database is not for tests")


Order = dict[str, Any]
Bill = dict[str, Any]


def bills(orders: DataStream[Order], prices: Prices, failed: DeadLetterQueue) -> DataStream[Bill]:
    """The pipeline: what each order costs."""

    def bill(order: Order) -> Bill:
        return {"to": order["by"], "cents": order["count"] * prices.of(order["of"])}

    return orders.map(bill, retry=2, on_error=failed)


class FakePrices(Prices):
    """Stands for the service in tests, and can be made to fail."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures

    def of(self, fruit: str) -> int:
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("the database is away")
        return {"apples": 30, "pears": 45}[fruit]


def run(orders: Iterable[Order], failures: int = 0) -> tuple[list[Bill], list[Any], Any]:
    """Runs the pipeline over orders: the bills, the records that failed, and the report."""
    with LocalEnvironment("test") as env:
        failed = DeadLetterQueue()
        prices = env.service("prices", FakePrices, (failures,))
        billed = bills(env.from_batch(orders), prices, failed).collect()
        letters = failed.letters.collect()
        report = env.submit(autostop=True).report
    return billed, [letter.record for letter in letters], report


APPLES = {"by": "ada", "of": "apples", "count": 3}


def test_an_order_is_billed() -> None:
    billed, failed, report = run([APPLES])
    assert billed == [{"to": "ada", "cents": 90}] and failed == []
    assert report.services["prices"]["state"] == "cleaned"


def test_a_failure_is_tried_again() -> None:
    billed, failed, _ = run([APPLES], failures=1)
    assert len(billed) == 1 and failed == []


def test_an_order_for_what_we_do_not_sell_is_kept_aside() -> None:
    plums = {"by": "ben", "of": "plums", "count": 1}
    billed, failed, _ = run([plums, APPLES])
    assert len(billed) == 1 and failed == [plums]


def test_orders_that_cannot_be_read_fail_the_job() -> None:
    def broken() -> Iterable[Order]:
        yield APPLES
        raise OSError("the disk is gone")

    with pytest.raises(JobFailed, match="the disk is gone"):
        run(broken())
