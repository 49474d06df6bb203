//! What jobs tell, through the public interface.

#![expect(clippy::unwrap_used, reason = "a test may")]

mod report;
