//! The messages of Milvus that the driver sends and reads, with those of their fields that it uses. Numbers and types
//! are those of Milvus's interface; one of several alternatives is an optional field.

use std::collections::HashMap;

use prost::Message;

/// Types of fields.
pub(super) const VARCHAR: i32 = 21;
pub(super) const JSON: i32 = 23;
pub(super) const FLOAT_VECTOR: i32 = 101;
/// A collection is loaded, and can be searched.
pub(super) const LOADED: i32 = 3;
/// A condition is an expression.
pub(super) const EXPRESSION: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) error_code: i32,
    #[prost(string, tag = "2")]
    pub(super) reason: String,
    #[prost(int32, tag = "3")]
    pub(super) code: i32,
    #[prost(bool, tag = "4")]
    pub(super) retriable: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pair {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CollectionSchema {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) fields: Vec<FieldSchema>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FieldSchema {
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(bool, tag = "3")]
    pub(super) is_primary_key: bool,
    #[prost(int32, tag = "5")]
    pub(super) data_type: i32,
    #[prost(message, repeated, tag = "6")]
    pub(super) type_params: Vec<Pair>,
}

/// A collection by its name: what several requests ask about.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Named {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CreateCollection {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) schema: Vec<u8>,
    #[prost(int32, tag = "5")]
    pub(super) shards_num: i32,
    /// Without a number it is the strongest: a search sees all that was written before.
    #[prost(int32, tag = "6")]
    pub(super) consistency_level: i32,
    #[prost(message, repeated, tag = "7")]
    pub(super) properties: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DescribedCollection {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    pub(super) schema: Option<CollectionSchema>,
    #[prost(message, repeated, tag = "13")]
    pub(super) properties: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CreateIndex {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(string, tag = "4")]
    pub(super) field_name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) extra_params: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DescribedIndexes {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(message, repeated, tag = "2")]
    pub(super) indexes: Vec<Index>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Index {
    #[prost(message, repeated, tag = "3")]
    pub(super) params: Vec<Pair>,
    #[prost(string, tag = "4")]
    pub(super) field_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetLoadState {
    #[prost(string, tag = "2")]
    pub(super) collection_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LoadState {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(int32, tag = "2")]
    pub(super) state: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Upsert {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) fields_data: Vec<Column>,
    #[prost(uint32, tag = "7")]
    pub(super) num_rows: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Delete {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(string, tag = "5")]
    pub(super) expr: String,
}

/// An answer of which only the status counts.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Done {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Search {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(string, tag = "5")]
    pub(super) dsl: String,
    #[prost(bytes = "vec", tag = "6")]
    pub(super) placeholder_group: Vec<u8>,
    #[prost(int32, tag = "7")]
    pub(super) dsl_type: i32,
    #[prost(string, repeated, tag = "8")]
    pub(super) output_fields: Vec<String>,
    #[prost(message, repeated, tag = "9")]
    pub(super) search_params: Vec<Pair>,
    #[prost(int64, tag = "12")]
    pub(super) nq: i64,
}

/// The vectors that a search is about.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Placeholders {
    #[prost(message, repeated, tag = "1")]
    pub(super) placeholders: Vec<Placeholder>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Placeholder {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    #[prost(int32, tag = "2")]
    pub(super) kind: i32,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(super) values: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SearchResults {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    pub(super) results: Option<SearchResultData>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SearchResultData {
    #[prost(message, repeated, tag = "3")]
    pub(super) fields_data: Vec<Column>,
    #[prost(message, optional, tag = "5")]
    pub(super) ids: Option<Ids>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Ids {
    #[prost(message, optional, tag = "2")]
    pub(super) texts: Option<Texts>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Query {
    #[prost(string, tag = "3")]
    pub(super) collection_name: String,
    #[prost(string, tag = "4")]
    pub(super) expr: String,
    #[prost(string, repeated, tag = "5")]
    pub(super) output_fields: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct QueryResults {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(message, repeated, tag = "2")]
    pub(super) fields_data: Vec<Column>,
}

/// The values of one field.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Column {
    #[prost(int32, tag = "1")]
    pub(super) data_type: i32,
    #[prost(string, tag = "2")]
    pub(super) field_name: String,
    #[prost(message, optional, tag = "3")]
    pub(super) scalars: Option<Scalars>,
    #[prost(message, optional, tag = "4")]
    pub(super) vectors: Option<Vectors>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scalars {
    #[prost(message, optional, tag = "3")]
    pub(super) longs: Option<Longs>,
    #[prost(message, optional, tag = "6")]
    pub(super) texts: Option<Texts>,
    #[prost(message, optional, tag = "9")]
    pub(super) json: Option<Jsons>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Longs {
    #[prost(int64, repeated, tag = "1")]
    pub(super) data: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub(super) data: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Jsons {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) data: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Vectors {
    #[prost(int64, tag = "1")]
    pub(super) dim: i64,
    #[prost(message, optional, tag = "2")]
    pub(super) floats: Option<Floats>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Floats {
    #[prost(float, repeated, tag = "1")]
    pub(super) data: Vec<f32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Flush {
    #[prost(string, repeated, tag = "3")]
    pub(super) collection_names: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Flushing {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(map = "string, message", tag = "3")]
    pub(super) segments: HashMap<String, Longs>,
    #[prost(map = "string, uint64", tag = "6")]
    pub(super) moments: HashMap<String, u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetFlushState {
    #[prost(int64, repeated, tag = "1")]
    pub(super) segments: Vec<i64>,
    #[prost(uint64, tag = "2")]
    pub(super) moment: u64,
    #[prost(string, tag = "4")]
    pub(super) collection_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FlushState {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(bool, tag = "2")]
    pub(super) is_flushed: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CheckHealth {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Health {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(bool, tag = "2")]
    pub(super) is_healthy: bool,
    #[prost(string, repeated, tag = "3")]
    pub(super) reasons: Vec<String>,
}

/// An answer, which says whether it is one.
pub(super) trait Answer: Message + Default {
    fn status(&self) -> Option<&Status>;
}

impl Answer for Status {
    fn status(&self) -> Option<&Status> {
        Some(self)
    }
}

macro_rules! answers {
    ($($answer:ty)*) => {$(
        impl Answer for $answer {
            fn status(&self) -> Option<&Status> {
                self.status.as_ref()
            }
        }
    )*};
}

answers! { DescribedCollection DescribedIndexes LoadState Done SearchResults QueryResults Flushing FlushState Health }
