//! [`MilvusCollection`]: what a collection is asked for, in Milvus's calls.

use std::time::Duration;

use prost::Message;
use sage::{ServiceError, Verdict};
use serde_json::json;
use tokio::time::Instant;

use super::client::Client;
use super::columns::{Found, LARGEST_VALUE, Row, columns};
use super::filter::{has_id, said};
use super::messages as milvus;
use super::messages::{Answer, Column, Pair, Status};
use super::{ID, METADATA, TEXT, VECTOR};
use crate::store::error::StoreError;
use crate::store::filter::Filter;
use crate::store::record::{Hit, Record};
use crate::store::remote::{Collection, Narrowed, narrowed, scored};
use crate::store::schema::{Metric, Schema};

/// The most bytes of a request; Milvus takes 64 MiB.
const LARGEST_REQUEST: usize = 16 << 20;
/// The most records that one request is about.
const MOST_AT_ONCE: usize = 5_000;
/// The most ids in a condition.
const MOST_IDS: usize = 1_000;
/// How many candidates the index looks at, or as many as are asked for.
const LEAST_CANDIDATES: usize = 200;
/// Between two questions whether something is done.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a collection says what made its vectors.
const EMBEDDER: &str = "sage_embedder";

#[derive(Debug)]
pub(super) struct MilvusCollection {
    client: Client,
    name: String,
    dimensions: usize,
    metric: Metric,
    patience: Duration,
}

impl MilvusCollection {
    pub(super) async fn open(client: Client, schema: &Schema, patience: Duration) -> Result<Self, StoreError> {
        let (name, dimensions, metric) = (schema.name().to_owned(), schema.dimensions(), schema.metric_used());
        let collection = Self { client, name, dimensions, metric, patience };
        let described = match collection.described().await? {
            Some(described) => described,
            None if schema.is_to_exist() => {
                let place = collection.client.name.clone();
                return Err(StoreError::UnknownCollection { name: collection.name, place });
            }
            None => collection.made(schema).await?,
        };
        let dimensions = collection.dimensions_of(&described)?;
        let metric = match collection.indexed().await? {
            Some(metric) => metric,
            None => collection.index().await?,
        };
        let embedder = described.properties.iter().find(|pair| pair.key == EMBEDDER).map(|pair| &*pair.value);
        schema.check_found(dimensions, metric, embedder)?;
        collection.load().await?;
        Ok(collection)
    }

    async fn described(&self) -> Result<Option<milvus::DescribedCollection>, StoreError> {
        const WHAT: &str = "show the collection";
        match self.client.asked(WHAT, "DescribeCollection", &self.named()).await? {
            Ok(described) => Ok(Some(described)),
            Err(Status { code: 100, .. } | Status { error_code: 4, .. }) => Ok(None),
            Err(status) => Err(self.client.refused(WHAT, &status)),
        }
    }

    /// Makes the collection; another may have done it meanwhile.
    async fn made(&self, schema: &Schema) -> Result<milvus::DescribedCollection, StoreError> {
        const WHAT: &str = "make the collection";
        let embedder = schema.embedder_used().map(|embedder| pair(EMBEDDER, embedder));
        let request = milvus::CreateCollection {
            collection_name: self.name.clone(),
            schema: fields(schema).encode_to_vec(),
            shards_num: 1,
            consistency_level: 0,
            properties: embedder.into_iter().collect(),
        };
        let made = self.client.asked::<Status>(WHAT, "CreateCollection", &request).await?;
        let described = self.described().await?;
        match (described, made) {
            (Some(described), _) => Ok(described),
            (None, Err(status)) => Err(self.client.refused(WHAT, &status)),
            (None, Ok(_)) => {
                Err(self.client.did_not(WHAT, ServiceError::new(Verdict::Passing(None), "it is gone again")))
            }
        }
    }

    /// The dimensions of a collection that has the fields it should.
    fn dimensions_of(&self, described: &milvus::DescribedCollection) -> Result<usize, StoreError> {
        let found = described.schema.as_ref().map_or(&[][..], |schema| &schema.fields);
        let has = |name: &str, kind: i32| found.iter().any(|field| field.name == name && field.data_type == kind);
        let vector = found.iter().find(|field| field.name == VECTOR && field.data_type == milvus::FLOAT_VECTOR);
        let dimensions = vector.and_then(|field| value(&field.type_params, "dim")?.parse().ok());
        match dimensions {
            Some(dimensions)
                if has(ID, milvus::VARCHAR) && has(TEXT, milvus::VARCHAR) && has(METADATA, milvus::JSON) =>
            {
                Ok(dimensions)
            }
            _ => Err(StoreError::OtherCollection {
                collection: self.name.clone(),
                what: "fields",
                found: found.iter().map(|field| &*field.name).collect::<Vec<_>>().join(", "),
                expected: [ID, VECTOR, TEXT, METADATA].join(", "),
            }),
        }
    }

    /// How the index of the vectors compares them, if there is one.
    async fn indexed(&self) -> Result<Option<Metric>, StoreError> {
        const WHAT: &str = "show the index";
        let described: milvus::DescribedIndexes = match self.client.asked(WHAT, "DescribeIndex", &self.named()).await? {
            Ok(described) => described,
            Err(Status { code: 700, .. } | Status { error_code: 11 | 25, .. }) => return Ok(None),
            Err(status) => return Err(self.client.refused(WHAT, &status)),
        };
        let index = described.indexes.iter().find(|index| index.field_name == VECTOR);
        Ok(index.and_then(|index| value(&index.params, "metric_type")).map(|name| match name {
            "COSINE" => Metric::Cosine,
            "IP" => Metric::InnerProduct,
            _ => Metric::Euclidean,
        }))
    }

    /// Makes the index; another may have done it meanwhile.
    async fn index(&self) -> Result<Metric, StoreError> {
        const WHAT: &str = "make an index";
        let extra_params = vec![
            pair("index_type", "HNSW"),
            pair("metric_type", metric_type(self.metric)),
            pair("params", r#"{"M": 32, "efConstruction": 200}"#),
        ];
        let field_name = VECTOR.to_owned();
        let request = milvus::CreateIndex { collection_name: self.name.clone(), field_name, extra_params };
        let made = self.client.asked::<Status>(WHAT, "CreateIndex", &request).await?;
        match (self.indexed().await?, made) {
            (Some(metric), _) => Ok(metric),
            (None, Err(status)) => Err(self.client.refused(WHAT, &status)),
            // A server may tell of it later.
            (None, Ok(_)) => Ok(self.metric),
        }
    }

    /// Loads the collection, as it is needed once after each start of the server.
    async fn load(&self) -> Result<(), StoreError> {
        const WHAT: &str = "load the collection";
        self.asked::<Status>(WHAT, "LoadCollection", &self.named()).await?;
        let state = milvus::GetLoadState { collection_name: self.name.clone() };
        let begin = Instant::now();
        while self.asked::<milvus::LoadState>(WHAT, "GetLoadState", &state).await?.state != milvus::LOADED {
            self.pause(WHAT, begin).await?;
        }
        Ok(())
    }

    /// Waits a little, unless it has been waited for too long already.
    async fn pause(&self, what: &'static str, begin: Instant) -> Result<(), StoreError> {
        if begin.elapsed() >= self.patience {
            return Err(self.client.did_not(what, ServiceError::new(Verdict::Passing(None), "it takes too long")));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// Calls a method once.
    async fn asked<A: Answer>(
        &self,
        what: &'static str,
        method: &str,
        request: &impl Message,
    ) -> Result<A, StoreError> {
        let answer = self.client.asked(what, method, request).await?;
        answer.map_err(|status| self.client.refused(what, &status))
    }

    /// Calls a method, and once more if the server has been started anew and the collection must be loaded first.
    async fn ask<A: Answer>(&self, what: &'static str, method: &str, request: &impl Message) -> Result<A, StoreError> {
        match self.client.asked(what, method, request).await? {
            Ok(answer) => Ok(answer),
            Err(Status { code: 101, .. } | Status { error_code: 101, .. }) => {
                self.load().await?;
                self.asked(what, method, request).await
            }
            Err(status) => Err(self.client.refused(what, &status)),
        }
    }

    async fn queried(&self, what: &'static str, expr: String, fields: &[&str]) -> Result<Vec<Column>, StoreError> {
        let output_fields = fields.iter().map(|&field| field.to_owned()).collect();
        let request = milvus::Query { collection_name: self.name.clone(), expr, output_fields };
        Ok(self.ask::<milvus::QueryResults>(what, "Query", &request).await?.fields_data)
    }

    fn named(&self) -> milvus::Named {
        milvus::Named { collection_name: self.name.clone() }
    }
}

fn pair(key: &str, value: impl Into<String>) -> Pair {
    Pair { key: key.to_owned(), value: value.into() }
}

fn value<'a>(pairs: &'a [Pair], key: &str) -> Option<&'a str> {
    pairs.iter().find(|pair| pair.key == key).map(|pair| &*pair.value)
}

fn metric_type(metric: Metric) -> &'static str {
    match metric {
        Metric::Cosine => "COSINE",
        Metric::InnerProduct => "IP",
        Metric::Euclidean => "L2",
    }
}

fn fields(schema: &Schema) -> milvus::CollectionSchema {
    let field = |name: &str, data_type, type_params| milvus::FieldSchema {
        name: name.to_owned(),
        is_primary_key: name == ID,
        data_type,
        type_params,
    };
    milvus::CollectionSchema {
        name: schema.name().to_owned(),
        fields: vec![
            field(ID, milvus::VARCHAR, vec![pair("max_length", "512")]),
            field(VECTOR, milvus::FLOAT_VECTOR, vec![pair("dim", schema.dimensions().to_string())]),
            field(TEXT, milvus::VARCHAR, vec![pair("max_length", LARGEST_VALUE.to_string())]),
            field(METADATA, milvus::JSON, Vec::new()),
        ],
    }
}

impl Collection for MilvusCollection {
    fn metric(&self) -> Metric {
        self.metric
    }

    async fn health(&self) -> Result<(), StoreError> {
        const WHAT: &str = "tell that it is well";
        let health: milvus::Health = self.asked(WHAT, "CheckHealth", &milvus::CheckHealth {}).await?;
        if health.is_healthy {
            return Ok(());
        }
        let reasons = format!("it is not well: {}", health.reasons.join(", "));
        Err(self.client.did_not(WHAT, ServiceError::new(Verdict::Passing(None), reasons)))
    }

    async fn upsert(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let rows = records.into_iter().map(Row::new).collect::<Result<Vec<_>, _>>()?;
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let (mut piece, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next_if(|_| piece.len() < MOST_AT_ONCE && bytes < LARGEST_REQUEST) {
                bytes += row.bytes();
                piece.push(row);
            }
            let num_rows = piece.len() as u32;
            let fields_data = columns(piece, self.dimensions);
            let request = milvus::Upsert { collection_name: self.name.clone(), fields_data, num_rows };
            self.ask::<milvus::Done>("store records", "Upsert", &request).await?;
        }
        Ok(())
    }

    async fn get(&self, ids: &[String]) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MOST_IDS) {
            let columns = self.queried("give records", has_id(ids), &[ID, VECTOR, TEXT, METADATA]).await?;
            records.extend(Found::of(columns).records());
        }
        Ok(records)
    }

    async fn existing(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        let mut existing = Vec::new();
        for ids in ids.chunks(MOST_IDS) {
            existing.extend(Found::of(self.queried("tell which ids it has", has_id(ids), &[ID]).await?).ids);
        }
        Ok(existing)
    }

    async fn delete(&self, ids: Vec<String>) -> Result<(), StoreError> {
        for ids in ids.chunks(MOST_IDS) {
            let request = milvus::Delete { collection_name: self.name.clone(), expr: has_id(ids) };
            self.ask::<milvus::Done>("delete records", "Delete", &request).await?;
        }
        Ok(())
    }

    /// One request, so that it is the records of one moment.
    async fn matching(&self, filter: Option<&Filter>) -> Result<Vec<String>, StoreError> {
        let Narrowed { condition, is_exact } = narrowed(filter, true);
        let Ok(condition) = said(&condition) else { return Ok(Vec::new()) };
        // A query has to have a condition. Every id is greater than this.
        let condition = if condition.is_empty() { r#"id > """#.to_owned() } else { condition };
        let fields: &[&str] = if is_exact { &[ID] } else { &[ID, METADATA] };
        let found = Found::of(self.queried("tell which records meet a filter", condition, fields).await?);
        if is_exact {
            return Ok(found.ids);
        }
        let meets = |record: &Record| filter.is_none_or(|filter| filter.is_met_by(&record.metadata));
        Ok(found.records().into_iter().filter(meets).map(|record| record.id).collect())
    }

    async fn count(&self) -> Result<usize, StoreError> {
        const WHAT: &str = "count records";
        let columns = self.queried(WHAT, String::new(), &["count(*)"]).await?;
        let counted = columns.first().and_then(|column| column.scalars.as_ref()?.longs.as_ref()?.data.first());
        counted.and_then(|count| usize::try_from(*count).ok()).ok_or_else(|| {
            self.client.did_not(WHAT, ServiceError::new(Verdict::Passing(None), "its answer has no number"))
        })
    }

    async fn nearest(&self, vector: &[f32], k: usize, filter: Option<&Filter>) -> Result<Vec<Hit>, StoreError> {
        let Ok(condition) = said(&narrowed(filter, true).condition) else { return Ok(Vec::new()) };
        let values = vec![vector.iter().flat_map(|x| x.to_le_bytes()).collect()];
        let query = milvus::Placeholder { tag: "$0".to_owned(), kind: milvus::FLOAT_VECTOR, values };
        let params = json!({ "ef": k.max(LEAST_CANDIDATES) }).to_string();
        let request = milvus::Search {
            collection_name: self.name.clone(),
            dsl: condition,
            placeholder_group: milvus::Placeholders { placeholders: vec![query] }.encode_to_vec(),
            dsl_type: milvus::EXPRESSION,
            output_fields: [VECTOR, TEXT, METADATA].map(str::to_owned).into(),
            search_params: vec![
                pair("anns_field", VECTOR),
                pair("topk", k.to_string()),
                pair("metric_type", metric_type(self.metric)),
                pair("params", params),
            ],
            nq: 1,
        };
        let found: milvus::SearchResults = self.ask("search", "Search", &request).await?;
        let found = found.results.unwrap_or_default();
        let ids = found.ids.and_then(|ids| ids.texts).unwrap_or_default().data;
        let found = Found::of(found.fields_data).with_ids(ids);
        // Servers of Milvus differ in what a distance is, and the same vectors may get different ones.
        Ok(found.records().into_iter().map(|record| scored(self.metric, vector, record)).collect())
    }

    async fn persist(&self) -> Result<(), StoreError> {
        const WHAT: &str = "flush the collection";
        let request = milvus::Flush { collection_names: vec![self.name.clone()] };
        let flushing: milvus::Flushing = self.ask(WHAT, "Flush", &request).await?;
        let state = milvus::GetFlushState {
            segments: flushing.segments.get(&self.name).map(|longs| longs.data.clone()).unwrap_or_default(),
            moment: flushing.moments.get(&self.name).copied().unwrap_or_default(),
            collection_name: self.name.clone(),
        };
        let begin = Instant::now();
        while !self.asked::<milvus::FlushState>(WHAT, "GetFlushState", &state).await?.is_flushed {
            self.pause(WHAT, begin).await?;
        }
        Ok(())
    }
}
