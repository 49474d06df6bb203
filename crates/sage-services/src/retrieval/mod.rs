//! What brings documents into a store, and what follows a search: the passages found are ordered, and one is quoted.

mod answer;
mod cite;
#[cfg(feature = "minilm")]
mod cross_encoder;
pub mod evaluate;
mod index;
mod ingest;
mod passage;
mod question;
mod rerank;

pub use answer::{Answer, Extractor};
pub use cite::{Citation, Citations, Sources};
#[cfg(feature = "minilm")]
pub use cross_encoder::CrossEncoder;
pub use index::{DocumentIndex, IndexError};
pub use ingest::{Ingest, Lookup, Plan};
pub use rerank::rerank;
