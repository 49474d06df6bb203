//! A job without an end, as it runs in a container: SIGTERM is its end, and then it finishes its work and succeeds. Run
//! it with `cargo run -p sage-dataflow --example container`, and end it with Ctrl-C.

use std::time::Duration;

use sage::{BoxError, Deadlines, Environment, Next, RunError, SignalPolicy, Source, SourceContext};

/// Counts, as fast as it may.
struct Readings(u64);

impl Source for Readings {
    type Item = u64;

    fn next(&mut self, cx: &SourceContext) -> Result<Next<u64>, BoxError> {
        // A wait that a drain ends.
        if !cx.wait(Duration::from_millis(10)) {
            return Ok(Next::Idle);
        }
        self.0 += 1;
        Ok(Next::Record(self.0))
    }
}

fn main() -> Result<(), RunError> {
    // Kubernetes waits 30 s before it kills: less than that, with what comes before and after.
    let deadlines = Deadlines {
        drain: Duration::from_secs(15),
        cancel: Duration::from_secs(5),
        stop: Duration::from_secs(2),
        cleanup: Duration::from_secs(2),
        ..Deadlines::default()
    };
    let env = Environment::local("readings").signals(SignalPolicy::Finish).deadlines(deadlines);
    let readings = env.from_source(|_replica| Readings(0)).inspect(|n| println!("reading {n}"));
    readings.count().sink(|count| println!("{count} readings in all"));
    env.run()?;
    Ok(())
}
