//! [`Entry`]: what a frame of the log says, as bytes.
//!
//! Knows nothing of files. Its layout is that of postcard 1, whose format is stable; vectors are little-endian floats.

use serde::{Deserialize, Serialize};

use crate::store::record::Record;
use crate::store::schema::{Metric, Schema};
use crate::store::stored::{StoredMetadata, StoredVector};

/// What the first frame of a log says: the collection.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) name: String,
    dimensions: u32,
    metric: StoredMetric,
    embedder: Option<String>,
}

/// Written by its place in this list: new ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum StoredMetric {
    Cosine,
    InnerProduct,
    Euclidean,
}

impl Header {
    pub(super) fn of(schema: &Schema) -> Self {
        let metric = match schema.metric {
            Metric::Cosine => StoredMetric::Cosine,
            Metric::InnerProduct => StoredMetric::InnerProduct,
            Metric::Euclidean => StoredMetric::Euclidean,
        };
        let dimensions = u32::try_from(schema.dimensions).expect("a schema's dimensions are checked");
        Self { name: schema.name.clone(), dimensions, metric, embedder: schema.embedder.clone() }
    }

    pub(super) fn embedder(&self) -> Option<&str> {
        self.embedder.as_deref()
    }

    pub(super) fn dimensions(&self) -> usize {
        self.dimensions as usize
    }

    pub(super) fn metric(&self) -> Metric {
        match self.metric {
            StoredMetric::Cosine => Metric::Cosine,
            StoredMetric::InnerProduct => Metric::InnerProduct,
            StoredMetric::Euclidean => Metric::Euclidean,
        }
    }
}

/// What every other frame says. Written by its place in this list: new ones go to the end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Entry<'a> {
    /// These records are stored.
    #[serde(borrow)]
    Upsert(Vec<Stored<'a>>),
    /// The records with these ids are deleted.
    Delete(Vec<&'a str>),
}

/// A record.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored<'a> {
    id: &'a str,
    #[serde(borrow)]
    vector: StoredVector<'a>,
    text: &'a str,
    #[serde(borrow)]
    metadata: StoredMetadata<'a>,
}

impl<'a> Stored<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        Self {
            id: &record.id,
            vector: StoredVector::of(&record.vector),
            text: &record.text,
            metadata: StoredMetadata::of(&record.metadata),
        }
    }

    /// The record; `None` if a value cannot be one.
    pub(super) fn record(&self) -> Option<Record> {
        Some(Record {
            id: self.id.to_owned(),
            vector: self.vector.vector()?,
            text: self.text.to_owned(),
            metadata: self.metadata.metadata()?,
        })
    }
}
