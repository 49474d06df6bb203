//! The consumer behind a [`KafkaSource`](super::KafkaSource), for any type of record.
//!
//! Partitions are assigned, not balanced: replica `r` of `n` reads partition `p` of the topic number `t` if
//! `(t + p) % n == r`. So no partition ever changes hands, and none is read twice within a run.
//!
//! Invariant: `Part::next` is the offset behind the last record that was given, or that was skipped because there was
//! nothing to give. `close` commits it, and only if every record given was handed downstream.
//!
//! No call into librdkafka may block for long, because it cannot be interrupted: the reader connects in attempts, and
//! asks the engine between them whether to go on.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use sage::{CloseContext, Next, SourceContext, StopReason};

use super::client::{Context, Settings, passes, words};
use super::error::KafkaError;
use super::offsets::{Commit, commit};
use super::record::KafkaRecord;
use super::source::OffsetReset;

/// The longest wait for a record at a time.
const POLL: Duration = Duration::from_millis(50);
/// How long the first attempt to connect may take; each next one may take twice as long.
const FIRST_ATTEMPT: Duration = Duration::from_millis(100);
const LONGEST_ATTEMPT: Duration = Duration::from_secs(1);
/// How many events are taken at a time while connecting.
const EVENTS: usize = 32;
/// How often, and for how long, the reader looks for a broker while something is wrong.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const PROBE: Duration = Duration::from_millis(200);

/// What to read, and how.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) settings: Settings,
    pub(super) topics: Vec<String>,
    pub(super) group: String,
    pub(super) reset: OffsetReset,
    pub(super) until_end: bool,
    pub(super) commit: Commit,
    pub(super) buffer_kib: u32,
    pub(super) buffer_records: u32,
    pub(super) broker_timeout: Duration,
}

/// A partition of this replica.
#[derive(Debug)]
struct Part {
    /// Index of the topic.
    topic: usize,
    partition: i32,
    next: i64,
    /// Where it ended at the start.
    end: i64,
    /// Whether it was read up to there.
    done: bool,
}

/// Something is wrong with the brokers.
struct Trouble {
    since: Instant,
    probed: Instant,
}

/// An attempt that failed.
enum Attempt {
    /// It may succeed later.
    Again(RDKafkaErrorCode),
    Interrupted,
    Failed(KafkaError),
}

impl From<KafkaError> for Attempt {
    fn from(error: KafkaError) -> Self {
        Self::Failed(error)
    }
}

pub(super) struct Reader {
    options: Options,
    consumer: Option<BaseConsumer<Context>>,
    /// Since when it tries to connect, and how long the next attempt may take.
    connecting: Option<(Instant, Duration)>,
    /// The partitions of this replica, by topic and number, once connected.
    parts: Option<Vec<Part>>,
    /// The part of the last record.
    last: usize,
    /// With `until_end`, the topic that is being read.
    topic: usize,
    idle: bool,
    trouble: Option<Trouble>,
}

impl Reader {
    pub(super) fn new(options: Options) -> Self {
        Self { options, consumer: None, connecting: None, parts: None, last: 0, topic: 0, idle: false, trouble: None }
    }

    /// Makes the client. It connects in the background.
    pub(super) fn open(&mut self) -> Result<(), KafkaError> {
        let options = &self.options;
        let reset = match options.reset {
            OffsetReset::Earliest => "earliest",
            OffsetReset::Latest => "latest",
            OffsetReset::Error => "error",
        };
        let fixed = [
            ("group.id", options.group.clone()),
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            ("enable.partition.eof", options.until_end.to_string()),
            ("auto.offset.reset", reset.to_owned()),
            ("queued.max.messages.kbytes", options.buffer_kib.to_string()),
            ("queued.min.messages", options.buffer_records.to_string()),
        ];
        self.consumer = Some(options.settings.client(&fixed, &[])?);
        Ok(())
    }

    /// Whether it has begun to read.
    pub(super) fn is_connected(&self) -> bool {
        self.parts.is_some()
    }

    /// Reads the next record and parses it.
    pub(super) fn next<R>(
        &mut self,
        cx: &SourceContext,
        make: impl FnOnce(&KafkaRecord<'_>) -> R,
    ) -> Result<Next<R>, KafkaError> {
        if self.parts.is_none() && !self.connect(cx)? {
            return Ok(Next::Idle);
        }
        if self.options.until_end && !self.more()? {
            return Ok(Next::End);
        }
        let (Some(consumer), Some(parts)) = (&self.consumer, &mut self.parts) else { return Err(KafkaError::NotOpen) };
        // What is buffered downstream is flushed before there is a wait.
        match consumer.poll(if self.idle { POLL } else { Duration::ZERO }) {
            Some(Ok(message)) => {
                self.idle = false;
                if let Some(trouble) = &mut self.trouble {
                    trouble.since = Instant::now();
                }
                let here = |part: &Part| {
                    part.partition == message.partition() && self.options.topics[part.topic] == message.topic()
                };
                if !parts.get(self.last).is_some_and(here) {
                    self.last = parts.iter().position(here).unwrap_or(parts.len());
                }
                let Some(part) = parts.get_mut(self.last) else { return Ok(Next::Idle) };
                if part.done {
                    return Ok(Next::Idle);
                }
                let made = make(&KafkaRecord(&message));
                part.next = message.offset().saturating_add(1);
                part.done = self.options.until_end && part.next >= part.end;
                Ok(Next::Record(made))
            }
            Some(Err(error)) => self.told(error).map(|()| Next::Idle),
            None => {
                self.idle = true;
                self.look_for_brokers()?;
                Ok(Next::Idle)
            }
        }
    }

    /// Takes an error, or the end of a partition.
    #[cold]
    fn told(&mut self, error: ClientError) -> Result<(), KafkaError> {
        if let ClientError::PartitionEOF(partition) = error {
            // Only one topic is assigned at a time. Nothing is left to give up to here, though the last offsets may be
            // of no record, as those of a transaction's marks are not.
            let parts = self.parts.iter_mut().flatten();
            for part in parts.filter(|part| part.topic == self.topic && part.partition == partition && !part.done) {
                part.next = part.next.max(part.end);
                part.done = true;
            }
            return Ok(());
        }
        let fatal = matches!(error, ClientError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(code) if passes(code) && !fatal => {
                let now = Instant::now();
                self.trouble.get_or_insert(Trouble { since: now, probed: now });
                Ok(())
            }
            _ => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &ClientError) -> KafkaError {
        let told = words(error);
        let why = match &self.consumer {
            Some(consumer) => consumer.context().reason(&told),
            None => told.clone(),
        };
        KafkaError::Read { why: if why == told { told } else { format!("{told}; {why}") } }
    }

    /// Finds out whether a broker can be reached, while something is wrong.
    fn look_for_brokers(&mut self) -> Result<(), KafkaError> {
        let (Some(trouble), Some(consumer)) = (&mut self.trouble, &self.consumer) else { return Ok(()) };
        if trouble.probed.elapsed() < PROBE_EVERY.min(self.options.broker_timeout) {
            return Ok(());
        }
        let found = consumer.fetch_metadata(self.options.topics.first().map(String::as_str), PROBE);
        trouble.probed = Instant::now();
        match found {
            Ok(_) => {
                self.trouble = None;
                Ok(())
            }
            Err(error) if trouble.since.elapsed() >= self.options.broker_timeout => {
                // A source that is asked again waits as long again.
                self.trouble = None;
                Err(KafkaError::Lost {
                    servers: self.options.settings.servers_told(),
                    after: self.options.broker_timeout,
                    why: consumer.context().reason(&error),
                })
            }
            Err(_) => Ok(()),
        }
    }

    /// With `until_end`: whether there is more to read. Goes on to the next topic when the last one is done.
    fn more(&mut self) -> Result<bool, KafkaError> {
        let (Some(consumer), Some(parts)) = (&self.consumer, &self.parts) else { return Ok(false) };
        if parts.iter().any(|part| part.topic == self.topic && !part.done) {
            return Ok(true);
        }
        let Some(part) = parts.iter().find(|part| !part.done) else { return Ok(false) };
        self.topic = part.topic;
        assign(consumer, &self.options.topics, parts.iter().filter(|part| part.topic == self.topic && !part.done))?;
        Ok(true)
    }

    /// Looks the partitions up and begins to read them. Returns false if it has to be called again.
    #[cold]
    fn connect(&mut self, cx: &SourceContext) -> Result<bool, KafkaError> {
        if cx.interrupted() {
            return Ok(false);
        }
        let (began, patience) = *self.connecting.get_or_insert_with(|| (Instant::now(), FIRST_ATTEMPT));
        self.serve()?;
        let left = self.options.settings.connect_timeout.saturating_sub(began.elapsed());
        match self.look_up(cx, patience.min(left).max(Duration::from_millis(1))) {
            Ok(parts) => {
                let consumer = self.consumer.as_ref().ok_or(KafkaError::NotOpen)?;
                if !self.options.until_end {
                    assign(consumer, &self.options.topics, parts.iter())?;
                }
                // With `until_end`, `more` assigns the first topic that has something to read.
                self.topic = usize::MAX;
                self.parts = Some(parts);
                Ok(true)
            }
            Err(Attempt::Interrupted) => Ok(false),
            Err(Attempt::Failed(error)) => Err(error),
            Err(Attempt::Again(code)) => {
                if began.elapsed() >= self.options.settings.connect_timeout {
                    self.serve()?;
                    // A source that is asked again tries as long again.
                    self.connecting = None;
                    let consumer = self.consumer.as_ref().ok_or(KafkaError::NotOpen)?;
                    return Err(KafkaError::Connect {
                        servers: self.options.settings.servers_told(),
                        within: self.options.settings.connect_timeout,
                        why: consumer.context().reason(&code),
                    });
                }
                self.connecting = Some((began, (patience * 2).min(LONGEST_ATTEMPT)));
                cx.wait(POLL);
                Ok(false)
            }
        }
    }

    /// Takes librdkafka's events while no partition is assigned: refused credentials are reported only as an event.
    fn serve(&self) -> Result<(), KafkaError> {
        let consumer = self.consumer.as_ref().ok_or(KafkaError::NotOpen)?;
        // A poll takes one event, and does not tell a line for the log from none.
        for _ in 0..EVENTS {
            let Some(Err(error)) = consumer.poll(Duration::ZERO) else { continue };
            match error.rdkafka_error_code() {
                Some(code) if passes(code) => {}
                _ => return Err(self.failed(&error)),
            }
        }
        Ok(())
    }

    /// Finds this replica's partitions, and where to begin in each.
    fn look_up(&self, cx: &SourceContext, patience: Duration) -> Result<Vec<Part>, Attempt> {
        let consumer = self.consumer.as_ref().ok_or(KafkaError::NotOpen)?;
        let again = |error: ClientError| match error.rdkafka_error_code() {
            Some(code) if passes(code) => Attempt::Again(code),
            _ => Attempt::Failed(self.failed(&error)),
        };
        let mut parts = Vec::new();
        let mut list = TopicPartitionList::new();
        for (topic, name) in self.options.topics.iter().enumerate() {
            let metadata = consumer.fetch_metadata(Some(name), patience).map_err(again)?;
            let Some(found) = metadata.topics().iter().find(|found| found.name() == name) else {
                return Err(Attempt::Again(RDKafkaErrorCode::LeaderNotAvailable));
            };
            match found.error().map(RDKafkaErrorCode::from) {
                Some(code) if passes(code) => return Err(Attempt::Again(code)),
                Some(code) => return Err(KafkaError::Topic { topic: name.clone(), why: code.to_string() }.into()),
                None => {}
            }
            let mut mine: Vec<_> = found.partitions().iter().map(|partition| partition.id()).collect();
            mine.retain(|&partition| (topic + partition as usize) % cx.parallelism.max(1) == cx.replica);
            mine.sort_unstable();
            for partition in mine {
                list.add_partition(name, partition);
                parts.push(Part { topic, partition, next: 0, end: 0, done: false });
            }
        }
        if parts.is_empty() {
            return Ok(parts);
        }
        let committed = consumer.committed_offsets(list, patience).map_err(again)?;
        for part in &mut parts {
            if cx.interrupted() {
                return Err(Attempt::Interrupted);
            }
            let name = &self.options.topics[part.topic];
            let found = committed.find_partition(name, part.partition);
            let offset = match found.map(|found| found.error().map(|()| found.offset())) {
                Some(Err(error)) => return Err(again(error)),
                Some(Ok(Offset::Offset(offset))) => Some(offset),
                _ => None,
            };
            let (low, high) = consumer.fetch_watermarks(name, part.partition, patience).map_err(again)?;
            part.next = match (offset.filter(|offset| (low..=high).contains(offset)), self.options.reset) {
                (Some(offset), _) => offset,
                (None, OffsetReset::Earliest) => low,
                (None, OffsetReset::Latest) => high,
                (None, OffsetReset::Error) => {
                    let (group, topic) = (self.options.group.clone(), name.clone());
                    return Err(KafkaError::NoOffset { group, topic, partition: part.partition }.into());
                }
            };
            part.end = high;
            part.done = self.options.until_end && part.next >= high;
        }
        Ok(parts)
    }

    /// Commits its offsets if every record given was handed downstream, and ends the client.
    pub(super) fn close(&mut self, cx: &CloseContext) -> Result<(), KafkaError> {
        let (Some(consumer), Some(parts)) = (self.consumer.take(), self.parts.take()) else { return Ok(()) };
        if !ended_well(cx) || parts.is_empty() {
            return Ok(());
        }
        let Options { settings, group, topics, .. } = &self.options;
        let offsets = parts.iter().map(|part| ((topics[part.topic].clone(), part.partition), part.next)).collect();
        match &self.options.commit {
            Commit::Never => Ok(()),
            Commit::Later(kept) => {
                kept.keep(settings, group, offsets);
                Ok(())
            }
            Commit::AtEnd => {
                let left = cx.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
                let patience = left.unwrap_or(Duration::MAX).min(settings.connect_timeout);
                commit(&consumer, group, &offsets, patience)
            }
        }
    }
}

/// Whether the task has reached the end of its input: these two reasons, and no others, are given to a task only after
/// all of its records were processed.
fn ended_well(cx: &CloseContext) -> bool {
    matches!(cx.reason(), StopReason::EndOfInput | StopReason::Drain)
}

fn assign<'a>(
    consumer: &BaseConsumer<Context>,
    topics: &[String],
    parts: impl Iterator<Item = &'a Part>,
) -> Result<(), KafkaError> {
    let failed = |error: ClientError| KafkaError::Read { why: error.to_string() };
    let mut list = TopicPartitionList::new();
    for part in parts {
        list.add_partition_offset(&topics[part.topic], part.partition, Offset::Offset(part.next)).map_err(failed)?;
    }
    consumer.assign(&list).map_err(failed)
}
