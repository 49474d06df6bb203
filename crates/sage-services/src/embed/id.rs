//! [`EmbedderId`]: which embedder made a vector, and why two of them cannot be compared.

use std::fmt;
use std::sync::Arc;

/// How many characters of the hash are shown.
const SHOWN: usize = 12;

/// Identifies an embedder. Vectors can be compared if the ids of their embedders are equal.
///
/// ```
/// use sage_services::EmbedderId;
///
/// let id = EmbedderId::new("potion", 256).with_weights("5ca1ab1e".repeat(8));
/// assert_eq!(id.to_string(), "potion (256 dimensions, weights 5ca1ab1e5ca1)");
/// let refused = id.check(&EmbedderId::new("lexical-1", 1024)).unwrap_err();
/// assert_eq!(
///     refused.to_string(),
///     "the vectors were made by potion (256 dimensions, weights 5ca1ab1e5ca1), and cannot be compared with those of \
///      lexical-1 (1024 dimensions)"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EmbedderId {
    name: Arc<str>,
    dimensions: usize,
    weights: Option<Arc<str>>,
}

impl EmbedderId {
    /// An embedder without weights, or whose weights nobody here can see, by its name and the number of coordinates of
    /// its vectors.
    pub fn new(name: impl Into<Arc<str>>, dimensions: usize) -> Self {
        Self { name: name.into(), dimensions, weights: None }
    }

    /// Adds the hash of all that decides the vectors, such as weights and vocabulary: BLAKE3, in hexadecimal.
    #[must_use]
    pub fn with_weights(mut self, hash: impl Into<Arc<str>>) -> Self {
        self.weights = Some(hash.into());
        self
    }

    /// Sets another name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Name of the embedder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of coordinates of every vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Hash of the weights in hexadecimal; `None` for an embedder that has none, or does not show them.
    pub fn weights(&self) -> Option<&str> {
        self.weights.as_deref()
    }

    /// Checks that vectors of this embedder can be compared with those of `other`.
    ///
    /// # Errors
    ///
    /// [`EmbedderMismatch`], which names both, if anything of them differs.
    pub fn check(&self, other: &Self) -> Result<(), EmbedderMismatch> {
        if self == other {
            return Ok(());
        }
        Err(EmbedderMismatch { made_by: self.clone(), given: other.clone() })
    }
}

impl fmt::Display for EmbedderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} dimensions", self.name, self.dimensions)?;
        if let Some(weights) = &self.weights {
            write!(f, ", weights {}", weights.get(..SHOWN).unwrap_or(weights))?;
        }
        f.write_str(")")
    }
}

/// Vectors of two embedders were to be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the vectors were made by {made_by}, and cannot be compared with those of {given}")]
pub struct EmbedderMismatch {
    /// The embedder that made the vectors.
    pub made_by: EmbedderId,
    /// The other one.
    pub given: EmbedderId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedders_are_the_same_only_if_all_of_their_ids_is() {
        let id = EmbedderId::new("a", 8).with_weights("ab");
        id.check(&id.clone()).unwrap();
        for other in [
            EmbedderId::new("a", 8),
            EmbedderId::new("a", 8).with_weights("abc"),
            EmbedderId::new("a", 9).with_weights("ab"),
            EmbedderId::new("b", 8).with_weights("ab"),
        ] {
            let refused = id.check(&other).unwrap_err();
            assert!(refused.to_string().ends_with(&other.to_string()), "{refused}");
            assert_eq!((refused.made_by, refused.given), (id.clone(), other));
        }
    }
}
