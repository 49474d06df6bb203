//! What goes into a store and what comes out: [`Record`], [`Search`], [`Hit`].

use std::collections::HashSet;

use super::error::StoreError;
use super::filter::Filter;
use super::schema::{Metric, Schema};
use super::value::{Metadata, Value};

/// The longest id, in bytes.
pub const MAX_ID_BYTES: usize = 512;
/// The most bytes of a record's text.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// The most values of a record's metadata.
pub const MAX_METADATA_VALUES: usize = 64;
/// The longest name of a value, in bytes.
pub const MAX_METADATA_NAME_BYTES: usize = 128;
/// The most results of a search. Milvus and Chroma bound theirs likewise.
pub const MAX_RESULTS: usize = 16_384;

/// What a store keeps.
///
/// ```
/// use sage_services::store::Record;
///
/// let record = Record::new("guide.md#0", vec![0.6, 0.8]).text("Services stop last.").with("path", "guide.md");
/// assert_eq!(record.metadata["path"], "guide.md".into());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What identifies it, 1 to 512 bytes: storing the same id again replaces it.
    pub id: String,
    /// A vector with the collection's dimensions.
    pub vector: Vec<f32>,
    /// Its text, which may be empty; up to 1 MiB.
    pub text: String,
    /// What else it says: up to 64 values.
    pub metadata: Metadata,
}

impl Record {
    /// A record without text and metadata.
    pub fn new(id: impl Into<String>, vector: Vec<f32>) -> Self {
        Self { id: id.into(), vector, text: String::new(), metadata: Metadata::new() }
    }

    /// Sets its text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Sets one of its values.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    fn check(&self, schema: &Schema) -> Result<(), StoreError> {
        check_id(&self.id)?;
        let refused = |why| StoreError::BadRecord { id: self.id.clone(), why };
        check_vector(schema, &self.vector).map_err(|why| why.of(&self.id))?;
        if self.text.len() > MAX_TEXT_BYTES {
            return Err(refused(format!("its text has {} bytes; {MAX_TEXT_BYTES} are taken", self.text.len())));
        }
        check_metadata(&self.metadata).map_err(refused)
    }
}

/// What is looked for.
///
/// ```
/// use sage_services::store::{Search, field};
///
/// let search = Search::vector(vec![0.6, 0.8], 5).filter(field("lang").equal("en")).min_score(0.2);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Search {
    /// How many are wanted, 1 to 16,384. As many come, unless fewer are there (and meet the filter).
    pub k: usize,
    /// What vectors are compared with.
    pub vector: Option<Vec<f32>>,
    /// What texts are compared with, by their words.
    pub text: Option<String>,
    /// Which records are looked at; all unless set.
    pub filter: Option<Filter>,
    /// What a place in the order by vectors counts, and one in the order by words, where both are asked for; 1 and 1
    /// unless set.
    pub weights: (f32, f32),
    /// The lowest score that a result may have; any unless set.
    pub min_score: Option<f32>,
}

impl Search {
    /// The `k` records whose vectors compare best with this.
    pub fn vector(vector: Vec<f32>, k: usize) -> Self {
        Self { k, vector: Some(vector), text: None, filter: None, weights: (1.0, 1.0), min_score: None }
    }

    /// The `k` records whose words compare best with those of `text`, by BM25; a record that has none of them is no
    /// result.
    pub fn text(text: impl Into<String>, k: usize) -> Self {
        Self { k, vector: None, text: Some(text.into()), filter: None, weights: (1.0, 1.0), min_score: None }
    }

    /// The `k` records that are best by vector and by words together. The places that a record has in the two orders
    /// are added up by reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009): `weight / (60 + place)`.
    pub fn hybrid(vector: Vec<f32>, text: impl Into<String>, k: usize) -> Self {
        Self { text: Some(text.into()), ..Self::vector(vector, k) }
    }

    /// Sets which records are looked at.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Sets what a place in the order by vectors counts, and one in the order by words: 0 or more, not both 0.
    #[must_use]
    pub fn weights(mut self, vectors: f32, words: f32) -> Self {
        self.weights = (vectors, words);
        self
    }

    /// Sets the lowest score that a result may have.
    #[must_use]
    pub fn min_score(mut self, score: f32) -> Self {
        self.min_score = Some(score);
        self
    }

    pub(super) fn check(&self, schema: &Schema) -> Result<(), StoreError> {
        let refused = |why: &str| Err(StoreError::BadSearch { why: why.to_owned() });
        if self.k == 0 {
            return Err(StoreError::NoResultsAsked);
        }
        if self.k > MAX_RESULTS {
            return refused(&format!("{} results are asked for; {MAX_RESULTS} are given", self.k));
        }
        let (vectors, words) = self.weights;
        let is_weight = |weight: f32| weight.is_finite() && weight >= 0.0;
        if !is_weight(vectors) || !is_weight(words) || vectors + words == 0.0 {
            return refused("weights are 0 or more, and not both 0");
        }
        if self.min_score.is_some_and(f32::is_nan) {
            return refused("the lowest score is not a number");
        }
        match &self.vector {
            Some(vector) => check_vector(schema, vector).map_err(|why| why.of("the query"))?,
            None if self.text.is_none() => return refused("it has neither a vector nor a text"),
            None => {}
        }
        if self.text.is_some() && !schema.text_search {
            return refused("its collection has no text search, which is asked for when it is made");
        }
        self.filter.as_ref().map_or(Ok(()), Filter::check)
    }
}

/// A record that was found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The record's id.
    pub id: String,
    /// How well it compares; higher is better. Its range is the [`Metric`]'s, or what [`Search::text`] and
    /// [`Search::hybrid`] say.
    pub score: f32,
    /// The record's text.
    pub text: String,
    /// What else the record says.
    pub metadata: Metadata,
}

impl Hit {
    /// A record that something else than a store has found.
    pub fn new(id: impl Into<String>, score: f32, text: impl Into<String>) -> Self {
        Self { id: id.into(), score, text: text.into(), metadata: Metadata::new() }
    }

    /// Sets one of its values.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }
}

/// Checks all records of a batch, before the first of them is stored.
pub(super) fn check_batch(schema: &Schema, records: &[Record]) -> Result<(), StoreError> {
    let mut ids = HashSet::with_capacity(records.len());
    for record in records {
        record.check(schema)?;
        if !ids.insert(&*record.id) {
            return Err(StoreError::DuplicateId { id: record.id.clone() });
        }
    }
    Ok(())
}

pub(super) fn check_id(id: &str) -> Result<(), StoreError> {
    let why = match id.len() {
        0 => "it is empty".to_owned(),
        len if len > MAX_ID_BYTES => format!("it has {len} bytes; {MAX_ID_BYTES} are taken"),
        _ if id.contains('\0') => "it holds a zero byte".to_owned(),
        _ => return Ok(()),
    };
    Err(StoreError::BadRecord { id: id.chars().take(40).collect(), why: format!("as an id, {why}") })
}

/// Says what is wrong with metadata.
pub(crate) fn check_metadata(metadata: &Metadata) -> Result<(), String> {
    if metadata.len() > MAX_METADATA_VALUES {
        return Err(format!("it has {} values; {MAX_METADATA_VALUES} are taken", metadata.len()));
    }
    metadata.iter().try_for_each(|(name, value)| {
        check_name(name)?;
        value.refusal().map_or(Ok(()), |why| Err(format!("{why}, in `{name}`")))
    })
}

/// Names of values go into the query languages of stores.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    if name.is_empty() || name.len() > MAX_METADATA_NAME_BYTES || !name.chars().all(is_plain) {
        let rule = format!("has 1 to {MAX_METADATA_NAME_BYTES} bytes of letters, digits and `_-.:`");
        return Err(format!("the name of a value {rule}, unlike {name:?}"));
    }
    if name.starts_with("sage_") {
        return Err(format!("names that begin with `sage_` are the store's own, such as {name:?}"));
    }
    Ok(())
}

/// Why a vector is refused, for the record or query it belongs to.
enum Refused {
    Dimensions { expected: usize, found: usize, collection: String, embedder: Option<String> },
    NotFinite { index: usize },
    Zero,
}

impl Refused {
    fn of(self, id: &str) -> StoreError {
        match self {
            Self::Dimensions { expected, found, collection, embedder } => {
                StoreError::DimensionMismatch { of: id.to_owned(), collection, embedder, expected, found }
            }
            Self::NotFinite { index } => StoreError::NotFinite { of: id.to_owned(), index },
            Self::Zero => StoreError::ZeroVector { of: id.to_owned() },
        }
    }
}

fn check_vector(schema: &Schema, vector: &[f32]) -> Result<(), Refused> {
    let (expected, found) = (schema.dimensions, vector.len());
    if expected != found {
        let (collection, embedder) = (schema.name.clone(), schema.embedder.clone());
        return Err(Refused::Dimensions { expected, found, collection, embedder });
    }
    if let Some(index) = vector.iter().position(|x| !x.is_finite()) {
        return Err(Refused::NotFinite { index });
    }
    // In double precision the square of the largest f32 does not overflow.
    let length = || vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if schema.metric == Metric::Cosine && length() < f64::from(f32::MIN_POSITIVE) {
        return Err(Refused::Zero);
    }
    Ok(())
}
