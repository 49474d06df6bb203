//! Kafka topics: [`KafkaSource`] and [`KafkaSink`], over librdkafka.
//!
//! `client.rs` has what both share: settings, librdkafka's reports, and secrets. `record.rs` has a record as the source
//! sees it. No type of librdkafka's binding is public.

mod client;
mod cluster;
mod error;
mod offsets;
mod reader;
mod record;
mod sink;
mod source;

pub use cluster::KafkaCluster;
pub use error::KafkaError;
pub use offsets::KafkaOffsets;
pub use record::{BadRecord, KafkaRecord};
pub use sink::KafkaSink;
pub use source::{KafkaSource, OffsetReset};
