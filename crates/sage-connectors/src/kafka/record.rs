//! One record of a topic: as the deserialiser sees it, and as data if it is bad.

use std::fmt;

use rdkafka::message::{BorrowedMessage, Headers, Message};
use serde::{Deserialize, Serialize};

/// A record as it came from the broker, borrowed from the client's buffer.
pub struct KafkaRecord<'a>(pub(super) &'a BorrowedMessage<'a>);

impl KafkaRecord<'_> {
    /// The topic.
    pub fn topic(&self) -> &str {
        self.0.topic()
    }

    /// The partition, from 0.
    pub fn partition(&self) -> i32 {
        self.0.partition()
    }

    /// Its number in the partition.
    pub fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// Milliseconds since 1970 UTC, as the producer or the broker set them; `None` if neither did.
    pub fn timestamp_millis(&self) -> Option<i64> {
        self.0.timestamp().to_millis()
    }

    /// The key.
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    /// The value; `None` for a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.0.payload()
    }

    /// Names and values of its headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.0.headers().into_iter().flat_map(|headers| headers.iter()).map(|header| (header.key, header.value))
    }

    #[cold]
    pub(super) fn bad(&self, message: String) -> BadRecord {
        BadRecord {
            topic: self.topic().to_owned(),
            partition: self.partition(),
            offset: self.offset(),
            message,
            key: self.key().map(<[u8]>::to_vec),
            value: self.value().map(<[u8]>::to_vec),
        }
    }
}

impl fmt::Debug for KafkaRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KafkaRecord({}[{}] at offset {})", self.topic(), self.partition(), self.offset())
    }
}

/// A record that could not be deserialised, with its bytes.
///
/// [`KafkaSource::lenient`](super::KafkaSource::lenient) gives `Result<T, BadRecord>`, so that a pipeline can send
/// these elsewhere, as it does with [`BadLine`](crate::BadLine).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{topic}[{partition}] at offset {offset}: {message}")]
#[non_exhaustive]
pub struct BadRecord {
    /// The topic.
    pub topic: String,
    /// The partition, from 0.
    pub partition: i32,
    /// Its number in the partition.
    pub offset: i64,
    /// What is wrong with it.
    pub message: String,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
}
