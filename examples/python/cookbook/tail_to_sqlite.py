"""Follows a log file, and counts requests by minute and user in a SQLite database.

    python tail_to_sqlite.py ACCESS.log COUNTS.db

Each line is like `2026-11-27T21:05:09 ada GET /cart`. The program runs until it is stopped, by Ctrl-C say. The next run
goes on behind the last line that it counted, also if the log was rotated meanwhile.
"""

from __future__ import annotations

import sqlite3
import sys
from datetime import datetime

from sage import LocalEnvironment, Service, Skip

COUNT = """
insert into requests values (?, ?, 1)
on conflict (minute, user) do update set count = count + 1
"""


class Counts(Service):
    def __init__(self, path: str) -> None:
        self.path = path

    def setup(self) -> None:
        # The thread that calls is not the one that opens it; only one calls at a time.
        self.database = sqlite3.connect(self.path, check_same_thread=False)
        self.database.execute(
            "create table if not exists requests (minute text, user text, count integer, primary key (minute, user))"
        )

    def add(self, requests: list[tuple[str, str]]) -> None:
        """Counts them all, or none of them."""
        with self.database:
            self.database.executemany(COUNT, requests)

    def cleanup(self) -> None:
        self.database.close()


def request(line: str) -> tuple[str, str]:
    """The minute and the user of a line."""
    time, user, *_ = line.split()
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M"), user


def main() -> None:
    log, path = sys.argv[1:]
    with LocalEnvironment("requests", config={"on_signal": "finish"}) as env:
        counts = env.service("counts", Counts, (path,))
        lines = env.from_tail(log, offset_file=f"{path}.offset", from_start=True)
        requests = lines.map(request, on_error=Skip())
        requests.batch(500, within=1).sink(counts.add)
        env.submit(autostop=True)


if __name__ == "__main__":
    main()
