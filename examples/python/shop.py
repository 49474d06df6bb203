"""Event time: sales of a shop per quarter of an hour, visits as sessions, and views that led to an order in time.

    python examples/python/shop.py

Events come out of order, by up to ten minutes; those that come later are shown by themselves.
"""

from __future__ import annotations

from typing import Any

from sage import KeyContext, LocalEnvironment, ProcessFunction, Session, Timer, Tumbling

MINUTE = 60

# When, in seconds; who; what was done; which article.
EVENTS = [
    (1 * MINUTE, "ada", "view", "tea"),
    (2 * MINUTE, "bob", "view", "pot"),
    (4 * MINUTE, "ada", "order", "tea"),
    (3 * MINUTE, "bob", "view", "tea"),
    (16 * MINUTE, "cy", "order", "pot"),
    (18 * MINUTE, "bob", "order", "tea"),
    (12 * MINUTE, "cy", "view", "pot"),
    (50 * MINUTE, "ada", "view", "pot"),
    (49 * MINUTE, "ada", "order", "pot"),
]


class Undecided(ProcessFunction):
    """Reports each view that no order of the same visitor followed within twenty minutes."""

    def on_record(self, event: Any, key: KeyContext) -> None:
        when, _, what, article = event
        if what == "order":
            key.forget()
        else:
            key.state = article
            key.set_timer(when + 20 * MINUTE)

    def on_timer(self, timer: Timer, key: KeyContext) -> None:
        key.push(f"{key.key} looked at the {key.state} and did not order")
        key.forget()


def main() -> None:
    with LocalEnvironment("shop") as env:
        events = env.from_batch(EVENTS).with_timestamps(lambda event: event[0], out_of_order=10 * MINUTE)

        orders = events.filter(lambda event: event[2] == "order").keyby(lambda event: event[3], name="article")
        sold = orders.window(Tumbling(15 * MINUTE)).count().collect()

        visitors = events.keyby(lambda event: event[1], name="visitor")
        visits = visitors.window(Session(10 * MINUTE)).fold(list, lambda seen, event: [*seen, event[3]]).collect()
        undecided = visitors.process(Undecided).collect()

        def visit(event: Any) -> tuple[str, str]:
            return event[1], event[3]

        views = events.filter(lambda event: event[2] == "view", name="views").keyby(visit)
        bought = events.filter(lambda event: event[2] == "order", name="orders").keyby(visit)
        pairs = views.join(bought).window(Tumbling(30 * MINUTE)).left().collect()

        env.submit(autostop=True)

    for window in sorted(sold, key=lambda window: (window.start, window.key)):
        print(f"from minute {window.start // MINUTE:.0f}: {window.value} × {window.key}")
    for stay in sorted(visits, key=lambda stay: (stay.key, stay.start)):
        print(f"{stay.key} was there from minute {stay.start // MINUTE:.0f} on: {', '.join(stay.value)}")
    for line in sorted(undecided):
        print(line)
    led = sum(pair.right is not None for pair in pairs)
    print(f"{led} of {len(pairs)} views led to an order in the same half hour")


if __name__ == "__main__":
    main()
