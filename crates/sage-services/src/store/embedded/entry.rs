//! [`Entry`]: what a frame of the log says, as bytes.
//!
//! Knows nothing of files. Its layout is that of postcard 1, whose format is stable; vectors are little-endian floats.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::store::record::Record;
use crate::store::schema::{Metric, Schema};
use crate::store::value::{Metadata, Value};

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
    #[serde(borrow, deserialize_with = "borrowed", serialize_with = "as_bytes")]
    vector: Cow<'a, [u8]>,
    text: &'a str,
    #[serde(borrow)]
    metadata: Vec<(&'a str, StoredValue<'a>)>,
}

/// Two enums, so that what a file nests is bounded.
#[derive(Debug, Serialize, Deserialize)]
enum StoredValue<'a> {
    #[serde(borrow)]
    One(Scalar<'a>),
    List(Vec<Scalar<'a>>),
}

#[derive(Debug, Serialize, Deserialize)]
enum Scalar<'a> {
    String(&'a str),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// In microseconds since 1970.
    Date(i64),
}

/// Postcard lays out bytes as they are, and the elements of a sequence one after the other.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

fn borrowed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, [u8]>, D::Error> {
    <&[u8]>::deserialize(deserializer).map(Cow::Borrowed)
}

impl<'a> Stored<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let mut vector = Vec::with_capacity(4 * record.vector.len());
        record.vector.iter().for_each(|x| vector.extend_from_slice(&x.to_le_bytes()));
        Self {
            id: &record.id,
            vector: Cow::Owned(vector),
            text: &record.text,
            metadata: record.metadata.iter().map(|(name, value)| (&**name, StoredValue::of(value))).collect(),
        }
    }

    /// The record; `None` if a value cannot be one.
    pub(super) fn record(&self) -> Option<Record> {
        let (coordinates, []) = self.vector.as_chunks::<4>() else { return None };
        let metadata = self.metadata.iter().map(|(name, value)| Some(((*name).to_owned(), value.value()?)));
        Some(Record {
            id: self.id.to_owned(),
            vector: coordinates.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            text: self.text.to_owned(),
            metadata: metadata.collect::<Option<Metadata>>()?,
        })
    }
}

impl<'a> StoredValue<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::List(values) => Self::List(values.iter().map(Scalar::of).collect()),
            one => Self::One(Scalar::of(one)),
        }
    }

    fn value(&self) -> Option<Value> {
        match self {
            Self::One(one) => one.value(),
            Self::List(values) => values.iter().map(Scalar::value).collect::<Option<_>>().map(Value::List),
        }
    }
}

impl<'a> Scalar<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::String(text),
            Value::Integer(number) => Self::Integer(*number),
            Value::Float(number) => Self::Float(*number),
            Value::Boolean(truth) => Self::Boolean(*truth),
            Value::Date(date) => Self::Date(date.as_microsecond()),
            Value::List(_) => unreachable!("a list holds no list: records are checked"),
        }
    }

    fn value(&self) -> Option<Value> {
        Some(match self {
            Self::String(text) => Value::String((*text).to_owned()),
            Self::Integer(number) => Value::Integer(*number),
            Self::Float(number) => Value::Float(*number),
            Self::Boolean(truth) => Value::Boolean(*truth),
            Self::Date(micros) => Value::Date(Timestamp::from_microsecond(*micros).ok()?),
        })
    }
}
