use std::time::Duration;

use sage::{Environment, Tumbling};

fn main() {
    let env = Environment::local("clicks");
    let clicks = env.from_iter([("a", 1), ("b", 2)]).map(|click| click);
    let by_name = clicks.key_by(|click| click.0);
    by_name.window(Tumbling::of(Duration::from_secs(1))).count().sink(|_| {});
}
