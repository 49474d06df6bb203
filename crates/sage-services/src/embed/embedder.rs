//! [`Embedder`]: what every embedder can do.

use sage::{BoxError, HookContext, Service};

use super::id::EmbedderId;

/// A service that turns texts into vectors. Close vectors mean that their texts are about the same.
///
/// Any number of threads may share an embedder. A vector has length 1, unless the files of a model say otherwise; it is
/// all zeros if the embedder knows nothing in its text, such as in an empty one.
///
/// ```
/// use sage_services::{Embedder, LexicalEmbedder};
///
/// let embedder: Box<dyn Embedder> = Box::new(LexicalEmbedder::default());
/// let passages = embedder.embed_passages(&["Services stop in reverse order.", "Tea is hot."])?;
/// let query = embedder.embed_queries(&["When do services stop?"])?.remove(0);
/// let cosine = |passage: &[f32]| query.iter().zip(passage).map(|(x, y)| x * y).sum::<f32>();
/// assert!(cosine(&passages[0]) > cosine(&passages[1]));
/// # Ok::<(), sage_services::EmbedError>(())
/// ```
pub trait Embedder: Service {
    /// Which embedder this is. It does not change.
    fn id(&self) -> &EmbedderId;

    /// Turns passages, which are to be found, into vectors, in their order. Blocks until it has all of them.
    ///
    /// # Errors
    ///
    /// An [`EmbedError`] if one of the texts has no vector.
    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError>;

    /// Turns queries, for which passages are to be found, into vectors, in their order. Blocks until it has all of
    /// them. The same as [`embed_passages`](Self::embed_passages), unless the embedder says otherwise.
    ///
    /// # Errors
    ///
    /// As those of [`embed_passages`](Self::embed_passages).
    fn embed_queries(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embed_passages(texts)
    }
}

/// Why texts have no vectors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The model failed. The cause says how.
    #[error("{name} has made no vectors")]
    Failed {
        /// Name of the embedder.
        name: String,
        /// What the model says. A [`ServiceError`](sage::ServiceError) in it tells a policy what it means.
        source: BoxError,
    },
    /// A vector has another number of coordinates than the embedder's id says.
    #[error("{id} has made a vector of {found} dimensions")]
    DimensionMismatch {
        /// The embedder.
        id: EmbedderId,
        /// Dimensions of the vector.
        found: usize,
    },
}

impl EmbedError {
    #[cfg(any(feature = "static", feature = "llm"))]
    pub(crate) fn failed(id: &EmbedderId, error: impl Into<BoxError>) -> Self {
        Self::Failed { name: id.name().to_owned(), source: error.into() }
    }
}

/// An embedder that is chosen while the program runs.
impl Service for Box<dyn Embedder> {
    fn setup(&self, cx: &HookContext) -> Result<(), BoxError> {
        (**self).setup(cx)
    }

    fn health(&self) -> Result<(), BoxError> {
        (**self).health()
    }

    fn stop(&self, cx: &HookContext) -> Result<(), BoxError> {
        (**self).stop(cx)
    }

    fn cleanup(&self, cx: &HookContext) -> Result<(), BoxError> {
        (**self).cleanup(cx)
    }
}

impl Embedder for Box<dyn Embedder> {
    fn id(&self) -> &EmbedderId {
        (**self).id()
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        (**self).embed_passages(texts)
    }

    fn embed_queries(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        (**self).embed_queries(texts)
    }
}
