//! Why a topic could not be read or written.

use std::time::Duration;

use sage::BoxError;

use super::record::BadRecord;

/// Why a Kafka topic could not be read or written.
///
/// No variant holds the value of a setting. Values of secret settings are removed from librdkafka's messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaError {
    /// A setting is unknown, has an impossible value, or is set by the source or sink itself.
    #[error("the Kafka setting `{key}` {why}")]
    Setting {
        /// Its name.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// librdkafka could not make a client of the settings.
    #[error("cannot make a Kafka client: {why}")]
    Client {
        /// What librdkafka says.
        why: String,
    },
    /// No broker answered at the start.
    #[error("cannot connect to Kafka at {servers} within {within:?}: {why}")]
    Connect {
        /// The bootstrap servers.
        servers: String,
        /// The connect timeout.
        within: Duration,
        /// The last reason.
        why: String,
    },
    /// The topic does not exist, or may not be used.
    #[error("cannot use the topic `{topic}`: {why}")]
    Topic {
        /// The topic.
        topic: String,
        /// The broker's reason.
        why: String,
    },
    /// The group has no offset that is still in the topic, and [`OffsetReset::Error`](super::OffsetReset::Error)
    /// forbids guessing.
    #[error("the group `{group}` has no offset for {topic}[{partition}] that is still in the topic")]
    NoOffset {
        /// The consumer group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// No broker could be reached for as long as the broker timeout.
    #[error("lost Kafka at {servers} for more than {after:?}: {why}")]
    Lost {
        /// The bootstrap servers.
        servers: String,
        /// The broker timeout.
        after: Duration,
        /// The last reason.
        why: String,
    },
    /// Reading failed for good.
    #[error("cannot read from Kafka: {why}")]
    Read {
        /// The reason.
        why: String,
    },
    /// The deserialiser refused a record.
    #[error(transparent)]
    BadRecord(BadRecord),
    /// The offsets could not be committed. The next run of the group reads the records again.
    #[error("cannot commit the offsets of the group `{group}`: {why}")]
    Commit {
        /// The consumer group.
        group: String,
        /// The reason.
        why: String,
    },
    /// Brokers did not take records.
    #[error("{unacknowledged} records to the topic `{topic}` were not acknowledged: {why}")]
    Delivery {
        /// The topic.
        topic: String,
        /// How many records were given to the producer and not acknowledged, up to now. They may be in the topic or
        /// not.
        unacknowledged: u64,
        /// Why the first of them failed.
        why: String,
    },
    /// A record cannot be written: the serialiser refused it, or it is too large.
    #[error("the record cannot be written to the topic `{topic}`")]
    Record {
        /// The topic.
        topic: String,
        /// What is in the way.
        source: BoxError,
    },
    /// The source or sink was not opened before it was used.
    #[error("the Kafka client is not open")]
    NotOpen,
}
