//! Kafka topics: [`KafkaSource`] and [`KafkaSink`], over librdkafka.
//!
//! `client.rs` is what both share: settings, what librdkafka tells, and what must not be told on. `record.rs` is a
//! record as the source sees it. Neither the source nor the sink shows a type of librdkafka's binding to its user.

mod client;
mod error;
mod offsets;
mod reader;
mod record;
mod sink;
mod source;

pub use error::KafkaError;
pub use offsets::KafkaOffsets;
pub use record::{BadRecord, KafkaRecord};
pub use sink::KafkaSink;
pub use source::{KafkaSource, OffsetReset};
