//! Stores of vectors.

mod memory;
mod scan;

pub use memory::{Hit, Record, StoreError, VectorStore};
