"""From one Kafka topic to another: orders become bills.

    python kafka_topics.py [SERVERS]

Without SERVERS it makes a cluster in this process, with three orders in it, and reads to their end.
"""

from __future__ import annotations

import sys
from typing import Any

from sage import LocalEnvironment
from sage.testing import KafkaCluster

PRICES = {"tea": 450, "pot": 2900}


def bill(order: dict[str, Any]) -> dict[str, Any]:
    """What an order costs."""
    wanted = order["value"]
    return {"to": wanted["by"], "cents": wanted["count"] * PRICES[wanted["of"]], "offset": order["offset"]}


def bills(servers: str, until_end: bool) -> None:
    """Bills what was ordered. A signal ends the job as `stop` does: it succeeds, so its offsets are committed."""
    with LocalEnvironment("bills", config={"on_signal": "finish"}) as env:
        orders = env.from_kafka_source(servers, "orders", "billing", "earliest", until_end=until_end)
        billed = orders.map(bill, on_error="skip")
        billed.to_kafka(servers, "bills", key=lambda bill: bill["to"])
        env.submit(autostop=True)


def fill(servers: str) -> None:
    orders = [
        {"by": "ada", "of": "tea", "count": 2},
        {"by": "ben", "of": "cup", "count": 1},
        {"by": "cy", "of": "pot", "count": 1},
    ]
    with LocalEnvironment("fill") as env:
        env.from_batch(orders).to_kafka(servers, "orders")
        env.submit(autostop=True)


def show(servers: str) -> None:
    with LocalEnvironment("show") as env:
        bills = env.from_kafka_source(servers, "bills", "show", "earliest", until_end=True, metadata=False)
        told = bills.collect()
        env.submit(autostop=True)
    for billed in sorted(told, key=lambda billed: str(billed["to"])):
        print(billed["to"], billed["cents"])


def main() -> None:
    if len(sys.argv) > 1:
        bills(sys.argv[1], until_end=False)
        return
    with KafkaCluster() as cluster:
        cluster.create_topic("orders")
        cluster.create_topic("bills")
        fill(cluster.bootstrap_servers)
        bills(cluster.bootstrap_servers, until_end=True)
        show(cluster.bootstrap_servers)


if __name__ == "__main__":
    main()
