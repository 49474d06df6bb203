//! [`KafkaOffsets`]: the offsets of sources, to be committed later.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Context, Settings, words};
use super::error::KafkaError;

/// When offsets are committed.
#[derive(Debug, Clone)]
pub(super) enum Commit {
    AtEnd,
    Never,
    Later(KafkaOffsets),
}

/// Offsets behind the last record, by topic and partition.
pub(super) type Offsets = BTreeMap<(String, i32), i64>;

/// Where one group stands.
#[derive(Debug, Clone)]
struct Stand {
    settings: Settings,
    group: String,
    offsets: Offsets,
}

/// The offsets at which a job's sources ended well, for you to commit when the job has succeeded: **at least once**,
/// whatever lies between the sources and the sinks. All clones share the same offsets.
///
/// If the process ends between the success of the job and the commit, the next run gives the records again.
///
/// ```no_run
/// use sage::Environment;
/// use sage_connectors::{JsonlSink, KafkaOffsets, KafkaSource};
///
/// let offsets = KafkaOffsets::new();
/// let kept = offsets.clone();
/// let env = Environment::local("archive");
/// env.from_source(move |_replica| {
///     KafkaSource::<u32>::json("localhost:9092", ["numbers"], "archive").until_end().offsets_to(&kept)
/// })
/// .rebalance(2)
/// .sink_to(|_replica| JsonlSink::new("numbers.jsonl"));
/// env.run()?;
/// offsets.commit()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct KafkaOffsets(Arc<Mutex<Vec<Stand>>>);

impl KafkaOffsets {
    /// Holds no offsets yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Commits the offsets, and forgets them if that went well. Blocks; if no broker answers, for about twice the
    /// sources' connect timeout. Without offsets, does nothing.
    ///
    /// # Errors
    /// [`KafkaError::Commit`] if the brokers refuse, cannot be reached, or say that the group has members. The offsets
    /// are kept, and may be committed again.
    pub fn commit(&self) -> Result<(), KafkaError> {
        // Not under the lock, for a source may want to end meanwhile.
        let stands = self.stands().clone();
        for stand in stands {
            let consumer = stand.settings.client(&[("group.id", stand.group.clone())], &[])?;
            commit(&consumer, &stand.group, &stand.offsets, stand.settings.connect_timeout)?;
            let mut stands = self.stands();
            for kept in stands.iter_mut().filter(|kept| kept.is(&stand.settings, &stand.group)) {
                kept.offsets.retain(|place, offset| stand.offsets.get(place) != Some(offset));
            }
            stands.retain(|kept| !kept.offsets.is_empty());
        }
        Ok(())
    }

    /// Takes where a source stands.
    pub(super) fn keep(&self, settings: &Settings, group: &str, offsets: Offsets) {
        let mut stands = self.stands();
        match stands.iter_mut().find(|stand| stand.is(settings, group)) {
            Some(stand) => stand.offsets.extend(offsets),
            None => stands.push(Stand { settings: settings.clone(), group: group.to_owned(), offsets }),
        }
    }

    fn stands(&self) -> MutexGuard<'_, Vec<Stand>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stand {
    fn is(&self, settings: &Settings, group: &str) -> bool {
        self.settings.servers == settings.servers && self.group == group
    }
}

impl fmt::Debug for KafkaOffsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stands = self.stands();
        f.debug_map().entries(stands.iter().map(|stand| (&stand.group, &stand.offsets))).finish()
    }
}

/// Commits offsets, if the brokers answer within `patience`.
pub(super) fn commit(
    consumer: &BaseConsumer<Context>,
    group: &str,
    offsets: &Offsets,
    patience: Duration,
) -> Result<(), KafkaError> {
    let failed = |error: ClientError| KafkaError::Commit { group: group.to_owned(), why: words(&error) };
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(failed)?;
    }
    // A commit waits for longer than a job may take to end where the brokers are gone. This does not.
    consumer.committed_offsets(list.clone(), patience).map_err(failed)?;
    consumer.commit(&list, CommitMode::Sync).map_err(failed)
}
