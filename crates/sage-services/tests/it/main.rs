//! Tests through the public interface.

#![expect(clippy::unwrap_used, reason = "in tests, also outside of their functions")]

mod evaluating;
mod loading;
