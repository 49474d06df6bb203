//! [`Schema`]: what a collection is, whichever store keeps it.

use std::fmt;

use super::error::StoreError;
use crate::embed::EmbedderId;

/// How two vectors are compared. Whichever it is, a higher score is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Metric {
    /// The cosine of the angle between them, −1 to 1.
    #[default]
    Cosine,
    /// Their inner product.
    InnerProduct,
    /// The distance between them, as a negative number.
    Euclidean,
}

impl Metric {
    /// Its name, as collections record it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::InnerProduct => "inner product",
            Self::Euclidean => "euclidean",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a collection is: its name, the vectors it holds and how they compare.
///
/// A store that has a collection of this name already takes it up, if that was made with the same schema.
///
/// ```
/// use sage_services::store::{Metric, Schema};
///
/// let schema = Schema::new("passages", 384).metric(Metric::InnerProduct).with_text_search();
/// assert_eq!(schema.dimensions(), 384);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    pub(super) name: String,
    pub(super) dimensions: usize,
    pub(super) metric: Metric,
    pub(super) embedder: Option<String>,
    pub(super) text_search: bool,
    pub(super) must_exist: bool,
}

impl Schema {
    /// A collection of vectors with `dimensions` coordinates, 1 to 65,536, that compare by their [cosine](Metric). Its
    /// name has 3 to 255 ASCII letters, digits and `_`, begins with a letter, and does not end in `_`.
    pub fn new(name: impl Into<String>, dimensions: usize) -> Self {
        let (name, metric) = (name.into(), Metric::default());
        Self { name, dimensions, metric, embedder: None, text_search: false, must_exist: false }
    }

    /// A collection of the vectors that this embedder makes, which compare by their [cosine](Metric).
    pub fn made_by(name: impl Into<String>, embedder: &EmbedderId) -> Self {
        Self::new(name, embedder.dimensions()).embedder(embedder)
    }

    /// How vectors compare.
    #[must_use]
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = metric;
        self
    }

    /// What makes the vectors, as a text that tells it from all others. A collection that another has made is refused.
    #[must_use]
    pub fn embedder(mut self, embedder: impl fmt::Display) -> Self {
        self.embedder = Some(embedder.to_string());
        self
    }

    /// Texts are searched by their words, too. Only the embedded store can do that.
    #[must_use]
    pub fn with_text_search(mut self) -> Self {
        self.text_search = true;
        self
    }

    /// A collection that is not there is [unknown](StoreError::UnknownCollection), and not made.
    #[must_use]
    pub fn must_exist(mut self) -> Self {
        self.must_exist = true;
        self
    }

    /// The collection's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of coordinates of every vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// How vectors compare, as it was set.
    pub fn metric_used(&self) -> Metric {
        self.metric
    }

    /// What makes the vectors, if it was said.
    pub fn embedder_used(&self) -> Option<&str> {
        self.embedder.as_deref()
    }

    /// Whether texts are searched by their words.
    pub fn has_text_search(&self) -> bool {
        self.text_search
    }

    /// Whether a collection that is not there is not made.
    pub fn is_to_exist(&self) -> bool {
        self.must_exist
    }

    /// Checks that a collection that was found is the one that is meant. A driver calls it with what the store has
    /// recorded.
    ///
    /// # Errors
    /// [`StoreError::OtherCollection`].
    pub fn check_found(&self, dimensions: usize, metric: Metric, embedder: Option<&str>) -> Result<(), StoreError> {
        let other = |what, found: String, expected: String| {
            Err(StoreError::OtherCollection { collection: self.name.clone(), what, found, expected })
        };
        match (embedder, &self.embedder) {
            (Some(found), Some(expected)) if found != expected => other("embedder", found.to_owned(), expected.clone()),
            _ if dimensions != self.dimensions => {
                let made_by = embedder.map_or_else(String::new, |embedder| format!(" of {embedder}"));
                other("dimensions", format!("{dimensions}{made_by}"), self.dimensions.to_string())
            }
            _ if metric != self.metric => other("metric", metric.to_string(), self.metric.to_string()),
            _ => Ok(()),
        }
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        let name = self.name.as_bytes();
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let is_named = (3..=255).contains(&name.len())
            && name[0].is_ascii_alphabetic()
            && name.iter().all(is_plain)
            && !name.ends_with(b"_");
        if !is_named {
            return Err(StoreError::BadName { name: self.name.clone() });
        }
        if !(1..=65_536).contains(&self.dimensions) {
            return Err(StoreError::BadDimensions { dimensions: self.dimensions });
        }
        Ok(())
    }
}
