//! Texts to vectors: the trait [`Embedder`], and what implements it.
//!
//! Knows nothing of files of text, passages or stores.

mod embedder;
mod id;
mod lexical;
mod method;
#[cfg(feature = "static")]
mod model;
#[cfg(feature = "static")]
mod parallel;
#[cfg(feature = "static")]
mod static_embedder;
#[cfg(feature = "static")]
mod tensors;
#[cfg(feature = "static")]
mod tokens;

pub use embedder::{EmbedError, Embedder};
pub use id::{EmbedderId, EmbedderMismatch};
pub use lexical::LexicalEmbedder;
pub use method::{TextKind, embed_method};
#[cfg(feature = "static")]
pub use model::ModelError;
#[cfg(feature = "static")]
pub use static_embedder::StaticEmbedder;
