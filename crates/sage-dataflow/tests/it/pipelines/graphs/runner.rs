//! Tries random values, so many as are asked for, and tells how to make one that fails again.
//!
//! Each value has a seed of its own, so that the one that fails need not be waited for. What depends on the timing of
//! threads may take some runs to fail again.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};

use super::tree::{Shrunk, Smaller};

/// A number in an environment variable.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("`{name}` is a number, not `{text}`")))
}

/// Runs `test`, named `name`, on one in `share` of the graphs that are asked for.
pub(super) fn check<S>(name: &str, share: u64, strategy: S, test: impl Fn(S::Value) -> TestCaseResult)
where
    S: Strategy,
    S::Value: Smaller + Clone,
{
    let graphs = (variable("SAGE_GRAPHS").unwrap_or(1000) / share).max(1);
    let first = variable("SAGE_GRAPHS_SEED").unwrap_or_else(|| RandomState::new().hash_one(name));
    check_from(first, graphs, name, strategy, test);
}

/// Runs `test` on so many graphs, of this seed and those that follow.
pub(super) fn check_from<S>(first: u64, graphs: u64, name: &str, strategy: S, test: impl Fn(S::Value) -> TestCaseResult)
where
    S: Strategy,
    S::Value: Smaller + Clone,
{
    let strategy = Shrunk(strategy);
    for seed in (0..graphs).map(|graph| first.wrapping_add(graph)) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        // A graph that hangs takes its time limit for each smaller one that is tried.
        let config = Config {
            cases: 1,
            failure_persistence: None,
            max_shrink_iters: 2000,
            max_shrink_time: 60_000,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        if let Err(failure) = TestRunner::new_with_rng(config, rng).run(&strategy, &test) {
            panic!(
                "{failure}\nto run it again:\n    \
                 SAGE_GRAPHS_SEED={seed} SAGE_GRAPHS=1 cargo nextest run -p sage-dataflow {name}\n"
            );
        }
    }
}
