//! Records as Chroma gives them.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::store::record::{Hit, Record};
use crate::store::remote::as_kept;
use crate::store::schema::Metric;
use crate::store::value::{Metadata, Value};

/// What went in; of a record that something else has put there, what can be read of it.
pub(super) fn metadata(kept: Option<Map<String, Json>>) -> Metadata {
    let kept = kept.unwrap_or_default();
    if let Some(metadata) = as_kept(&kept) {
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
