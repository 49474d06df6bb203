//! The engine's tests through its public interface, and its models.

#![expect(clippy::duplicate_mod, reason = "two models compile the gate, each with primitives of its own")]

mod asynchronous;
mod contract;
mod layout;
mod leaks;
mod mistakes;
mod models;
mod parity;
mod pipelines;
mod policies;
mod probes;
mod signals;
