//! [`ChromaCollection`]: what a collection is asked for, in Chroma's requests.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use tokio::sync::RwLock;

use super::client::Client;
use super::filter::said;
use super::values::{Found, Got};
use crate::store::error::StoreError;
use crate::store::filter::Filter;
use crate::store::record::{Hit, Record};
use crate::store::remote::{Collection, Narrowed, kept, narrowed};
use crate::store::schema::{Metric, Schema};

/// The most bytes of a request; Chroma takes 40 MiB unless it is told otherwise.
const LARGEST_REQUEST: usize = 16 << 20;
/// The most records that one request is about, unless the server takes fewer.
const MOST_AT_ONCE: usize = 5_000;

const DIMENSIONS: &str = "sage_dimensions";
const EMBEDDER: &str = "sage_embedder";

#[derive(Debug)]
pub(super) struct ChromaCollection {
    client: Client,
    id: String,
    metric: Metric,
    /// Whether all records have been written by this driver, and so have their kinds.
    has_kinds: bool,
    at_once: usize,
    /// Held, and shared, by requests that read vectors; by one that writes, alone. While Chroma makes the files of its
    /// index, such a read fails: "Error creating hnsw segment reader: Nothing found on disk".
    index: RwLock<()>,
}

/// What Chroma says of a collection.
#[derive(Debug, Deserialize)]
struct Described {
    id: String,
    metadata: Option<Map<String, Json>>,
    dimension: Option<usize>,
    configuration_json: Json,
}

#[derive(Debug, Deserialize)]
struct Limits {
    max_batch_size: usize,
}

impl ChromaCollection {
    pub(super) async fn open(client: Client, schema: &Schema) -> Result<Self, StoreError> {
        let limits: Limits = client.server("tell its limits", "pre-flight-checks").await?;
        let path = format!("collections/{}", schema.name());
        let described: Described = match client.found("show the collection", &path).await? {
            Some(described) => described,
            None if schema.is_to_exist() => {
                let (name, place) = (schema.name().to_owned(), client.name.clone());
                return Err(StoreError::UnknownCollection { name, place });
            }
            // If another has made it meanwhile, it is that which is described.
            None => client.post("make the collection", "collections", new(schema)).await?,
        };
        let metadata = described.metadata.unwrap_or_default();
        let said = metadata.get(DIMENSIONS).and_then(Json::as_u64).and_then(|said| usize::try_from(said).ok());
        // An empty collection that something else has made takes what comes first.
        let dimensions = said.or(described.dimension).unwrap_or(schema.dimensions());
        let found = metric(&described.configuration_json);
        schema.check_found(dimensions, found, metadata.get(EMBEDDER).and_then(Json::as_str))?;
        let at_once = limits.max_batch_size.clamp(1, MOST_AT_ONCE);
        Ok(Self {
            client,
            id: described.id,
            metric: found,
            has_kinds: said.is_some(),
            at_once,
            index: RwLock::default(),
        })
    }

    fn path(&self, what: &str) -> String {
        format!("collections/{}/{what}", self.id)
    }

    async fn got(&self, ids: &[String], include: &[&str]) -> Result<Got, StoreError> {
        let body = json!({ "ids": ids, "include": include }).to_string();
        self.client.post("give records", &self.path("get"), body).await
    }

    async fn write(&self, what: &'static str, path: &str, body: String) -> Result<(), StoreError> {
        let _alone = self.index.write().await;
        self.client.post::<Json>(what, &self.path(path), body).await.map(drop)
    }

    /// The values that the records with these ids have now, and that their successors would keep.
    async fn names_before(&self, ids: &[String]) -> Result<HashMap<String, Vec<String>>, StoreError> {
        let before = self.got(ids, &["metadatas"]).await?.kept();
        Ok(before
            .map(|(id, kept)| (id, kept.unwrap_or_default().into_iter().map(|(name, _)| name).collect()))
            .collect())
    }
}

fn new(schema: &Schema) -> String {
    let mut metadata = Map::from_iter([(DIMENSIONS.to_owned(), schema.dimensions().into())]);
    if let Some(embedder) = schema.embedder_used() {
        metadata.insert(EMBEDDER.to_owned(), embedder.into());
    }
    let space = match schema.metric_used() {
        Metric::Cosine => "cosine",
        Metric::InnerProduct => "ip",
        Metric::Euclidean => "l2",
    };
    // Twice as thorough as Chroma's own settings: the order of results should not depend on the store.
    let hnsw = json!({ "space": space, "ef_construction": 200, "ef_search": 200, "max_neighbors": 32 });
    let name = schema.name();
    json!({ "name": name, "get_or_create": true, "metadata": metadata, "configuration": { "hnsw": hnsw } }).to_string()
}

/// How the vectors of a collection compare. A hosted Chroma has another kind of index.
fn metric(configuration: &Json) -> Metric {
    let space = ["hnsw", "spann"].iter().find_map(|index| configuration[index]["space"].as_str());
    match space {
        Some("cosine") => Metric::Cosine,
        Some("ip") => Metric::InnerProduct,
        _ => Metric::Euclidean,
    }
}

impl Collection for ChromaCollection {
    fn metric(&self) -> Metric {
        self.metric
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.client.server::<Json>("tell that it is well", "heartbeat").await.map(drop)
    }

    async fn upsert(&self, records: Vec<Record>) -> Result<(), StoreError> {
        for records in records.chunks(self.at_once) {
            let ids: Vec<String> = records.iter().map(|record| record.id.clone()).collect();
            let before = self.names_before(&ids).await?;
            let mut request = Columns::default();
            for record in records {
                if request.bytes() > LARGEST_REQUEST {
                    let body = std::mem::take(&mut request).body();
                    self.write("store records", "upsert", body).await?;
                }
                request.push(record, before.get(&record.id).map_or(&[], Vec::as_slice));
            }
            self.write("store records", "upsert", request.body()).await?;
        }
        Ok(())
    }

    async fn get(&self, ids: &[String]) -> Result<Vec<Record>, StoreError> {
        let _read = self.index.read().await;
        let mut records = Vec::with_capacity(ids.len());
        for ids in ids.chunks(self.at_once) {
            records.extend(self.got(ids, &["embeddings", "documents", "metadatas"]).await?.records());
        }
        Ok(records)
    }

    async fn existing(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        let mut existing = Vec::new();
        for ids in ids.chunks(self.at_once) {
            existing.extend(self.got(ids, &[]).await?.ids);
        }
        Ok(existing)
    }

    async fn delete(&self, ids: Vec<String>) -> Result<(), StoreError> {
        for ids in ids.chunks(self.at_once) {
            let body = json!({ "ids": ids }).to_string();
            self.write("delete records", "delete", body).await?;
        }
        Ok(())
    }

    /// One request, so that it is the records of one moment.
    async fn matching(&self, filter: Option<&Filter>) -> Result<Vec<String>, StoreError> {
        let Narrowed { condition, is_exact } = narrowed(filter, self.has_kinds);
        let Ok(condition) = said(&condition) else { return Ok(Vec::new()) };
        let include: &[&str] = if is_exact { &[] } else { &["metadatas"] };
        let body = json!({ "where": condition, "include": include }).to_string();
        let got: Got = self.client.post("tell which records meet a filter", &self.path("get"), body).await?;
        if is_exact {
            return Ok(got.ids);
        }
        let meets = |record: &Record| filter.is_none_or(|filter| filter.is_met_by(&record.metadata));
        Ok(got.records().into_iter().filter(meets).map(|record| record.id).collect())
    }

    async fn count(&self) -> Result<usize, StoreError> {
        let path = self.path("count");
        let count = self.client.found("count records", &path).await?;
        count.ok_or_else(|| StoreError::UnknownCollection { name: self.id.clone(), place: self.client.name.clone() })
    }

    async fn nearest(&self, vector: &[f32], k: usize, filter: Option<&Filter>) -> Result<Vec<Hit>, StoreError> {
        let Ok(condition) = said(&narrowed(filter, self.has_kinds).condition) else { return Ok(Vec::new()) };
        let include = ["distances", "documents", "metadatas"];
        let body = json!({ "n_results": k, "where": condition, "include": include });
        // Apart, as a value of JSON has no numbers of single precision.
        let vector = serde_json::to_string(&[vector]).expect("numbers can be written");
        let body = format!("{{\"query_embeddings\":{vector},{}", &body.to_string()[1..]);
        let _read = self.index.read().await;
        let found: Found = self.client.post("search", &self.path("query"), body).await?;
        Ok(found.hits(self.metric))
    }

    /// Chroma writes what it acknowledges to its log.
    async fn persist(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Records as Chroma takes them, column by column.
#[derive(Default)]
struct Columns([String; 4]);

impl Columns {
    /// Adds a record. A value of its predecessor that it has not would stay: a null removes it.
    fn push(&mut self, record: &Record, names_before: &[String]) {
        let mut kept = kept(&record.metadata);
        for name in names_before {
            kept.entry(name.as_str()).or_insert(Json::Null);
        }
        let cells = [
            serde_json::to_string(&record.id),
            serde_json::to_string(&record.vector),
            serde_json::to_string(&record.text),
            serde_json::to_string(&kept),
        ];
        for (column, cell) in self.0.iter_mut().zip(cells) {
            column.push(if column.is_empty() { '[' } else { ',' });
            column.push_str(&cell.expect("texts, finite numbers and maps of both can be written"));
        }
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }

    fn body(self) -> String {
        let [ids, vectors, texts, metadata] = self.0;
        format!(r#"{{"ids":{ids}],"embeddings":{vectors}],"documents":{texts}],"metadatas":{metadata}]}}"#)
    }
}
