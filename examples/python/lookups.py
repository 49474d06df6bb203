"""Async functions, a service with a typed handle, retries and dead letters: prices from shops that answer
slowly, or not at all.

    python examples/python/lookups.py [FILE]

Orders that cannot be looked up go to FILE (default: lookups-failed.jsonl), a line each, and are read back from there.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sage import DeadLetterQueue, LocalEnvironment, Retry, Service, ops, read_letters

ORDERS = [f'{{"shop": "shop-{n % 5}", "article": "a{n}"}}' for n in range(40)] + [
    '{"shop": "shop-9", "article": "a40"}'
]


class Prices(Service):
    """Stands for a client of the shops' interface, with a connection that has to be closed."""

    def setup(self) -> None:
        self.attempts: dict[str, int] = {}
        self.open = True

    async def price(self, shop: str, article: str) -> int:
        """Asks a shop. The first request of a shop fails, and one of them is closed for good."""
        attempt = self.attempts[shop] = self.attempts.get(shop, 0) + 1
        await asyncio.sleep(0.002)
        if shop == "shop-9" or attempt == 1:
            raise ConnectionError(f"{shop} does not answer")
        return 10 * int(article[1:])

    def cleanup(self) -> None:
        self.open = False
        print("connection closed")


def main() -> None:
    failed = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("lookups-failed.jsonl")
    failed.unlink(missing_ok=True)
    with LocalEnvironment("lookups") as env:
        prices = env.service("prices", Prices)

        async def with_price(order: dict[str, str]) -> tuple[str, int]:
            return order["shop"], await prices.price(order["shop"], order["article"])

        parsed = env.from_batch(ORDERS).map(ops.parse_json())
        priced = parsed.map(
            with_price, in_flight=16, timeout=5.0, retry=Retry(3, first=0.01), on_error=DeadLetterQueue(failed)
        )
        totals = priced.keyby(lambda pair: pair[0]).fold(0, lambda total, pair: total + pair[1]).collect()
        env.submit(autostop=True)
    for shop, total in sorted(totals):
        print(f"{shop}: {total}")
    for letter in read_letters(failed):
        print(
            f"after {letter.attempts} attempts: {letter.record['article']} of {letter.record['shop']}: "
            f"{letter.errors[-1]}"
        )


if __name__ == "__main__":
    main()
