//! Vectors and metadata as bytes of a log's frame. Postcard lays them out; numbers are little-endian.
//!
//! Knows nothing of files.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value::{Metadata, Value};

/// A vector.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredVector<'a>(
    #[serde(borrow, deserialize_with = "borrowed", serialize_with = "as_bytes")] Cow<'a, [u8]>,
);

impl StoredVector<'_> {
    pub(crate) fn of(vector: &[f32]) -> Self {
        Self(Cow::Owned(vector.iter().flat_map(|x| x.to_le_bytes()).collect()))
    }

    /// The vector; `None` if the bytes are none.
    pub(crate) fn vector(&self) -> Option<Vec<f32>> {
        let (coordinates, []) = self.0.as_chunks::<4>() else { return None };
        Some(coordinates.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// Metadata.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredMetadata<'a>(#[serde(borrow)] Vec<(&'a str, StoredValue<'a>)>);

impl<'a> StoredMetadata<'a> {
    pub(crate) fn of(metadata: &'a Metadata) -> Self {
        Self(metadata.iter().map(|(name, value)| (&**name, StoredValue::of(value))).collect())
    }

    /// The metadata; `None` if a value cannot be one.
    pub(crate) fn metadata(&self) -> Option<Metadata> {
        self.0.iter().map(|(name, value)| Some(((*name).to_owned(), value.value()?))).collect()
    }
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
