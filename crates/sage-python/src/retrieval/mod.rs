//! The services and functions of `sage_services` as Python classes: what the package shows as `sage.services`.
//!
//! Invariants:
//!  1. What takes longer than converting its arguments runs detached from the interpreter: no method computes, reads a
//!     file or waits for a lock while attached.
//!  2. Whatever the engine's own would panic over is refused before, by an exception that names the argument.
//!
//! What the services do is said in `sage_services`; here are conversions only.

mod arguments;
mod chunker;
mod cite;
mod embedder;
mod evaluate;
mod files;
mod filter;
mod ingest;
mod metadata;
mod models;
mod passages;
mod records;
mod rows;
mod store;
mod store_errors;
mod vector;

pub(crate) use arguments::kind;
pub(crate) use chunker::Chunker;
pub(crate) use cite::{Citation, Citations, Sources};
pub(crate) use embedder::{Answer, Embedder};
pub(crate) use evaluate::{exact_match, ndcg_at, precision_at, recall_at, reciprocal_rank, rouge_l, token_f1};
pub(crate) use files::{DocumentText, Documents, documents, os_error, read_document};
pub(crate) use filter::{Field, Filter, field};
pub(crate) use ingest::{Ingest, Plan};
pub(crate) use metadata::{date, mapping, metadata, moment};
pub(crate) use models::{CrossEncoder, LlmEmbedder, MiniLmEmbedder, StaticEmbedder};
pub(crate) use passages::Passage;
pub(crate) use records::{Hit, Record, shown};
pub(crate) use rows::Row;
pub(crate) use store::VectorStore;
pub(crate) use store_errors::{
    OtherCollection, StoreClosed, StoreDamaged, StoreError, StoreFull, StoreLocked, StoreUnavailable, UnknownCollection,
};
pub(crate) use vector::{Vector, coordinates};
