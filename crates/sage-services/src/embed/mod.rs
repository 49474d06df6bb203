//! Texts to vectors: the trait [`Embedder`], and what implements it.
//!
//! Knows nothing of files of text, passages or stores.

#[cfg(feature = "minilm")]
mod bert;
mod embedder;
mod id;
mod lexical;
#[cfg(feature = "llm")]
mod llm;
mod method;
#[cfg(feature = "minilm")]
mod minilm;
#[cfg(feature = "static")]
mod model;
#[cfg(feature = "static")]
mod parallel;
#[cfg(feature = "minilm")]
mod product;
#[cfg(feature = "static")]
mod static_embedder;
#[cfg(feature = "static")]
mod tensors;
#[cfg(feature = "static")]
mod tokens;

pub use embedder::{EmbedError, Embedder};
pub use id::{EmbedderId, EmbedderMismatch};
pub use lexical::LexicalEmbedder;
#[cfg(feature = "llm")]
pub use llm::LlmEmbedder;
pub use method::{TextKind, embed_method};
#[cfg(feature = "minilm")]
pub use minilm::MiniLmEmbedder;
#[cfg(feature = "static")]
pub use model::ModelError;
#[cfg(feature = "static")]
pub use static_embedder::StaticEmbedder;

/// What a reranker is made of too.
#[cfg(feature = "minilm")]
pub(crate) mod inside {
    pub(crate) use super::bert::{Bert, BertConfig, Linear};
    pub(crate) use super::minilm::open_bert;
    pub(crate) use super::model::ModelFolder;
    pub(crate) use super::parallel::{in_parallel, processors};
    pub(crate) use super::tensors::Tensors;
    pub(crate) use super::tokens::Tokens;
}

/// Divides a vector by its length, unless that is 0.
#[cfg(any(feature = "static", feature = "llm"))]
fn to_length_one(vector: &mut [f32]) {
    // In double precision no square overflows.
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32;
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
}
