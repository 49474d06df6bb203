//! The policy of a service: what is done for every caller about a dependency that is slow, limited, paid or not there.
//!
//! A call goes through these layers, from the outside in: cache, deadline, fallback, retry, breaker, rate and cost,
//! concurrency, batch, timeout of the attempt. Each is off unless asked for.

#[cfg(test)]
mod tests;
mod time;
mod turn;
mod verdict;

use crate::sync;

pub use verdict::Verdict;
