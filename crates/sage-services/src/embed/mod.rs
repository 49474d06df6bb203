//! Texts to vectors: the trait [`Embedder`], and what implements it.
//!
//! Knows nothing of files of text, passages or stores.

mod embedder;
mod id;
mod lexical;
mod method;

pub use embedder::{EmbedError, Embedder};
pub use id::{EmbedderId, EmbedderMismatch};
pub use lexical::LexicalEmbedder;
pub use method::{TextKind, embed_method};
