//! A memory: what it keeps, recalls and erases, and what it does when things go wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod erasing;
mod exporting;
mod faults;
mod recalling;
mod scopes;
mod shared;
mod turns;
