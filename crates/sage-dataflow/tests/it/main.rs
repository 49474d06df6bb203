//! The engine's tests through its public interface, and its models.

mod contract;
mod layout;
mod leaks;
mod models;
mod pipelines;
mod probes;
mod signals;
