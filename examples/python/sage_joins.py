"""Uses every class of functions that programs for SAGE have, to join orders with their payments.

Run it with ``python examples/python/sage_joins.py``.
"""

from collections.abc import Iterator
from typing import Any

from sage.common.core.functions.base_function import BaseFunction
from sage.common.core.functions.batch_function import BatchFunction
from sage.common.core.functions.comap_function import BaseCoMapFunction
from sage.common.core.functions.filter_function import FilterFunction
from sage.common.core.functions.flatmap_function import FlatMapFunction
from sage.common.core.functions.join_function import BaseJoinFunction
from sage.common.core.functions.keyby_function import KeyByFunction
from sage.common.core.functions.map_function import MapFunction
from sage.common.core.functions.sink_function import SinkFunction
from sage.common.core.functions.source_function import SourceFunction
from sage.common.utils.logging.custom_logger import CustomLogger
from sage.kernel.api.local_environment import LocalEnvironment
from sage.kernel.api.service.base_service import BaseService
from sage.kernel.runtime.communication.packet import StopSignal

Record = dict[str, Any]

ORDERS = ["anna: 2 apples, 1 pear", "ben: 3 pears", "carla: nothing"]
PAYMENTS: list[Record] = [{"customer": "anna", "paid": 105}, {"customer": "ben", "paid": 100}]


class Orders(BatchFunction):
    """Gives a line at a time; ``None`` ends the batch."""

    def __init__(self, lines: list[str]) -> None:
        self.lines: Iterator[str] = iter(lines)

    def execute(self) -> str | None:
        return next(self.lines, None)


class Payments(SourceFunction):
    """Gives a payment at a time; a ``StopSignal`` ends the source."""

    def __init__(self) -> None:
        self.left = list(PAYMENTS)

    def execute(self) -> Record | StopSignal:
        return self.left.pop(0) if self.left else StopSignal("no more payments")


class Items(FlatMapFunction):
    """Makes a record of each item, by ``self.collect``."""

    def execute(self, line: str) -> None:
        customer, _, items = line.partition(": ")
        for item in items.split(", "):
            count, _, fruit = item.partition(" ")
            if not fruit:
                self.logger.info("%s ordered nothing", customer)
                continue
            self.collect({"customer": customer, "count": int(count), "fruit": fruit.rstrip("s")})


class Priced(MapFunction):
    def execute(self, item: Record) -> Record:
        return {**item, "price": item["count"] * self.call_service("prices", item["fruit"])}


class Worth(FilterFunction):
    def execute(self, item: Record) -> bool:
        return bool(item["price"] > 0)


class Customer(KeyByFunction):
    def execute(self, record: Record) -> str:
        return str(record["customer"])


class Paid(BaseJoinFunction):
    """Keeps the payment of each customer, and what came before it; gives each item with its payment."""

    is_join = True

    def __init__(self) -> None:
        self.items: dict[str, list[Record]] = {}
        self.payments: dict[str, int] = {}

    def execute(self, payload: Record, key: str, tag: int) -> list[Record]:
        if tag == 0:
            if key not in self.payments:
                self.items.setdefault(key, []).append(payload)
                return []
            return [{**payload, "paid": self.payments[key]}]
        self.payments[key] = payload["paid"]
        return [{**item, "paid": payload["paid"]} for item in self.items.pop(key, [])]


class Told(BaseCoMapFunction):
    """Makes a sentence of what comes, in a way of its own for each stream."""

    def map0(self, item: Record) -> str:
        return f"{item['customer']} has paid for {item['count']} × {item['fruit']} ({item['price']})"

    def map1(self, payment: Record) -> str:
        return f"{payment['customer']} paid {payment['paid']}"


class Prices(BaseService):
    def setup(self) -> None:
        self.prices = {"apple": 30, "pear": 45}

    def process(self, fruit: str) -> int:
        return self.prices[fruit]


class Lines(SinkFunction):
    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def execute(self, line: str) -> None:
        self.lines.append(line)


def main() -> None:
    CustomLogger.disable_global_console_debug()
    functions = Orders, Payments, Items, Priced, Worth, Customer, Paid, Told, Lines
    assert all(issubclass(function, BaseFunction) for function in functions)
    env = LocalEnvironment("orders")
    env.register_service("prices", Prices)
    items = env.from_batch(Orders, ORDERS).flatmap(Items).map(Priced).filter(Worth)
    payments = env.from_source(Payments)
    paid = items.keyby(Customer).connect(payments.keyby(Customer)).join(Paid)
    lines: list[str] = []
    paid.connect(payments).comap(Told).sink(Lines, lines)
    env.submit(autostop=True)
    print("\n".join(sorted(lines)))


if __name__ == "__main__":
    main()
