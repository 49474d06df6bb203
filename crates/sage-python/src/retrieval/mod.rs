//! The services and functions of `sage_services` as Python classes: what the package shows as `sage.services`.
//!
//! Invariants:
//!  1. What takes longer than converting its arguments runs detached from the interpreter: no method computes, reads a
//!     file or waits for a lock while attached.
//!  2. Whatever the engine's own would panic over is refused before, by an exception that names the argument.
//!
//! What the services do is said in `sage_services`; here are conversions only.

mod arguments;
mod embedder;
mod files;
mod passages;
mod store;
mod vector;

pub(crate) use embedder::{Answer, Embedder};
pub(crate) use files::{DocumentText, Documents, documents, read_document};
pub(crate) use passages::{Chunker, Passage};
pub(crate) use store::{Hit, StoreFull, VectorStore};
pub(crate) use vector::Vector;
