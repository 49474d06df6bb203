"""Reads files of Parquet, changes each row, and writes another one.

    python parquet_files.py "trips/*.parquet" OUT.parquet

The trips have the columns `driver`, `metres` and `seconds`. What is written has the speed in km/h as well. It prints
how far each driver went.
"""

from __future__ import annotations

import sys
from typing import Any

from sage import LocalEnvironment


def with_speed(trip: dict[str, Any]) -> dict[str, Any]:
    return {**trip, "speed": round(3.6 * trip["metres"] / trip["seconds"], 1)}


def main() -> None:
    trips, out = sys.argv[1:]
    with LocalEnvironment("trips") as env:
        moved = env.from_parquet(trips).filter(lambda trip: trip["seconds"] > 0)
        moved.map(with_speed).to_parquet(out)
        metres = moved.keyby(lambda trip: trip["driver"]).sum(lambda trip: trip["metres"]).collect()
        env.submit(autostop=True)
    for driver, total in sorted(metres):
        print(driver, total)


if __name__ == "__main__":
    main()
