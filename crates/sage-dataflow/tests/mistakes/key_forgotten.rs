use std::time::Duration;

use sage::{Environment, OutOfOrder, Timestamp, Tumbling};

fn main() {
    let env = Environment::local("clicks");
    let clicks = env.from_iter([("a", 1), ("b", 2)]);
    let timed = clicks.with_timestamps(|click| Timestamp::from_millis(click.1), OutOfOrder::by(Duration::ZERO));
    timed.window(Tumbling::of(Duration::from_secs(1))).count().sink(|_| {});
}
