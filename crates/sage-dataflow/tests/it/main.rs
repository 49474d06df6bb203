//! The engine's tests through its public interface, and its models.

mod models;
