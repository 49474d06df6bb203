//! Records as Chroma keeps them.
//!
//! A value is there for conditions by its name; a date, as microseconds, by `sage_date:` and its name, so that no
//! number is taken for it. `sage_kinds` has the kinds of all values, as `string:lang`: Chroma cannot ask whether a
//! value is there. `sage_metadata` is what comes back.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::store::record::{Hit, Record};
use crate::store::remote::{exact, from_exact};
use crate::store::schema::Metric;
use crate::store::value::{Metadata, Value};

pub(super) const KINDS: &str = "sage_kinds";
const EXACT: &str = "sage_metadata";

/// Where a date is, or a list of them.
pub(super) fn date_key(name: &str) -> String {
    format!("sage_date:{name}")
}

/// How [`KINDS`] says that a value is there. An integer and a float are both numbers.
pub(super) fn kind_of(name: &str, value: &Value) -> String {
    let kind = match value {
        Value::Integer(_) | Value::Float(_) => "number",
        other => other.kind(),
    };
    format!("{kind}:{name}")
}

/// A record's metadata as Chroma is to keep it; never empty.
pub(super) fn kept(metadata: &Metadata) -> Map<String, Json> {
    let mut kept = Map::new();
    for (name, value) in metadata {
        let (key, value) = match value {
            // Chroma forgets an empty list.
            Value::List(values) if values.is_empty() => continue,
            Value::Date(_) => (date_key(name), json(value)),
            Value::List(values) if matches!(values[0], Value::Date(_)) => {
                (date_key(name), values.iter().map(json).collect())
            }
            Value::List(values) => (name.clone(), values.iter().map(json).collect()),
            _ => (name.clone(), json(value)),
        };
        kept.insert(key, value);
    }
    if !metadata.is_empty() {
        kept.insert(KINDS.to_owned(), metadata.iter().map(|(name, value)| kind_of(name, value)).collect());
    }
    kept.insert(EXACT.to_owned(), exact(metadata).into());
    kept
}

/// A value that is no list.
pub(super) fn json(value: &Value) -> Json {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(truth) => (*truth).into(),
        Value::Date(date) => date.as_microsecond().into(),
        Value::List(_) => Json::Null,
    }
}

/// What went in; of a record that something else has put there, what can be read of it.
pub(super) fn metadata(kept: Option<Map<String, Json>>) -> Metadata {
    let kept = kept.unwrap_or_default();
    if let Some(metadata) = kept.get(EXACT).and_then(Json::as_str).and_then(from_exact) {
        return metadata;
    }
    kept.into_iter().filter_map(|(name, value)| Some((name, foreign(value)?))).collect()
}

fn foreign(value: Json) -> Option<Value> {
    match value {
        Json::String(text) => Some(Value::String(text)),
        Json::Bool(truth) => Some(Value::Boolean(truth)),
        Json::Number(number) => number.as_i64().map(Value::Integer).or_else(|| number.as_f64().map(Value::Float)),
        Json::Array(values) => values.into_iter().map(foreign).collect::<Option<_>>().map(Value::List),
        Json::Null | Json::Object(_) => None,
    }
}

/// What Chroma answers to a request for records.
#[derive(Debug, Deserialize)]
pub(super) struct Got {
    pub(super) ids: Vec<String>,
    embeddings: Option<Vec<Option<Vec<f32>>>>,
    documents: Option<Vec<Option<String>>>,
    metadatas: Option<Vec<Option<Map<String, Json>>>>,
}

impl Got {
    pub(super) fn records(self) -> Vec<Record> {
        let (mut vectors, mut texts) = (column(self.embeddings), column(self.documents));
        let mut kept = column(self.metadatas);
        let record = |id| Record {
            id,
            vector: vectors.next().flatten().unwrap_or_default(),
            text: texts.next().flatten().unwrap_or_default(),
            metadata: metadata(kept.next().flatten()),
        };
        self.ids.into_iter().map(record).collect()
    }

    /// Each id with the metadata as Chroma keeps it.
    pub(super) fn kept(self) -> impl Iterator<Item = (String, Option<Map<String, Json>>)> {
        let mut kept = column(self.metadatas);
        self.ids.into_iter().map(move |id| (id, kept.next().flatten()))
    }
}

/// What Chroma answers to a search: a list of all for each vector, of which there is one.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    ids: Vec<Vec<String>>,
    distances: Vec<Vec<Option<f32>>>,
    documents: Vec<Vec<Option<String>>>,
    metadatas: Vec<Vec<Option<Map<String, Json>>>>,
}

impl Found {
    pub(super) fn hits(self, metric: Metric) -> Vec<Hit> {
        let (mut distances, mut texts) = (column(Some(self.distances)), column(Some(self.documents)));
        let (mut distances, mut texts) = (column(distances.next()), column(texts.next()));
        let mut kept = column(self.metadatas.into_iter().next());
        let hit = |id| Hit {
            id,
            score: score(metric, distances.next().flatten().unwrap_or(f32::INFINITY)),
            text: texts.next().flatten().unwrap_or_default(),
            metadata: metadata(kept.next().flatten()),
        };
        self.ids.into_iter().next().unwrap_or_default().into_iter().map(hit).collect()
    }
}

fn column<T>(values: Option<Vec<T>>) -> std::vec::IntoIter<T> {
    values.unwrap_or_default().into_iter()
}

/// Chroma tells one minus the cosine, one minus the inner product, or the square of the distance.
fn score(metric: Metric, distance: f32) -> f32 {
    match metric {
        Metric::Cosine => (1.0 - distance).clamp(-1.0, 1.0),
        Metric::InnerProduct => 1.0 - distance,
        Metric::Euclidean => -distance.max(0.0).sqrt(),
    }
}
